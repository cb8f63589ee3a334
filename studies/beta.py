"""Vary M2IB's beta and the seed of its noise, and say what either does to Drop and Increase.

Exports `list_runs`, `summarise_seeds`, `measure_spread`, `compare_ends`, `compare_tables` and `draw_over_beta`. Values
are tidy tables with the columns `dataset`, `id`, `method`, `beta`, `seed`, `metric` and `value`.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nib.metrics import compare, summarise
from studies.charts import arrange, plot_lines
from studies.published import METRICS, read_published


def list_runs(betas: Sequence[float], seeds: Sequence[int], layer: int) -> list[dict[str, object]]:
    """List M2IB at every beta with every seed, as settings of `nib.evaluate`."""
    return [{"method": "m2ib", "layer": layer, "beta": beta, "seed": seed} for beta, seed in product(betas, seeds)]


def summarise_seeds(values: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Return M2IB's mean over seeds and pairs for each data set, beta and metric, with its interval over pairs."""
    part = values[(values["method"] == "m2ib") & values["seed"].isin(seeds)]
    per_pair = part.groupby(["dataset", "beta", "metric", "id"], sort=False, as_index=False)["value"].mean()
    return summarise(per_pair, ["dataset", "beta", "metric"])


def measure_spread(values: pd.DataFrame, betas: Sequence[float]) -> pd.DataFrame:
    """Return the standard deviation over seeds of a pair's value, averaged over pairs, for each beta and metric.

    Pairs with a single seed are left out.
    """
    part = values[(values["method"] == "m2ib") & values["beta"].isin(betas)]
    spread = part.groupby(["dataset", "beta", "metric", "id"], sort=False)["value"].agg(["std", "count"]).reset_index()
    spread = spread[spread["count"] > 1].rename(columns={"std": "value", "metric": "of"})  # of shares, and none itself
    return summarise(spread, ["beta", "of"]).rename(columns={"of": "metric"})


def compare_ends(values: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Compare the largest beta with the smallest, pair by pair, at the first of the seeds.

    Returns:
        What `compare` returns, largest less smallest, a row a data set and metric.
    """
    part = values[(values["method"] == "m2ib") & values["seed"].isin(seeds)]
    lowest, highest = part["beta"].min(), part["beta"].max()
    ends = part[part["beta"].isin([lowest, highest]) & (part["seed"] == min(seeds))]
    return compare(ends, ["dataset", "metric"], column="beta", reference=lowest)


def compare_tables(path: str | Path) -> pd.Series:
    """Return how far the paper's Table 2 is from its Table 5 at beta = 0.1, where both give M2IB's values.

    Args:
        path: of published_results.csv.

    Returns:
        Table 2 less Table 5, in points, by data set and metric.
    """
    two = read_published(path, 2).query("method == 'm2ib' and metric != 'fps'").set_index(["dataset", "metric"])
    five = read_published(path, 5).query("beta == 0.1").set_index(["dataset", "metric"])
    return (two["mean"] - five["mean"]).dropna()


def draw_over_beta(summary: pd.DataFrame, level: pd.DataFrame | None = None, line: str = "dataset") -> Figure:
    """Draw Drop and Increase over log beta, a panel a metric.

    Args:
        summary: columns `beta`, `metric`, `line`, `mean`, `low` and `high`.
        level: the same without `beta`, NIB's, as dashed lines.
        line: column whose entries have a line each.
    """
    references = None if level is None else arrange(level, METRICS)
    return plot_lines(
        arrange(summary, METRICS), "beta", "metric", line, label="β", x_scale="log", references=references
    )
