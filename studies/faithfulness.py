"""Put every method before every metric of faithfulness, and see which metrics agree.

Exports `read_prompts`, `rank_methods` and `correlate_metrics`.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import nib
from nib.metrics import HIGHER_IS_BETTER

NAMES = ("image", "text", "masks", "other_masks", "absent")


def read_prompts(limits: dict[str, int]) -> dict[str, list[dict]]:
    """Return prompts for one object of a picture, with masks and a prompt for what is not there, a list a data set."""
    found = {}
    for name, limit in limits.items():
        rows = zip(*nib.datasets.object_prompts(limit, name, repeated=True, with_others=True, with_absent=True))
        found[name] = [dict(zip(NAMES, row), id=f"{name}-{number}") for number, row in enumerate(rows)]
    return found


def rank_methods(summary: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Rank methods by each metric, 1 the best: (methods, metrics); ties share their mean rank, NaN where none is.

    Args:
        summary: columns `method`, `metric` and `mean`.
    """
    wide = summary.pivot(index="method", columns="metric", values="mean").reindex(columns=metrics)
    signs = pd.Series({name: -1 if HIGHER_IS_BETTER[name] else 1 for name in metrics})
    return (wide * signs).rank()


def correlate_metrics(ranks: pd.DataFrame) -> pd.DataFrame:
    """Correlate the rankings of methods that each two metrics give, by Spearman's rank correlation."""
    columns = list(ranks)
    values = np.eye(len(columns))
    for i, first in enumerate(columns):
        for j, second in enumerate(columns[:i]):
            both = ranks[[first, second]].dropna()
            values[i, j] = values[j, i] = spearmanr(both[first], both[second]).statistic
    return pd.DataFrame(values, columns, columns)
