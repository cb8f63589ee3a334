"""Read the four drawn data sets that come with the repository.

Exports `load_embedded`, `object_prompts`, `with_article`, `NAMES` and `SCENES`.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable
from PIL import Image

from nib.datasets.rows import check_known
from nib.folders import find_data
from nib.quadrature import check_count

SCENES = find_data() / "scenes"


def with_article(noun: str) -> str:
    """Put "a" or "an" before a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _object_text(row: dict, dataset: Dataset) -> list[str]:
    return [f"a photo of {with_article(dataset.features['label'].int2str(row['label']))}"]


# For each embedded data set: the column of pictures, and what the captions of a row are.
NAMES = {
    "scenes": ("image", lambda row, dataset: [row[f"caption_{number}"] for number in range(5)]),
    "captions": ("jpg", lambda row, dataset: [row["txt"]]),
    "objects": ("image", _object_text),
    "aerial": ("image", lambda row, dataset: row["captions"]),
}


def load_embedded(
    name: str, split: str | None = None, limit: int | None = None, ids: Sequence[str] | None = None
) -> Dataset:
    """Load one of the embedded data sets; see `nib.datasets.load`."""
    if split not in (None, "test"):  # the training scenes are drawn on the fly
        raise ValueError(f"split of {name} must be 'test', got {split!r}")
    path = SCENES / f"{name}.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: draw it with `python -m data.scenes.build`")
    table = pq.read_table(path)
    numbers = {f"{name}-{number:04d}": number for number in range(len(table))}
    chosen = list(numbers)[:limit] if ids is None else list(ids)
    check_known(name, chosen, numbers)
    dataset = Dataset(InMemoryTable(table.take([numbers[key] for key in chosen])))
    column, read = NAMES[name]
    captions = [read(row, dataset) for row in dataset.remove_columns([column, "mask"])]
    dataset = dataset.rename_columns({"mask": "masks"} | ({column: "image"} if column != "image" else {}))
    columns = {"id": chosen, "text": [first for first, *_ in captions]}
    several = len(captions[0]) > 1
    columns |= {"captions": captions} if several else {}
    dataset = dataset.select_columns(["image", "objects", "masks"])
    for column, values in columns.items():
        dataset = dataset.add_column(column, values)
    dataset = dataset.select_columns(["id", "image", "text", *["captions"] * several, "objects", "masks"])
    dataset.skipped = []
    return dataset


def object_prompts(
    limit: int | None = None, name: str = "scenes", repeated: bool = False
) -> tuple[list[Image.Image], list[str], np.ndarray]:
    """Ask for one object in each of the pictures that hold two or three different ones.

    This is what localisation is measured on: a map should lie on the object that is asked for and
    not on its neighbours. Which object is asked for goes round with the number of the picture.

    Args:
        limit: take the first so many pictures.
        name: of the data set; those of `objects` hold one object, which is asked for.
        repeated: also take pictures with more objects, or with several of a kind; a mask then covers all of the
            kind that is asked for.

    Returns:
        Pictures, prompts such as "a cat", and masks (prompts, height, width), boolean.
    """
    if limit is not None:
        check_count("limit", limit)
    images, prompts, masks = [], [], []
    for number, row in enumerate(load_embedded(name)):
        if len(images) == limit:
            break
        names, kinds = row["objects"], list(dict.fromkeys(row["objects"]))
        too_many = not repeated and (len(names) > 3 or len(kinds) < len(names))
        if too_many or (len(kinds) < 2 and name != "objects"):
            continue
        asked = kinds[number % len(kinds)]
        images.append(row["image"])
        prompts.append(with_article(asked))
        masks.append(np.isin(row["masks"], [place + 1 for place, kind in enumerate(names) if kind == asked]))
    return images, prompts, np.stack(masks)
