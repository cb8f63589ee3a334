"""Time the attribution alone.

Exports `measure_fps`.
"""

import time
from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.evaluation.batches import Pairs, Setting, read_pairs, read_settings


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
    settings = read_settings(clip, methods)
    check_count("repeats", repeats)
    batch = read_pairs(clip, pairs, truncate)
    rows = []
    rounds = [(repeat, setting) for repeat in range(repeats + 1) for setting in settings]
    for repeat, (setting, function, parameters) in tqdm(rounds, desc="speed", delay=3, disable=not progress):
        _synchronise(clip)
        start = time.perf_counter()
        function(clip, *batch.arguments(), **parameters)
        _synchronise(clip)
        seconds = time.perf_counter() - start
        if repeat:  # the first warms up
            pairs_done = len(batch.ids)
            rows.append(
                {**setting, "repeat": repeat, "pairs": pairs_done, "seconds": seconds, "fps": pairs_done / seconds}
            )
    names = list(dict.fromkeys(name for setting in settings for name in setting.given))
    return pd.DataFrame(rows, columns=[*names, "repeat", "pairs", "seconds", "fps"])


def _synchronise(clip: HookedCLIP) -> None:
    if clip.device.type == "cuda":
        torch.cuda.synchronize(clip.device)
