"""Read image-text pairs from every source in one schema.

Exports `load` and `NAMES`.
"""

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable

SCENES = Path(__file__).parents[1] / "data" / "scenes"


def _object_text(row: dict, dataset: Dataset) -> str:
    name = dataset.features["label"].int2str(row["label"])
    return f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}"


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
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
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
