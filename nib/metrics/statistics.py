"""Put an interval on a mean, and a test on a difference; shares of pairs (Increase) have their own.

A group is one of shares where each value is 0 or a hit, which counts 100 (or 1), and its `metric`, where the table has
one, is a share.
"""

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from itertools import islice

import numpy as np
import pandas as pd
from pandas.api.types import is_complex_dtype, is_numeric_dtype
from scipy.stats import binomtest, bootstrap, wilcoxon

from nib.checks import check_count, shorten, to_floats

SHARES = {"image_increase": 100, "text_increase": 100, "constant_map": 1, "text_constant_map": 1}  # what a hit counts

LARGEST_VALUE = 1e300  # of a value: sums of larger ones overflow
DRAWN = 10**7  # at once, which bounds memory


def bootstrap_interval(values: np.ndarray, seed: int = 0, n_resamples: int = 2000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of at least 2 finite values, (n,).

    Example:
        >>> bootstrap_interval(np.arange(10.0))
        (2.7, 6.3)
    """
    check_count("n_resamples", n_resamples, limit="samples")
    check_count("seed", seed, 0)
    values = to_floats("values", values)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be at least 2 finite numbers in one list, got {shorten(values.tolist())}")
    if (largest := np.abs(values).max()) > LARGEST_VALUE:
        raise ValueError(f"values must be at most {LARGEST_VALUE:g}, got {largest:g}")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    rows = max(1, DRAWN // len(values))
    found = bootstrap((values,), np.mean, n_resamples=n_resamples, batch=rows, method="percentile", rng=seed)
    low, high = found.confidence_interval
    return float(low), float(high)


def summarise(values: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame:
    """Average `value` in each group, with its 95 % interval: bootstrapped, or Wilson's for shares (see the module).

    The bootstrap would give [0, 0] to 0 of 40.

        summarise(table, ["method", "metric"])

    Args:
        values: a tidy table with a column `value`, such as `nib.evaluate` gives. NaN values, where a metric is not
            defined, are left out and show in `n`.
        by: columns that make a group; a missing entry is a group of its own.

    Returns:
        One row a group, in the order of first appearance: the columns of `by`, `n`, `mean`, `low`, `high`. Both
        bounds are NaN where n is below 2.

    Raises:
        KeyError: a column is missing.
    """
    values, by = _check_table(values, by, ("n", "mean", "low", "high"))
    rows = []
    for key, group in values.groupby(by, sort=False, dropna=False):
        named = dict(zip(by, key))
        _check_ids(group, named)
        if "metric" in group and len(mixed := group["metric"].unique()) > 1:
            raise ValueError(f"{named} mixes the metrics {shorten(list(mixed))}: group by metric, too")
        found = group["value"].dropna().to_numpy()
        hit, low, high = _find_hit(found, group, values), np.nan, np.nan
        if len(found) > 1:
            low, high = bootstrap_interval(found) if hit is None else _wilson_interval(found, hit)
        mean = found.mean() if len(found) else np.nan
        rows.append({**named, "n": len(found), "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high"])


def compare(values: pd.DataFrame, by: Sequence[str], column: str = "method", reference: str = "nib") -> pd.DataFrame:
    """Test each method against the reference, pair by pair.

    Shares are tested by McNemar's exact test: the binomial test of the pairs on which the two differ. All else is
    tested by Wilcoxon's signed-rank test (two-sided, zero differences split between the signs), which does not test the
    mean: it asks whether the differences lie symmetrically about 0.

        compare(table, ["metric"])

    Args:
        values: a tidy table with columns `id` (of the pair), `value`, `column` and those of `by`.
        by: columns within which values are compared, such as data set, protocol and metric.
        column: what is compared.
        reference: the entry of `column` that the others are compared with.

    Returns:
        One row a group and method: `by`, `column`, `n` pairs that both have, `difference` (mean of method less
        reference), its 95 % interval `low`, `high` (for shares Newcombe's, from Wilson's of each, else the percentile
        bootstrap), `p` (1 where nothing differs), and `p_holm`, corrected for the number of rows; leave out of `values`
        what repeats other rows.

    Raises:
        KeyError: a column is missing.
        ValueError: the reference is not among the methods, or a value is no number.
    """
    if column is None:
        raise TypeError(f"column must be the name of a column, got {shorten(column)}")
    taken = ("n", "difference", "low", "high", "p", "p_holm")
    values, by = _check_table(values, by, taken, column)
    if not isinstance(reference, Hashable) or reference not in set(values[column]):
        raise ValueError(f"the reference must be one of {sorted(set(values[column]), key=str)}, got {reference!r}")
    rows, left_out = [], []
    for key, group in values.groupby(by, sort=False, dropna=False):
        named = dict(zip(by, key))
        for method, own in group.groupby(column, sort=False, dropna=False):
            _check_ids(own, named | {column: method})
        table = group.pivot(index="id", columns=column, values="value")
        if reference not in table:
            left_out.append((key, reference))
            continue
        for method in [name for name in group[column].unique() if name != reference]:
            first, second = table[[method, reference]].dropna().to_numpy().T
            if len(first) < 2:
                left_out.append((key, method))
                continue
            hit = _find_hit(np.concatenate([first, second]), group, values)
            compared = _compare_means(first - second) if hit is None else _compare_shares(first, second, hit)
            difference = (first - second).mean()
            rows.append({**named, column: method, "n": len(first), "difference": difference, **compared})
    if left_out:
        which = "; ".join(f"{', '.join(map(str, key))}: {name}" for key, name in left_out[:5])
        warnings.warn(f"not compared, for want of at least two pairs with the reference: {which}", stacklevel=2)
    frame = pd.DataFrame(rows, columns=[*by, column, "n", "difference", "low", "high", "p"])
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float)))


def _check_table(values, by, taken: Sequence[str], column: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with its values as float64, and the columns to group by as a list, once it has them.

    No column to group by may be called like those `taken` by the result; `column` is needed, too, and with it `id`.
    """
    if not isinstance(values, pd.DataFrame):
        raise TypeError(f"values must be a table (DataFrame), got {type(values).__name__}")
    given, by = by, [by] if isinstance(by, str) else by
    in_order = isinstance(by, Iterable) and not isinstance(by, (Set, Mapping))
    by = list(islice(by, len(values.columns) + 1)) if in_order else []  # an iterator may have no end
    if not by:
        raise ValueError(f"by must name at least one column, in order, got {shorten(given)}")
    named = by if column is None else [*by, column]
    if wrong := [name for name in named if not isinstance(name, str)]:
        raise TypeError(f"columns must be named by text, got {shorten(wrong[0])}")
    needed = [*named, "value"] if column is None else [*named, "value", "id"]
    if missing := sorted(set(needed) - set(values.columns)):
        raise KeyError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, values.columns))}")
    if twice := [name for name in needed if list(values.columns).count(name) > 1]:
        raise ValueError(f"the table must have one column {twice[0]!r}, got several")
    if clash := [name for name in named if name in taken]:
        raise ValueError(f"column {clash[0]!r} is called like one of the result: rename it first, with `values.rename`")
    for name in named:
        if nested := [entry for entry in values[name] if isinstance(entry, (list, dict, set, np.ndarray))]:
            raise ValueError(f"column {name!r} must hold numbers or text, got {shorten(nested[0])}")
    values = values.reset_index(drop=True)
    entries = {name: values[name] for name in named if values[name].dtype == object}
    values = values.assign(**{name: found.where(found.notna(), np.nan) for name, found in entries.items()})
    kind = values["value"].dtype
    if len(values) and (not is_numeric_dtype(kind) or is_complex_dtype(kind)):
        raise ValueError(f"column 'value' must hold numbers, got {kind}")
    values = values.assign(value=values["value"].to_numpy(float, na_value=np.nan))
    if np.isinf(values["value"]).any():
        first = values[np.isinf(values["value"])].iloc[0]
        raise ValueError(f"values must be finite or NaN, got {first['value']} in {shorten(first[named].to_dict())}")
    return values, by


def _check_ids(group: pd.DataFrame, key: dict) -> None:
    """Raise a ValueError where a pair occurs twice in a group: the group mixes settings, and n counts twice."""
    if "id" in group and group["id"].duplicated().any():
        twice = group["id"][group["id"].duplicated()].iloc[0]
        others = [name for name in group if name not in ("id", "value", *key)]
        varies = [name for name in others if group[name].map(repr).nunique() > 1]
        what = f"its rows differ in {varies}; group by it"
        if not varies:
            what = "a column must tell its rows apart, or they repeat"
        raise ValueError(f"{key} holds pair {twice!r} more than once: {what}")


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values for their number (Holm, 1979): at most 5 % of tables hold a false one below 0.05.

    Args:
        p: (tests,), in [0, 1].

    Returns:
        (tests,): the k-th smallest times the number of tests from it on, never below that of a smaller one, at most 1.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = to_floats("p", p)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p must be a list of numbers in [0, 1], got shape {p.shape}: {shorten(p.tolist())}")
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected[np.argsort(order, kind="stable")]


def _find_hit(values: np.ndarray, group: pd.DataFrame, table: pd.DataFrame) -> float | None:
    """Return what a hit counts where values are shares, 1 or 100, else None; where none hits, the table tells."""
    named = group["metric"].unique() if "metric" in group else []
    full = {SHARES.get(name) for name in named}
    if None in full or len(full) > 1:  # metrics of two kinds are no shares
        return None
    top = values.max(initial=0)
    if not top:
        rest = table.loc[table["metric"].isin(named) if len(named) else slice(None), "value"].dropna().to_numpy()
        most = rest.max(initial=0)
        top = most if most and np.isin(rest, [0, most]).all() else max(full, default=0)
    return float(top) if top in (1, 100) and np.isin(values, [0, top]).all() else None


def _wilson_interval(values: np.ndarray, hit: float) -> tuple[float, float]:
    interval = binomtest(int((values == hit).sum()), len(values)).proportion_ci(method="wilson")
    return hit * float(interval.low), hit * float(interval.high)


def _compare_means(difference: np.ndarray) -> dict[str, float]:
    low, high = bootstrap_interval(difference)
    p = wilcoxon(difference, zero_method="zsplit").pvalue if difference.any() else 1.0
    return dict(low=low, high=high, p=float(p))


def _compare_shares(first: np.ndarray, second: np.ndarray, hit: float) -> dict[str, float]:
    """Test two paired shares by McNemar's exact test; the interval is Newcombe's (1998, method 10)."""
    n, gained, lost = len(first), int((first > second).sum()), int((first < second).sum())
    both, neither = int(((first == hit) & (second == hit)).sum()), int(((first == 0) & (second == 0)).sum())
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    product = both * neither - gained * lost
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    excess = max(product - n / 2, 0) if product > 0 else product  # corrected for continuity
    phi = excess / np.sqrt(margins) if margins else 0.0
    share_1, share_2 = (both + gained) / n, (both + lost) / n
    (low_1, high_1), (low_2, high_2) = (np.array(_wilson_interval(each, hit)) / hit for each in (first, second))

    def join(below: float, above: float) -> float:
        return np.sqrt(below**2 - 2 * phi * below * above + above**2)

    low = share_1 - share_2 - join(share_1 - low_1, high_2 - share_2)
    high = share_1 - share_2 + join(high_1 - share_1, share_2 - low_2)
    return dict(low=float(hit * low), high=float(hit * high), p=float(p))
