"""Read what was measured of paths: gaps beside what they are gaps of, wins and losses, and the choice of a preset.

Exports `TASKS`, `summarise_paths`, `add_relative`, `tabulate_at`, `count_wins`, `choose_paths`, `compare_chosen` and
`tabulate_sums`. All but `count_wins` take the columns that `studies.truncated.paths.measure_paths` gives.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from nib.metrics import HIGHER_IS_BETTER, compare, summarise
from studies.tables import tabulate

BY = ["layer", "quadrature", "n_steps", "lambda_min"]
TASKS = ["auc", "pointing_game", "energy_inside", "image_drop", "image_increase", "text_drop", "text_increase"]
SUMS = {
    "image_difference": "explained, picture",
    "image_gap_relative": "missed, picture",
    "text_difference": "explained, text",
    "text_gap_relative": "missed, text",
    "auc": "AUC",
}


def summarise_paths(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each metric for each path and layer, with its interval, and the relative gaps."""
    return add_relative(summarise(values, ["path", *BY, "metric"]))


def add_relative(summary: pd.DataFrame) -> pd.DataFrame:
    """Add rows for gaps relative to what is explained: mean gap / mean |F(z) - F(lambda_min z)|.

    Args:
        summary: columns `path`, those of `BY`, `metric`, `mean`, `low` and `high`; gaps and differences absolute.

    Returns:
        The same with metrics `image_gap_relative`, `image_gap_from_zero_relative` and their like of the text below.
    """
    tables, columns = [summary], ["mean", "low", "high"]
    for side in ("image", "text"):
        explained = summary[summary["metric"] == f"{side}_difference"].set_index(BY)["mean"]
        for gap in (f"{side}_gap", f"{side}_gap_from_zero"):
            table = summary[summary["metric"] == gap].set_index(BY)
            table[columns] = table[columns].div(explained, axis=0)
            tables.append(table.reset_index().assign(metric=f"{gap}_relative"))
    return pd.concat(tables, ignore_index=True)


def tabulate_at(summary: pd.DataFrame, metrics: Sequence[str], layer: int) -> pd.DataFrame:
    """Return means with their intervals at one layer: a row a path, in their order, a column a metric."""
    part = summary[(summary["layer"] == layer) & summary["metric"].isin(metrics)]
    return tabulate(part, "path", "metric", ".3g").reindex(index=part["path"].unique(), columns=metrics)


def count_wins(differences: pd.DataFrame) -> pd.DataFrame:
    """Count layers at which a path is better or worse than the reference, by intervals that leave zero out.

    Args:
        differences: what `compare` returns: columns `path`, `metric`, `low` and `high`, a row a layer.

    Returns:
        A row a path, a column a metric of `TASKS`, with cells such as "1 / 0 / 2": better, worse, not settled.
    """
    higher = differences["metric"].map(HIGHER_IS_BETTER).astype(bool)
    above, below = differences["low"] > 0, differences["high"] < 0
    better, worse = above.where(higher, below), below.where(higher, above)
    counts = differences.assign(better=better, worse=worse, open=~(better | worse))
    counts = counts.groupby(["path", "metric"], sort=False)[["better", "worse", "open"]].sum()
    cells = counts.apply(lambda row: " / ".join(str(number) for number in row), axis=1)
    return cells.unstack().reindex(columns=TASKS)


def choose_paths(values: pd.DataFrame, most_nodes: int, largest_gap: float) -> dict[str, str]:
    """Choose for picture and text the path that explains most among those whose gap is small.

    Explaining most is starting at the smallest lambda_min; of equals the one with the smallest gap is taken.

    Args:
        values: of one layer.
        most_nodes: that a path may have.
        largest_gap: that it may have, relative to what it explains.

    Returns:
        "image" and "text" -> name of the path; a side for which no path will do is not there.
    """
    summary, chosen = summarise_paths(values), {}
    wide = summary.pivot(index=["path", *BY[1:]], columns="metric", values="mean").reset_index()
    for side in ("image", "text"):
        gap = f"{side}_gap_relative"
        good = wide[(wide["n_steps"] <= most_nodes) & (wide[gap] <= largest_gap)]
        if len(good):
            chosen[side] = good.sort_values(["lambda_min", gap])["path"].iloc[0]
    return chosen


def compare_chosen(values: pd.DataFrame, chosen: Mapping[str, str], reference: str) -> pd.DataFrame:
    """Compare the path chosen for each side with the reference, by the metrics of that side.

    Args:
        values: of one layer.
        chosen: what `choose_paths` returns.
        reference: name of a path.

    Returns:
        What `compare` returns, chosen less reference, with a column `side`; no row for a side without a path.
    """
    tables = []
    for side, path in chosen.items():
        metrics = [name for name in TASKS if name.startswith("text") == (side == "text")]
        part = values[values["path"].isin([path, reference]) & values["metric"].isin(metrics)]
        tables.append(compare(part, ["metric"], "path", reference).assign(side=side))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["side", "metric", "path", "n"])


def tabulate_sums(summary: pd.DataFrame, layer: int) -> pd.DataFrame:
    """Return what each path explains, the share that it misses of it, and its AUC: a row a path at one layer."""
    part = summary[(summary["layer"] == layer) & summary["metric"].isin(list(SUMS))]
    table = part.pivot(index="path", columns="metric", values="mean")
    return table.reindex(index=part["path"].unique(), columns=list(SUMS)).set_axis(list(SUMS.values()), axis=1)
