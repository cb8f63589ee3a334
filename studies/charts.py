"""Draw means with their intervals, against a number or one row a method, and one number against another.

Exports `plot_lines`, `plot_rows` and `plot_marks`. The first two take what `nib.metrics.summarise` gives.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nib.plotting import new_figure

MARKERS = "osD^vPX*"


def plot_lines(
    summary: pd.DataFrame,
    x: str,
    panel: str,
    line: str,
    columns: int = 4,
    references: pd.DataFrame | None = None,
    x_scale: str = "linear",
    label: str = "",
) -> Figure:
    """Draw one panel for each entry of `panel` and in it a line with its 95 % band for each entry of `line`.

    Args:
        summary: columns `x`, `panel`, `line`, `mean`, `low`, `high`.
        columns: panels in a row.
        references: the same columns without `x`: level lines, dashed, in the colour of the line of the same name.
        x_scale: matplotlib's name of the horizontal scale.
        label: of the horizontal axis; `x` if empty.
    """
    names = list(summary[panel].unique())
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(2.9 * columns, 2.5 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(panels)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(figure.axes, names):
        for number, (key, group) in enumerate(summary[summary[panel] == name].groupby(line, sort=False)):
            group, colour = group.sort_values(x), f"C{number}"
            axes.plot(group[x], group["mean"], MARKERS[number % 8], ls="-", ms=3.5, color=colour, label=str(key))
            axes.fill_between(group[x], group["low"], group["high"], color=colour, alpha=0.18, linewidth=0)
            if references is not None:
                level = references[(references[panel] == name) & (references[line] == key)]
                for _, row in level.iterrows():
                    axes.axhline(row["mean"], color=colour, ls="--", linewidth=1)
        axes.set(title=str(name), xlabel=label or x, xscale=x_scale)
        if x_scale == "linear" and (summary[x] % 1 == 0).all():  # layers, steps: no ticks between them
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _add_legend(figure)
    return figure


def _add_legend(figure: Figure) -> None:
    """Name what is drawn in any panel, once."""
    named = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=6)


def plot_rows(
    summary: pd.DataFrame, row: str, panel: str, mark: str, rows: Sequence[str], titles: dict[str, str] | None = None
) -> Figure:
    """Draw one panel for each entry of `panel` and in it, for each of `rows`, a mean with its 95 % interval.

    Args:
        summary: columns `row`, `panel`, `mark`, `mean`, `low`, `high`.
        mark: what distinguishes the marks within a row, by colour and form.
        rows: entries of `row`, from the top.
        titles: of the panels, where not their names.
    """
    names, marks = list(summary[panel].unique()), list(summary[mark].unique())
    figure = new_figure(2.6 * len(names) + 1.2, 0.36 * len(rows) + 1.4)
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False).flat, names):
        for number, key in enumerate(marks):
            found = summary[(summary[panel] == name) & (summary[mark] == key)].set_index(row)
            found = found.reindex([entry for entry in rows if entry in found.index])
            places = np.array([rows.index(entry) for entry in found.index]) + (number - (len(marks) - 1) / 2) * 0.18
            errors = [found["mean"] - found["low"], found["high"] - found["mean"]]
            style = dict(fmt=MARKERS[number % 8], ms=4, linewidth=1, color=f"C{number}", label=str(key))
            axes.errorbar(found["mean"], places, xerr=np.maximum(errors, 0), **style)
        axes.set(title=(titles or {}).get(name, str(name)), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis="y", color="0.92")
    _add_legend(figure)
    return figure


def plot_marks(table: pd.DataFrame, x: str, y: str, labels: dict[str, str] | None = None) -> Figure:
    """Draw one named mark for each row of a table.

    Args:
        table: columns `x` and `y`; the index names the marks.
        x, y: columns of numbers.
        labels: of the axes, where not the names of the columns.
    """
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    for number, (name, row) in enumerate(table.iterrows()):
        axes.plot(row[x], row[y], MARKERS[number % 8], color=f"C{number % 10}")
        axes.annotate(str(name), (row[x], row[y]), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel=(labels or {}).get(x, x), ylabel=(labels or {}).get(y, y))
    axes.margins(x=0.15, y=0.1)
    return figure
