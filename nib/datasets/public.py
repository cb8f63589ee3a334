"""Sample the public data sets of the paper."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, IterableDataset
from tqdm import tqdm

from nib import DATA
from nib.checks import shorten
from nib.datasets.hub import open_split
from nib.datasets.rows import Choice, check_known, gather, name_captions, pick, to_ids

CLASSES = DATA / "imagenet" / "tiny_imagenet_classes.csv"
PER_CLASS = 5  # the paper's ImageNet is 5 pictures of each of 200 classes
BUFFER = 1000  # rows of a stream among which the next one is drawn


@cache
def read_classes() -> dict[str, str]:
    """Return all synonyms of each of the 200 classes of tiny-imagenet by wnid, in its order."""
    with CLASSES.open(newline="", encoding="utf-8") as file:
        return {row["wnid"]: row["words"] for row in csv.DictReader(file)}


def _read_tiny_imagenet(row: dict, features: Features) -> dict:
    wnids = getattr(features["label"], "names", None) or list(read_classes())
    return {"text": f"a photo of a {read_classes()[wnids[row['label']]]}"}


def _read_imagenet(row: dict, features: Features) -> dict:
    return {"text": f"a photo of a {features['label'].int2str(row['label'])}"}


@dataclass(frozen=True)
class Source:
    """Where a public data set lies and how its rows are read."""

    path: str  # its id on the hub
    split: str  # the one that the paper's numbers are taken to be on
    image: str  # the column of pictures
    columns: tuple[str, ...]  # the others that are read
    read: Callable[[dict, Features], dict]  # to `text` and perhaps `captions`
    key: str | None = None  # the column that tells rows apart; without one their numbers do
    limit: int | None = None  # how many rows are taken where nothing is said; None for all
    streamed: bool = False  # read over the network from the first row on, keeping nothing on disk


_FIVE = tuple(f"caption_{number}" for number in range(5))
SOURCES = {
    "flickr8k": Source(
        "jxie/flickr8k", "validation", "image", _FIVE, lambda row, _: name_captions(row[name] for name in _FIVE),
        limit=1000,
    ),
    "conceptual_captions": Source(
        "pixparse/cc3m-wds", "validation", "jpg", ("txt", "__key__"), lambda row, _: {"text": row["txt"]},
        key="__key__", limit=2000, streamed=True,
    ),
    "tiny_imagenet": Source("zh-plus/tiny-imagenet", "valid", "image", ("label",), _read_tiny_imagenet),
    "imagenet": Source("ILSVRC/imagenet-1k", "validation", "image", ("label",), _read_imagenet, limit=1000),
    "rsicd": Source(
        "arampacha/rsicd", "test", "image", ("captions", "filename"), lambda row, _: name_captions(row["captions"]),
        key="filename",
    ),
}  # fmt: skip


def load_public(name: str, split: str | None, choice: Choice, path: str | Path | None) -> Dataset:
    """Load a sample of a public data set; see `nib.datasets.load`."""
    source = SOURCES[name]
    split, path = split or source.split, path or source.path
    rows = open_split(path, split, (source.image, *source.columns), source.streamed)
    if "label" in source.columns:
        _check_labels(name, rows, path)
    choice = replace(choice, limit=choice.limit or source.limit)

    def convert(row: dict, key: str) -> dict:
        return {"id": key, "image": row[source.image], **source.read(row, rows.features)}

    if source.streamed:
        return _sample_stream(name, rows, lambda row: convert(row, row[source.key]), choice)
    keys = [f"{name}-{split}-{number:05d}" for number in range(len(rows))]
    if source.key:
        keys = to_ids(f"column {source.key!r} of {str(path)!r}", rows[source.key])

    def read(number: int) -> dict:
        return convert(rows[number], keys[number])

    if name == "tiny_imagenet" and choice.ids is None:
        spread = _spread(rows["label"][:], choice.limit, choice.seed)
        groups = [(map(read, members), quota) for members, quota in spread]
        return gather(name, groups, sum(quota for _, quota in groups), choice)
    return pick(name, keys, read, choice)


def _check_labels(name: str, rows: Dataset, path: str | Path) -> None:
    names = getattr(rows.features["label"], "names", None)
    classes = len(read_classes()) if name == "tiny_imagenet" else len(names or ())
    if name == "tiny_imagenet" and names and set(names) != set(read_classes()):
        raise ValueError(
            f"column 'label' of {str(path)!r} must have the {classes} classes of tiny-imagenet, got {len(names)},"
            f" {shorten(names)}: their names must be its WordNet ids"
        )
    if not classes:
        raise ValueError(f"column 'label' of {str(path)!r} must name its classes, got {rows.features['label']}")
    labels = rows["label"][:]
    unknown = [row for row, label in enumerate(labels) if not isinstance(label, int) or not 0 <= label < classes]
    if unknown:
        raise ValueError(
            f"column 'label' of {str(path)!r} must be in [0, {classes}), got {shorten(labels[unknown[0]])} in"
            f" {len(unknown)} rows, first in row {unknown[0]} (from 0; a test split may have no labels)"
        )


def _sample_stream(name: str, rows: IterableDataset, convert: Callable[[dict], dict], choice: Choice) -> Dataset:
    """Draw rows from a shuffled stream, or look in it for those named by `ids`, which the same seed finds early."""
    shuffled = map(convert, rows.shuffle(seed=choice.seed, buffer_size=BUFFER))
    if (ids := choice.ids) is None:
        return gather(name, [(shuffled, choice.limit)], choice.limit, choice)
    wanted, found = set(ids), {}
    for row in tqdm(shuffled, desc=f"looking for {len(ids)} rows", unit="row", delay=3, disable=not choice.progress):
        if row["id"] in wanted:
            found[row["id"]] = row
        if len(found) == len(ids):
            break
    check_known(name, ids, found)
    return gather(name, [(map(found.get, ids), None)], len(ids), choice)


def _spread(labels: Sequence[int], limit: int | None, seed: int) -> Iterator[tuple[list[int], int]]:
    """Return the rows of each class in their order and how many to take of them, `PER_CLASS` or fewer."""
    rows = [np.flatnonzero(np.equal(labels, label)).tolist() for label in np.unique(labels)]
    places = np.repeat(np.arange(len(rows)), [min(len(row), PER_CLASS) for row in rows])
    if limit is not None and limit > len(places):
        raise ValueError(f"limit must be at most {len(places)}, {PER_CLASS} rows a class of {len(rows)}, got {limit}")
    drawn = places[np.random.default_rng(seed).permutation(len(places))[:limit]]
    yield from zip(rows, np.bincount(drawn, minlength=len(rows)).tolist())
