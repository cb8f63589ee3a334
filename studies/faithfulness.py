"""Put every method before every metric of faithfulness, and see which metrics agree.

Exports `read_prompts`, `rank_methods`, `correlate_metrics` and `draw_ranks`.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import nib
from nib.metrics import HIGHER_IS_BETTER
from nib.plotting import new_figure

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


def draw_ranks(table: pd.DataFrame, label: str, colours: str, limits: tuple[float, float], digits: int = 0) -> Figure:
    """Draw a table of numbers as a heat map with the numbers in it.

    Args:
        label: of the colour bar.
        colours: name of a colour map.
        limits: the values drawn in its end colours.
    """
    figure = new_figure(2.2 + 0.55 * table.shape[1], 1.6 + 0.27 * len(table))
    axes = figure.subplots()
    shown = axes.imshow(table, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    names = [name.replace("_", " ") for name in table.columns]
    axes.set_xticks(range(table.shape[1]), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(table)), [str(name).replace("_", " ") for name in table.index])
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if np.isfinite(value):
            red, green, blue, _ = shown.cmap(shown.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            text = f"{value:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(shown, ax=axes, label=label)
    return figure
