"""Put an interval on a mean, and a test on a difference.

Exports `bootstrap_interval`, `summarise` and `compare`.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon


def bootstrap_interval(values: np.ndarray, seed: int = 0, n_resamples: int = 2000) -> tuple[float, float]:
    """Give the 95 % percentile bootstrap interval of the mean.

    Args:
        values: (n,), at least 2, finite.
        seed: of the resampling.

    Raises:
        ValueError: fewer than 2 values, or a value that is not finite.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be at least 2 finite numbers, got shape {values.shape}")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    means = values[_draw(len(values), n_resamples, seed)].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=2)
def _draw(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """Draw resamples, (n_resamples, n) indices; a table has many groups of one size, which share them."""
    return np.random.default_rng(seed).integers(0, n, (n_resamples, n))


def summarise(values: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame:
    """Average `value` in each group, with its 95 % bootstrap interval.

    Args:
        values: a tidy table with a column `value`, such as `nib.evaluate` gives. NaN values, where a
            metric is not defined, are left out and show in `n`.
        by: columns that make a group; a missing entry is a group of its own.

    Returns:
        One row a group, in the order of first appearance: the columns of `by`, `n`, `mean`, `low`, `high`. Both
        bounds are NaN where n is below 2.

    Raises:
        KeyError: a column is missing.
    """
    by = [by] if isinstance(by, str) else list(by)
    missing = sorted({*by, "value"} - set(values.columns))
    if missing:
        raise KeyError(f"the table has no column {', '.join(missing)}; it has {', '.join(values.columns)}")
    rows = []
    for key, group in values.groupby(by, sort=False, dropna=False):
        found = group["value"].dropna().to_numpy()
        low, high = bootstrap_interval(found) if len(found) > 1 else (np.nan, np.nan)
        mean = found.mean() if len(found) else np.nan
        rows.append({**dict(zip(by, key)), "n": len(found), "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high"])


def compare(values: pd.DataFrame, by: Sequence[str], column: str = "method", reference: str = "nib") -> pd.DataFrame:
    """Test each method against the reference, pair by pair.

    Args:
        values: a tidy table with columns `id` (of the pair), `value`, `column` and those of `by`.
        by: columns within which values are compared, such as data set, protocol and metric.
        column: what is compared.
        reference: the entry of `column` that the others are compared with.

    Returns:
        One row a group and method: `by`, `column`, `n` pairs that both have, `difference` (mean of method less
        reference), its 95 % bootstrap interval `low`, `high`, and `p` of Wilcoxon's signed-rank test (two-sided, zero
        differences split between the signs, not corrected for many tests; 1 where nothing differs).

    Raises:
        ValueError: the reference is not among the methods.
    """
    if reference not in set(values[column]):
        raise ValueError(f"the reference must be one of {sorted(set(values[column]))}, got {reference!r}")
    rows = []
    for key, group in values.groupby(list(by), sort=False, dropna=False):
        table = group.pivot(index="id", columns=column, values="value")
        if reference not in table:
            continue
        for method in group[column].unique():
            if method == reference:
                continue
            difference = (table[method] - table[reference]).dropna().to_numpy()
            if len(difference) < 2:
                continue
            low, high = bootstrap_interval(difference)
            p = wilcoxon(difference, zero_method="zsplit").pvalue if difference.any() else 1.0
            statistics = dict(n=len(difference), difference=difference.mean(), low=low, high=high, p=float(p))
            rows.append({**dict(zip(by, key)), column: method, **statistics})
    return pd.DataFrame(rows, columns=[*by, column, "n", "difference", "low", "high", "p"])
