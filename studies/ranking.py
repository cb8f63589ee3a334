"""Rank methods by Drop and Increase under several protocols, and say which differ from one of them.

Exports `tabulate`, `keep_once`, `settle`, `count_settled`, `rank_methods`, `list_first` and `tell_apart`. All
take the columns `dataset`, `method`, `protocol` and `metric`, as `nib.metrics.summarise` and `compare` give them.
"""

from collections.abc import Sequence

import pandas as pd

from nib.metrics import HIGHER_IS_BETTER
from studies.charts import label_metrics


def tabulate(
    summary: pd.DataFrame, protocols: Sequence[str], metrics: Sequence[str], datasets: Sequence[str], methods
) -> pd.DataFrame:
    """Return means with their intervals: a row a data set and method, in the given orders, a column a metric.

    Args:
        summary: what `summarise` returns, with `n`, `mean`, `low` and `high`.
    """
    titles = label_metrics(metrics)
    table = summary[summary["protocol"].isin(protocols) & summary["metric"].isin(metrics)].replace({"metric": titles})
    table = table.assign(cell=[f"{row['mean']:.2f} [{row.low:.2f}, {row.high:.2f}]" for _, row in table.iterrows()])
    table = table.pivot(index=["dataset", "method", "n"], columns=["metric", "protocol"], values="cell")
    order = {name: number for number, name in enumerate([*datasets, *methods])}
    columns = [(titles[metric], protocol) for metric in metrics for protocol in protocols]
    return table.sort_index(key=lambda level: level.map(order)).reindex(columns=columns)


def keep_once(table: pd.DataFrame, metrics: Sequence[str], protocol: str) -> pd.DataFrame:
    """Keep metrics of text under all protocols and those of pictures, which are alike, under one."""
    is_text = table["metric"].str.startswith("text")
    return table[table["metric"].isin(metrics) & (is_text | (table["protocol"] == protocol))]


def settle(differences: pd.DataFrame) -> pd.Series:
    """Say of each row where the method is "better" or "worse" than the reference by Holm's p below 0.05, else "open".

    Args:
        differences: what `nib.metrics.compare` returns: method less reference.
    """
    gain = differences["difference"] * differences["metric"].map(HIGHER_IS_BETTER).map({True: 1, False: -1})
    verdicts = pd.Series("open", differences.index)
    verdicts[(differences["p_holm"] < 0.05) & (gain > 0)] = "better"
    verdicts[(differences["p_holm"] < 0.05) & (gain < 0)] = "worse"
    return verdicts


def count_settled(differences: pd.DataFrame, protocol: str, metrics: Sequence[str], reference: str) -> pd.DataFrame:
    """Count on how many data sets each method is better or worse than the reference, by Holm's p below 0.05.

    Args:
        differences: what `compare` returns: method less reference.
    """
    part = differences[(differences["protocol"] == protocol) & differences["metric"].isin(metrics)]
    names = {"better": f"better than {reference}", "worse": f"worse than {reference}", "open": "no difference"}
    settled = settle(part).map(names).rename("settled")
    return pd.crosstab(part["method"], [part["metric"], settled]).reindex(columns=metrics, level=0)


def rank_methods(summary: pd.DataFrame, protocol: str, metric: str) -> pd.Series:
    """Return each method's mean over the data sets, the best first."""
    table = summary[(summary["metric"] == metric) & (summary["protocol"] == protocol)]
    return table.groupby("method")["mean"].mean().sort_values(ascending=not HIGHER_IS_BETTER[metric])


def list_first(summary: pd.DataFrame, protocol: str, metric: str, reference: str) -> str:
    """Write the first three of a ranking, and the place of one method in it."""
    ranked = rank_methods(summary, protocol, metric)
    names = ", ".join(f"`{name}` {value:.2f}" for name, value in ranked.head(3).items())
    place = list(ranked.index).index(reference) + 1
    return f"{names}; `{reference}` is number {place} of {len(ranked)} with {ranked[reference]:.2f}"


def tell_apart(table: pd.DataFrame, metrics: Sequence[str], one: str = "nib", other: str = "m2ib") -> float:
    """Return the mean of |a - b| / max(a, b) over data sets and metrics, by which the abstract gets its percentages."""
    cells = table[table["metric"].isin(metrics)].pivot(index=["dataset", "metric"], columns="method", values="mean")
    if not {one, other} <= set(cells.columns):
        return float("nan")
    return float(((cells[one] - cells[other]).abs() / cells[[one, other]].max(axis=1)).mean())
