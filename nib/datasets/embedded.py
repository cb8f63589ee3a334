"""Read the five composed data sets that come with the repository."""

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable

from nib import DATA
from nib.checks import check_count, check_flag, shorten
from nib.datasets.rows import check_known

SCENES = DATA / "scenes"
NAMES = ("scenes", "captions", "objects", "aerial", "unseen")


def with_article(noun: str) -> str:
    """Put "a" or "an" before a noun, by its first letter and not by its sound.

    Example:
        >>> with_article("unicorn")
        'an unicorn'
    """
    if not isinstance(noun, str) or not noun.strip():
        raise ValueError(f"a noun must have at least one letter, got {shorten(noun)}")
    noun = noun.strip()
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def load_embedded(
    name: str, split: str | None = None, limit: int | None = None, ids: Sequence[str] | None = None
) -> Dataset:
    """Load one of the embedded data sets; see `nib.datasets.load`."""
    if split not in (None, "test"):  # the training scenes are composed on the fly
        raise ValueError(f"split of {name} must be 'test', got {split!r}")
    path = SCENES / f"{name}.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: compose it with `python -m data.scenes.build`")
    table = pq.read_table(path)
    numbers = {key: number for number, key in enumerate(table["id"].to_pylist())}
    chosen = list(numbers)[:limit] if ids is None else list(ids)
    check_known(name, chosen, numbers)
    dataset = Dataset(InMemoryTable(table.take([numbers[key] for key in chosen]))).rename_column("mask", "masks")
    if all(len(captions) == 1 for captions in dataset["captions"]):
        dataset = dataset.remove_columns("captions")
    dataset.skipped = []
    return dataset


def object_prompts(
    limit: int | None = None,
    name: str = "scenes",
    repeated: bool = False,
    with_others: bool = False,
    with_absent: bool = False,
) -> tuple:
    """Ask for one object in each of the pictures that hold two or three different ones, to measure localisation on.

        pictures, prompts, masks = object_prompts(100)

    Args:
        limit: take the first so many pictures.
        name: of the data set; those of `objects` and `unseen` hold one object, which is asked for.
        repeated: also take pictures with more objects, or with several of a kind, all of which the mask then covers.

    Returns:
        Pictures, prompts such as "a cat", and masks (prompts, height, width), boolean; with `with_others` a fourth,
        likewise, where any object is seen that is not asked for; with `with_absent` a last one, the next prompts whose
        object the picture does not hold.
    """
    if limit is not None:
        check_count("limit", limit)
    if name not in NAMES:
        raise ValueError(f"name must be one of {list(NAMES)}, got {shorten(name)}")
    for flag, value in dict(repeated=repeated, with_others=with_others, with_absent=with_absent).items():
        check_flag(flag, value)
    images, prompts, masks, others, held = [], [], [], [], []
    for number, row in enumerate(load_embedded(name)):
        if len(images) == limit:
            break
        names, kinds = row["objects"], list(dict.fromkeys(row["objects"]))
        too_many = not repeated and (len(names) > 3 or len(kinds) < len(names))
        if too_many or (len(kinds) < 2 and name not in ("objects", "unseen")):
            continue
        asked = kinds[number % len(kinds)]  # goes round
        images.append(row["image"])
        prompts.append(with_article(asked))
        held.append({with_article(kind) for kind in kinds})
        masks.append(np.isin(row["masks"], [place + 1 for place, kind in enumerate(names) if kind == asked]))
        others.append((np.array(row["masks"]) > 0) & ~masks[-1])
    found = images, prompts, np.stack(masks)
    if with_others:
        found += (np.stack(others),)
    if not with_absent:
        return found
    turned = [prompts[row:] + prompts[:row] for row in range(len(prompts))]
    absent = [next((p for p in ps if p not in own), None) for ps, own in zip(turned, held)]
    if None in absent:
        raise ValueError(f"no prompt asks for what picture {absent.index(None)} does not hold: take more than {limit}")
    return (*found, absent)
