"""Find the data that come with `nib`.

Exports `find_data`.
"""

from pathlib import Path


def find_data() -> Path:
    """Return the folder of the embedded model and scenes.

    In an installed package it lies inside `nib`; in a checkout, beside it.

    Raises:
        FileNotFoundError: it is in neither place.

    Example:
        find_data() / "mini_clip" / "config.json"
    """
    package = Path(__file__).parent
    places = [package / "data", package.with_name("data")]
    for place in places:
        if (place / "mini_clip").is_dir():
            return place
    raise FileNotFoundError(f"the data of nib are in none of {[str(place) for place in places]}")
