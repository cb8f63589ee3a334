"""Time the attribution alone.

Exports `measure_fps`.
"""

import time
from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from nib.attribution import check_method
from nib.clip import HookedCLIP
from nib.evaluation.batches import Batch, Pairs, Setting, check_settings, read_pairs
from nib.quadrature import check_count


def measure_fps(
    clip: HookedCLIP,
    pairs: Pairs,
    methods: Setting | Sequence[Setting] = ("nib",),
    *,
    repeats: int = 5,
    truncate: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Time the attribution alone, on all pairs in one batch, methods in turns.

    Reading, preprocessing and metrics are not timed, and neither is a first call of each method.

    Args:
        pairs: as for `evaluate`; few, they are one batch.
        methods: as for `evaluate`.
        repeats: timed calls of each, at least 1.

    Returns:
        One row a setting and repeat: `method`, its parameters, `repeat`, `pairs`, `seconds`, and `fps`, pairs a second.

    Raises:
        As `evaluate`.
    """
    settings = check_settings(clip, methods)
    check_count("repeats", repeats)
    batch = read_pairs(clip, pairs, truncate)
    rows = []
    rounds = [(repeat, setting) for repeat in range(repeats + 1) for setting in settings]
    for repeat, setting in tqdm(rounds, desc="speed", delay=3, disable=not progress):
        seconds = _time(clip, batch, setting)
        if repeat:  # the first warms up
            pairs = len(batch.ids)
            rows.append({**setting, "repeat": repeat, "pairs": pairs, "seconds": seconds, "fps": pairs / seconds})
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    return pd.DataFrame(rows, columns=[*names, "repeat", "pairs", "seconds", "fps"])


def _time(clip: HookedCLIP, batch: Batch, setting: Setting) -> float:
    parameters = {name: value for name, value in setting.items() if name != "method"}
    function, parameters = check_method(clip, setting["method"], parameters)  # fills in a preset
    _synchronise(clip)
    start = time.perf_counter()
    function(clip, *batch.arguments(), **parameters)
    _synchronise(clip)
    return time.perf_counter() - start


def _synchronise(clip: HookedCLIP) -> None:
    if clip.device.type == "cuda":
        torch.cuda.synchronize(clip.device)
