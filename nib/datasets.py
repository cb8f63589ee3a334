"""Read image-text pairs from every source in one schema.

Exports `load`, `object_prompts`, `with_article` and `NAMES`.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable
from PIL import Image

from nib.quadrature import check_count

SCENES = Path(__file__).parents[1] / "data" / "scenes"


def with_article(noun: str) -> str:
    """Put "a" or "an" before a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _object_text(row: dict, dataset: Dataset) -> str:
    return f"a photo of {with_article(dataset.features['label'].int2str(row['label']))}"


# For each embedded split: the column of pictures, and what its text is.
NAMES = {
    "scenes": ("image", lambda row, dataset: row["caption_0"]),
    "captions": ("jpg", lambda row, dataset: row["txt"]),
    "objects": ("image", _object_text),
    "aerial": ("image", lambda row, dataset: row["captions"][0]),
}


def load(name: str, split: str = "test", limit: int | None = None) -> Dataset:
    """Load one of the embedded data sets.

    Args:
        name: `scenes` (like Flickr8k), `captions` (like Conceptual Captions), `objects` (like
            ImageNet) or `aerial` (like RSICD).
        split: `test`, the only one: training scenes are drawn on the fly.
        limit: take the first so many rows.

    Returns:
        A `datasets.Dataset` with columns `id`, `image` (PIL), `text`, `objects` (names) and `masks`
        (a PIL palette picture of the same size; pixel value i is where `objects[i - 1]` is seen,
        0 is background).

    Raises:
        KeyError: unknown name.
        ValueError: unknown split, or a limit below 1.
        FileNotFoundError: the file is missing.
    """
    if name not in NAMES:
        raise KeyError(f"data set must be one of {sorted(NAMES)}, got {name!r}")
    if split != "test":
        raise ValueError(f"split of {name} must be 'test', got {split!r}")
    if limit is not None:
        check_count("limit", limit)
    path = SCENES / f"{name}.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: draw it with `python -m data.scenes.build`")
    dataset = Dataset(InMemoryTable(pq.read_table(path)))
    dataset = dataset.select(range(min(limit or len(dataset), len(dataset))))
    column, text = NAMES[name]
    texts = [text(row, dataset) for row in dataset.remove_columns([column, "mask"])]
    ids = [f"{name}-{index:04d}" for index in range(len(dataset))]
    dataset = dataset.rename_columns({"mask": "masks"} | ({column: "image"} if column != "image" else {}))
    dataset = dataset.select_columns(["image", "objects", "masks"])
    return (
        dataset.add_column("id", ids)
        .add_column("text", texts)
        .select_columns(["id", "image", "text", "objects", "masks"])
    )


def object_prompts(limit: int | None = None) -> tuple[list[Image.Image], list[str], np.ndarray]:
    """Ask for one object in each of the `scenes` that hold two or three different ones.

    This is what localisation is measured on: a map should lie on the object that is asked for and
    not on its neighbours. Which object is asked for goes round with the number of the scene.

    Args:
        limit: take the first so many scenes.

    Returns:
        Pictures, prompts such as "a cat", and masks (prompts, height, width), boolean.
    """
    if limit is not None:
        check_count("limit", limit)
    images, prompts, masks = [], [], []
    for number, row in enumerate(load("scenes")):
        if len(images) == limit:
            break
        names = row["objects"]
        if not 2 <= len(names) <= 3 or len(set(names)) < len(names):
            continue
        asked = number % len(names)
        images.append(row["image"])
        prompts.append(with_article(names[asked]))
        masks.append(np.array(row["masks"]) == asked + 1)
    return images, prompts, np.stack(masks)
