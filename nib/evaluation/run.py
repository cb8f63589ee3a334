"""Run methods over pairs and measure their maps, so that a killed run loses nothing."""

import warnings
from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from nib.checks import check_choice, check_count, name_place
from nib.clip import HookedCLIP
from nib.evaluation.batches import TRUE_MASK, Pairs, Setting, column, read_batch, read_settings, to_rows
from nib.evaluation.work import NO_ROWS, PROTOCOLS, Parts, Work, describe
from nib.files import to_path
from nib.inputs import to_tokens
from nib.metrics import METRICS
from nib.metrics.confidence import check_protocol
from nib.metrics.registry import check_metrics


def evaluate(
    clip: HookedCLIP,
    pairs: Pairs,
    methods: Setting | Sequence[Setting] = ("nib",),
    protocol: str | Sequence[str] = "paper",
    *,
    metrics: Sequence[str] = ("confidence",),
    batch_size: int = 32,
    shard: Sequence[int] = (0, 1),
    output: str | Path | None = None,
    truncate: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Explain pairs with each method and measure each map.

    A run with `output` that is killed goes on where it was; the same call gives the same table. Parts of other
    settings, pictures, weights or code of `nib`, or of the file of a method of your own, are not read.

        table = nib.evaluate(clip, pairs, ["nib", {"method": "m2ib", "beta": 0.5}], metrics=["localisation"])

    Args:
        pairs: rows with `id`, `image` and `text`, and for localisation `masks` of the size of their pictures, which are
            resized and cropped with them; a data set from `nib.datasets.load`, a list of dicts or a table. A picture
            that cannot be read is skipped, with a warning.
        methods: names, or dicts of a method and its parameters, `{"method": "m2ib", "beta": 0.5}`. Beside those of
            `nib.METHODS` there is a control, "true_mask", whose map is `masks`; it says nothing of the text.
        protocol: one of `PROTOCOLS`, or several. "released" weights the text as the released code does, and attributes
            it, for `nib` alone, against the mean similarity to all pictures of its batch; "released_own" is the same
            with `nib` too against its own picture. Pictures are the same under all, but for constant maps.
        metrics: some of `nib.metrics.METRICS`. "localisation" says whether the map lies on `masks` (any value above
            0), and by `selectivity` whether rather there than on `other_masks`, where the pairs have them, NaN else;
            "completeness" gives the sums and gaps of `nib.Scores`; "faithfulness" deletion, insertion and their
            difference of patches and words; "absent_prompt" compares with the map of a prompt for what is not there,
            the column `absent`; "randomisation" with those of re-drawn models, which runs the method three times more;
            "infidelity" and "max_sensitivity" are captum's.
        batch_size: pairs at once; the released code's is 32. NIB's text scores under "released" depend on it, and so
            do the maps of `agi`.
        shard: (i, n) evaluates batches i, i + n, i + 2 n ...; the tables of all n shards are the whole table.
        output: folder for the parts; None keeps nothing.
        truncate: cut captions longer than the model's context instead of raising.
        progress: show a bar when the work takes more than a few seconds.

    Returns:
        A tidy table: `id`, `method`, a column for each parameter that any setting names, `protocol`, `metric` and
        `value`; see `nib.metrics.HIGHER_IS_BETTER`. `attrs["skipped"]` lists the pairs left out, with the reason.

    Raises:
        KeyError, TypeError: an unknown method or parameter.
        ValueError: another bad argument, no pairs, an id that occurs twice, a caption that is empty or too long, a
            mask of another size than its picture, or, with `output`, hooks or code of your own on the model.
    """
    resolved = read_settings(clip, methods, may_be_masks=True)
    settings = [each.given for each in resolved]
    described = [describe(setting) for setting in settings]
    if twice := [setting for place, setting in enumerate(settings) if described[place] in described[:place]]:
        raise ValueError(f"methods must differ, got twice {twice[0]}")
    protocols = check_choice("protocol", [protocol] if isinstance(protocol, str) else protocol, list(PROTOCOLS))
    metrics = check_choice("metrics", metrics, list(METRICS))
    check_metrics(METRICS, metrics)
    for name in protocols if "confidence" in metrics else ():
        check_protocol(clip, name)
    check_count("batch_size", batch_size)
    batch_size = int(batch_size)
    index, n_shards = _check_shard(shard)
    pairs, needs = to_rows(pairs), {METRICS[name].needs for name in metrics}
    columns = _read_columns(clip, pairs, truncate, "absent" in needs)
    ids = columns["id"]
    parts = None if output is None else Parts(to_path("output", output), clip)
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    starts = range(0, len(ids), batch_size)[index::n_shards]
    with_masks = "masks" in needs or any(setting["method"] == TRUE_MASK for setting in settings)
    skipped: list[dict] = list(getattr(pairs, "skipped", []))
    tables: list[list[pd.DataFrame]] = [[] for _ in settings]
    with tqdm(total=len(starts) * len(settings), unit="batch", delay=3, disable=not progress) as bar:
        for start in starts:
            rows = range(len(ids))[start : start + batch_size]
            batch, lost = read_batch(clip, pairs, columns, rows, truncate, with_masks)
            skipped += lost
            for setting, found in zip(resolved, tables):
                bar.set_description(setting.given["method"], refresh=False)
                if batch is not None:
                    work = Work(clip, batch, setting, protocols, metrics)
                    with clip.ready():  # methods switch the kind of attention, and hook the model
                        found.append(work.measure() if parts is None else parts.get(work))
                bar.update()
    if skipped:
        named = ", ".join(f"{entry['id']} ({entry['reason']})" for entry in skipped[:5])
        warnings.warn(f"{len(skipped)} pairs were skipped, among them {named}", stacklevel=2)
    frames = [
        table.assign(**{name: _repeat(value, len(table)) for name, value in setting.items()})
        for setting, found in zip(settings, tables)
        for table in found or [NO_ROWS]
    ]
    frame = pd.concat(frames, ignore_index=True)[["id", *names, "protocol", "metric", "value"]]
    frame.attrs["skipped"] = skipped
    return frame


def _read_columns(clip: HookedCLIP, pairs: Pairs, truncate: bool, with_absent: bool) -> dict[str, list]:
    """Read ids and captions, and refuse a bad one before any work."""
    columns = {"text": column(pairs, "text"), "id": _read_ids(pairs)}
    to_tokens(clip, columns["text"], truncate)
    if with_absent:
        columns["absent"] = column(pairs, "absent", needed=("absent",))
        for key, text in zip(columns["id"], columns["absent"]):
            with name_place(f"absent of pair {key!r}", of=2):  # named even where it is the only one
                to_tokens(clip, [text], truncate)
    return columns


def _read_ids(pairs: Pairs) -> list[str]:
    ids = list(column(pairs, "id"))
    missing = [place for place, value in enumerate(ids) if pd.api.types.is_scalar(value) and pd.isna(value)]
    if missing:
        raise ValueError(f"every pair must have an id, got {ids[missing[0]]} in row {missing[0]}")
    ids = [str(value) for value in ids]
    if not ids or len(set(ids)) < len(ids):
        twice = [name for name, count in Counter(ids).most_common(5) if count > 1]
        named = f", and twice {', '.join(twice)}" if twice else ""
        raise ValueError(f"pairs must be at least one, each with an id of its own, got {len(ids)} pairs{named}")
    if broken := [name for name in ids if name.encode(errors="ignore").decode() != name]:
        raise ValueError(f"an id must be text that UTF-8 can hold, got {broken[0]!r}")
    return ids


def _repeat(value: Any, rows: int) -> Any:
    """Make a column of a parameter; pandas would take a pair for the column itself."""
    return [value] * rows if isinstance(value, (tuple, list, Tensor, np.ndarray)) else value


def _check_shard(shard: Sequence[int]) -> tuple[int, int]:
    is_pair = isinstance(shard, Sequence) and len(shard) == 2
    whole = is_pair and all(isinstance(value, Integral) and not isinstance(value, bool) for value in shard)
    if not whole or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard!r}")
    return int(shard[0]), int(shard[1])
