"""Turn rows of any source into one schema, and leave out those that cannot be used.

A row on its way is a mapping with `id`, `image` (a mapping of `bytes` and `path`, one of which may be None), `text` and
perhaps `captions`.
"""

import io
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, List, Value
from datasets import Image as ImageFeature
from datasets.table import InMemoryTable
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from nib.checks import shorten

SCHEMA = {"id": Value("string"), "image": ImageFeature(), "text": Value("string")}
CAPTIONS = {"captions": List(Value("string"))}
# What PIL raises for files that are cut off or garbled.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Choice:
    """Which rows of a source are taken: those named by `ids`, else a sample, else all; and whether a bar is shown."""

    limit: int | None
    seed: int
    ids: Sequence[str] | None
    progress: bool


def name_captions(captions: str | Iterable[str | None]) -> dict:
    """Return the fields `text`, the first caption, and `captions`, all of them that are not empty."""
    captions = [captions] if isinstance(captions, str) else captions or []
    captions = [caption for caption in captions if caption and caption.strip()]
    return {"text": captions[0] if captions else "", "captions": captions}


def to_ids(what: str, ids: Iterable) -> list[str]:
    """Return ids as text; a ValueError refuses what is neither text nor a number."""
    ids = list(ids)
    if wrong := [key for key in ids if not isinstance(key, str) and not (isinstance(key, Real) and math.isfinite(key))]:
        raise ValueError(f"{what} must be text or whole numbers, got {type(wrong[0]).__name__}: {shorten(wrong[0])}")
    return [str(key) for key in ids]


def find_twins(values: Iterable[str]) -> list[str]:
    """Return the values that come more than once, in order."""
    return sorted(value for value, times in Counter(values).items() if times > 1)


def check_known(name: str, ids: Iterable[str], known) -> None:
    """Raise a ValueError that names the ids which a source does not hold."""
    missing = [key for key in ids if key not in known]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(f"{name} has no row {', '.join(missing[:5])}{more}")


def pick(name: str, keys: Sequence[str], read: Callable[[int], dict], choice: Choice) -> Dataset:
    """Take rows of a source that is read by number."""
    if twice := find_twins(keys):
        raise ValueError(f"ids of {name} must be unique, got twice {shorten(twice[:5])}")
    if choice.ids is not None:
        number = {key: index for index, key in enumerate(keys)}
        check_known(name, choice.ids, number)
        return gather(name, [((read(number[key]) for key in choice.ids), None)], len(choice.ids), choice)
    numbers = range(len(keys))
    if choice.limit is not None:  # a smaller sample of the same seed is the beginning of a larger one
        numbers = np.random.default_rng(choice.seed).permutation(len(keys)).tolist()
    return gather(name, [(map(read, numbers), choice.limit)], choice.limit or len(keys), choice)


def gather(name: str, groups: Iterable[tuple[Iterable[dict], int | None]], total: int, choice: Choice) -> Dataset:
    """Collect rows whose picture can be decoded and whose caption is not empty; `ids` are refused where one cannot.

    Of each group the given number of good rows is taken (None: all): one that is left out, as `skipped` then says, is
    replaced by the next. Pictures stay encoded: they are decoded here to see that they can be, and when a row is read.
    """
    kept, skipped, seen = [], [], set()
    with tqdm(total=total, desc=name, unit="picture", delay=3, disable=not choice.progress) as bar:
        for rows, quota in groups:
            left = quota
            for row in rows if quota != 0 else ():
                reason = "its id has come before" if row["id"] in seen else _find_fault(row)
                if reason and choice.ids is not None:
                    raise ValueError(f"row {row['id']:.300} of {name} cannot be used: {reason}")
                if reason:
                    skipped.append({"id": row["id"], "reason": reason})
                    continue
                seen.add(row["id"])
                kept.append(row)
                bar.update()
                if left is not None and (left := left - 1) == 0:
                    break
    if not kept:
        first = f"; {skipped[0]['id']:.300}: {skipped[0]['reason']}" if skipped else ""
        raise ValueError(f"no row of {name} can be used, {len(skipped)} were tried{first}")
    dataset = _to_dataset(kept)
    dataset.skipped = skipped
    return dataset


def _find_fault(row: dict) -> str | None:
    """Say why a row cannot be used, or None."""
    if not (row["text"] or "").strip():
        return "its caption is empty"
    content, path = row["image"]["bytes"], row["image"]["path"]
    if content is None and path is None:
        return "it has no picture"
    if content is None and not os.path.isfile(path):  # a pipe would be waited for, and Path raises where a name is long
        return f"there is no picture at {shorten(path)}"
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as picture:
            picture.load()
            mode = picture.mode
    except UnidentifiedImageError:
        return "its picture is in no known format"
    except BROKEN as error:
        return f"its picture cannot be decoded: {error}"
    return f"its picture has more than 8 bits a channel, mode {mode!r}" if mode[0] in "IF" else None


def _to_dataset(rows: list[dict]) -> Dataset:
    features = Features(SCHEMA | (CAPTIONS if any("captions" in row for row in rows) else {}))
    full = [{name: row.get(name, [row["text"]]) for name in features} for row in rows]
    # chunk by chunk, because one Arrow array holds at most 2 GB
    chunks = [pa.Table.from_pylist(full[first : first + 100]) for first in range(0, len(full), 100)]
    table = pa.concat_tables([chunk.cast(features.arrow_schema) for chunk in chunks])
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=features))
