"""Load the pairs of several data sets and evaluate methods on them, as the notebooks of the paper's tables do.

Exports `load_pairs`, `evaluate_pairs`, `read_sweep` and `find_tables`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import nib
from nib.clip import HookedCLIP
from nib.datasets import best_captions
from runs import collect, locate


def load_pairs(clip: HookedCLIP, limits: Mapping, paths: Mapping, protocol: str = "paper") -> dict:
    """Load the first pairs of each data set; where a picture has several captions, one is chosen.

    Args:
        limits: name -> pairs.
        paths: name -> folder or id, where not the public one.
        protocol: by which a caption is chosen; see `nib.datasets.best_captions`.

    Returns:
        Name -> data set.
    """
    pairs = {}
    for name, limit in limits.items():
        data = nib.datasets.load(name, limit=limit, **({"path": paths[name]} if name in paths else {}))
        pairs[name] = best_captions(clip, data, protocol) if "captions" in data.column_names else data
    return pairs


def evaluate_pairs(
    clip: HookedCLIP, pairs: Mapping, settings: Sequence[dict], few: Mapping | None = None, **options
) -> pd.DataFrame:
    """Evaluate settings on each data set.

    Settings that need the same number of pairs go together, so that each picture is read once.

    Args:
        pairs: name -> data set.
        settings: as `nib.evaluate` takes them; "true_mask" is left out where masks are not known.
        few: method -> pairs of each data set, the first ones, where not all.
        options: of `nib.evaluate`.

    Returns:
        What `nib.evaluate` returns, with a column `dataset`. `attrs["skipped"]` lists the pairs left out.
    """
    frames, skipped = [], [entry for data in pairs.values() for entry in getattr(data, "skipped", [])]
    for name, data in pairs.items():
        some = [each for each in settings if each["method"] != "true_mask" or "masks" in data.column_names]
        counts = [min((few or {}).get(each["method"], len(data)), len(data)) for each in some]
        for count in sorted(set(counts)):
            part = [each for each, own in zip(some, counts) if own == count]
            found = nib.evaluate(clip, data.select(range(count)), part, **options)
            skipped += found.attrs["skipped"]
            frames.append(found.assign(dataset=name))
    values = pd.concat(frames, ignore_index=True)
    values.attrs["skipped"] = skipped
    return values


def read_sweep(folder: str | Path) -> pd.DataFrame:
    """Read the values of a sweep, and say which of its runs have none yet."""
    values = collect(locate(folder))
    print(f"runs of the sweep without a result yet: {', '.join(values.attrs['missing']) or 'none'}")
    return values


def find_tables(kept: str | Path, written: str | Path, profile: str, stem: str = "") -> Path:
    """Return the folder of the tables of full size: `kept` for the embedded model, else what the run has `written`.

    Args:
        stem: of a table that must be there; while it is not, as before the first full run, it is what was written.
    """
    there = locate(kept) / (f"{stem}.csv" if stem else "")
    return locate(kept) if profile == "embedded" and there.exists() else Path(written)
