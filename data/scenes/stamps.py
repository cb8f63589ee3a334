"""Read the photographic cut-outs that scenes are composed of.

Exports `read_kinds` and `load_stamps`. `stamps.webp` holds every cut-out with its transparency, in the order
of `kinds.csv`. `python -m data.scenes.stamps` makes it again from Debian's package `tuxpaint-stamps-default`
(and `librsvg2-bin` for the few that are vector drawings). Licence: see `NOTICE.md`.
"""

import csv
import subprocess
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
PACKAGE = Path("/usr/share/tuxpaint/stamps")
CELL = 192  # pixels, the longest side of a cut-out
COLUMNS = 14


@lru_cache(maxsize=1)
def read_kinds() -> tuple[dict[str, str], ...]:
    """Return the kinds of objects: name, plural, look, training stamps and the stamp that training never sees."""
    with open(HERE / "kinds.csv", newline="") as file:
        return tuple(csv.DictReader(file))


@lru_cache(maxsize=2)
def load_stamps(held_out: bool = False) -> dict[str, list[Image.Image]]:
    """Return the RGBA cut-outs of each kind, trimmed to what is visible.

    Args:
        held_out: return the photographs that training never sees, of the kinds that have one.
    """
    atlas = Image.open(HERE / "stamps.webp").convert("RGBA")
    stamps: dict[str, list[Image.Image]] = {}
    for index, (name, _, is_held_out) in enumerate(_list_files()):
        if is_held_out == held_out:
            left, top = CELL * (index % COLUMNS), CELL * (index // COLUMNS)
            stamp = atlas.crop((left, top, left + CELL, top + CELL))
            stamps.setdefault(name, []).append(stamp.crop(stamp.getchannel("A").getbbox()))
    return stamps


def _list_files() -> list[tuple[str, str, bool]]:
    """List (kind, file, held out) in the order of the atlas."""
    return [
        (row["name"], file, file == row["held_out"])
        for row in read_kinds()
        for file in [*row["stamps"].split(), *row["held_out"].split()]
    ]


def _read_stamp(path: Path) -> Image.Image:
    if path.suffix == ".svg":
        command = ["rsvg-convert", "--keep-aspect-ratio", f"--width={CELL}", f"--height={CELL}", str(path)]
        path = BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)
    stamp = Image.open(path).convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").point(lambda alpha: 255 * (alpha > 40)).getbbox())
    scale = min(1, CELL / max(stamp.size))  # small photographs keep their size: enlarging them adds nothing
    return stamp.resize([max(1, round(side * scale)) for side in stamp.size], Image.LANCZOS)


def render_atlas() -> Image.Image:
    """Put every cut-out into its cell of one picture."""
    files = _list_files()
    atlas = Image.new("RGBA", (COLUMNS * CELL, -(-len(files) // COLUMNS) * CELL))
    for index, (_, file, _) in enumerate(files):
        atlas.paste(_read_stamp(PACKAGE / file), (CELL * (index % COLUMNS), CELL * (index // COLUMNS)))
    return atlas


if __name__ == "__main__":
    render_atlas().save(HERE / "stamps.webp", quality=90, method=6)
