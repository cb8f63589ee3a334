"""Draw means with their intervals: against a number, one row a method, or as signed bars.

Exports `plot_lines`, `plot_rows`, `plot_bars`, `plot_counts`, `plot_signs`, `label_metrics`, `arrange` and
`note_pairs`. Most take what `nib.metrics.summarise` gives, and are as wide as a page, in the look of `studies.style`.
"""

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from nib.metrics import VALUES
from nib.plotting import COLOURS as SIGNED
from nib.plotting import new_figure
from studies.style import COLOURS, COLUMN, CONTROLS, GREY, NIB, PAGE, THEME

MARKERS = "osD^vPX*"
ARROWS = {True: " ↑", False: " ↓", None: ""}  # to the better side
UNITS = ("points", "%")  # to be named; cosines, shares and correlations are told by their size


def label_metrics(metrics: Sequence[str]) -> dict[str, str]:
    """Return a title for each metric: its name, an arrow to its better side where it has one, its unit."""
    values = {name: VALUES[name] for name in metrics}
    units = {name: f" ({value.unit})" if value.unit in UNITS else "" for name, value in values.items()}
    arrows = {name: ARROWS[value.higher_is_better] for name, value in values.items()}
    return {name: f"{name.replace('_', ' ')}{arrows[name]}{units[name]}" for name in metrics}


def arrange(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Keep the rows of some metrics, in the order of these, under their titles, to be drawn a panel each."""
    shown = table[table["metric"].isin(metrics)]
    shown = shown.sort_values("metric", key=lambda names: names.map(list(metrics).index), kind="stable")
    return shown.replace({"metric": label_metrics(metrics)})


@plt.rc_context(THEME)
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
    figure = new_figure(PAGE, max(1.7, PAGE / columns * 0.85) * rows + 0.45)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(panels)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(figure.axes, names):
        for number, (key, group) in enumerate(summary[summary[panel] == name].groupby(line, sort=False)):
            group, colour = group.sort_values(x), COLOURS[number % len(COLOURS)]
            style = dict(ls="-", ms=3, lw=1.1, color=colour, markeredgecolor="white", markeredgewidth=0.4)
            axes.plot(group[x], group["mean"], MARKERS[number % 8], label=str(key), **style)
            axes.fill_between(group[x], group["low"], group["high"], color=colour, alpha=0.13, linewidth=0)
            if references is not None:
                level = references[(references[panel] == name) & (references[line] == key)]
                for _, row in level.iterrows():
                    axes.axhline(row["mean"], color=colour, ls="--", linewidth=0.9)
        axes.set(title=str(name), xlabel=label or x, xscale=x_scale)
        if x_scale == "linear" and (summary[x] % 1 == 0).all():  # layers, steps: no ticks between them
            places = np.unique(summary[x][summary[panel] == name])
            few = len(places) <= 6
            axes.xaxis.set_major_locator(FixedLocator(places) if few else MaxNLocator(6, integer=True))
    _add_legend(figure, summary)
    return figure


def note_pairs(summary: pd.DataFrame) -> str:
    """Say over how many pairs the means of a summary are; nothing where it has no column `n`."""
    if "n" not in summary or summary["n"].isna().all():
        return ""
    fewest, most = int(summary["n"].min()), int(summary["n"].max())
    return f"mean and 95 % interval, n = {fewest}" + (f" to {most}" if most > fewest else "")


def _add_legend(figure: Figure, summary: pd.DataFrame) -> None:
    """Name what is drawn in any panel, once, and say how many pairs it is of."""
    named = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    title = note_pairs(summary)
    columns = max(1, min(6, 118 // (6 + max(map(len, named), default=0))))  # as many as fit into the page
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, title=title or None)


def _sort_rows(summary: pd.DataFrame, row: str, panel: str, rows: Sequence[str], best: str | None) -> list[str]:
    """Put the best by the first panel at the top, and controls apart at the bottom."""
    methods, controls = [name for name in rows if name not in CONTROLS], [name for name in rows if name in CONTROLS]
    if best is not None:
        first = summary[summary[panel] == summary[panel].iloc[0]].groupby(row)["mean"].mean()
        methods.sort(key=lambda name: first.get(name, np.nan) * (1 if best == "low" else -1))
    return [*methods, *controls]


@plt.rc_context(THEME)
def plot_rows(
    summary: pd.DataFrame,
    row: str,
    panel: str,
    mark: str,
    rows: Sequence[str],
    titles: dict[str, str] | None = None,
    best: str | None = None,
) -> Figure:
    """Draw one panel for each entry of `panel` and in it, for each of `rows`, a mean with its 95 % interval.

    NIB's row is emphasised, and the controls stand below a line.

    Args:
        summary: columns `row`, `panel`, `mark`, `mean`, `low`, `high`.
        mark: what distinguishes the marks within a row, by colour and form.
        rows: entries of `row`, from the top.
        titles: of the panels, where not their names.
        best: "low" or "high" sorts the rows by the first panel, the best first; None keeps their order.
    """
    names, marks = list(summary[panel].unique()), list(summary[mark].unique())
    measured = set(summary[row])
    rows = _sort_rows(summary, row, panel, [name for name in rows if name in measured], best)
    figure = new_figure(PAGE, (0.2 if len(marks) < 3 else 0.26) * len(rows) + 0.9)
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False).flat, names):
        for number, key in enumerate(marks):
            found = summary[(summary[panel] == name) & (summary[mark] == key)].set_index(row)
            found = found.reindex([entry for entry in rows if entry in found.index])
            shift = (number - (len(marks) - 1) / 2) * min(0.22, 0.8 / len(marks))
            places = np.array([rows.index(entry) for entry in found.index]) + shift
            errors = [found["mean"] - found["low"], found["high"] - found["mean"]]
            style = dict(fmt=MARKERS[number % 8], ms=3, linewidth=0.9, color=COLOURS[number % len(COLOURS)])
            axes.errorbar(found["mean"], places, xerr=np.maximum(errors, 0), label=str(key), **style)
        title = (titles or {}).get(name, str(name))
        title = title.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑")  # an arrow stays with its word
        axes.set(title=fill(title, 16) if len(names) > 4 else title, ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis="y", color="0.92")
        _emphasise(axes, rows)
    _add_legend(figure, summary)
    return figure


def _emphasise(axes, rows: Sequence[str]) -> None:
    """Shade NIB's row, draw the line above the controls and write their names in grey."""
    first_control = next((number for number, name in enumerate(rows) if name in CONTROLS), None)
    if first_control:
        axes.axhline(first_control - 0.5, color=GREY, linewidth=0.8)
    if "nib" in rows:
        axes.axhspan(rows.index("nib") - 0.5, rows.index("nib") + 0.5, color=NIB, alpha=0.1, linewidth=0)
    for name, label in zip(rows, axes.get_yticklabels()):  # panels that share the axis have none
        if name == "nib":
            label.set(color=NIB, fontweight="bold")
        elif name in CONTROLS:
            label.set_color(GREY)


def _colour_signs(signs) -> np.ndarray:
    """Return the red of positive scores and the blue of negative ones."""
    return plt.get_cmap(SIGNED)(0.5 + 0.4 * np.sign(np.asarray(signs, float)))


@plt.rc_context(THEME)
def plot_bars(summary: pd.DataFrame, name: str, label: str) -> Figure:
    """Draw a signed bar with its 95 % interval for each row, red for and blue against, in the order of the table.

    Args:
        summary: columns `name`, `mean`, `low`, `high` and `n`.
        label: of the horizontal axis.
    """
    figure = new_figure(COLUMN, 0.15 * len(summary) + 0.7)
    axes = figure.subplots()
    errors = [summary["mean"] - summary["low"], summary["high"] - summary["mean"]]
    bars = dict(color=_colour_signs(summary["mean"]), error_kw={"linewidth": 0.7})
    axes.barh([f"{row[name]} ({row['n']})" for _, row in summary.iterrows()], summary["mean"], xerr=errors, **bars)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel=label, ylim=(len(summary) - 0.5, -0.5))
    return figure


@plt.rc_context(THEME)
def plot_counts(counts: pd.DataFrame, published: pd.DataFrame, label: str) -> Figure:
    """Draw a bar for each method on a log axis, one panel a column, and a diamond for what was published.

    Args:
        counts: columns for the panels, by method, in the order of the rows. A count of 0 has no bar.
        published: the same, with NaN or no row where nothing was published.
        label: of the horizontal axes.
    """
    figure, places = new_figure(PAGE, 0.17 * len(counts) + 0.9), np.arange(len(counts))
    colours = [NIB if name == "nib" else GREY if name in CONTROLS else COLOURS[0] for name in counts.index]
    for axes, name in zip(figure.subplots(1, counts.shape[1], sharey=True, squeeze=False).flat, counts):
        shown = counts[name].where(counts[name] > 0)
        axes.barh(places, shown, color=colours, label="_")
        found = published.reindex(counts.index)[name]
        axes.plot(found.where(found > 0), places, "D", ms=4, color="0.15", markerfacecolor="white", label="published")
        for place, value, end in zip(places, counts[name], np.fmax(counts[name], found)):
            text = dict(textcoords="offset points", va="center", fontsize=7)
            axes.annotate(f"{value:.3g}", (max(end, 0.05), place), (5, 0), **text)
        axes.set(title=name, xlabel=label, xscale="log", xlim=(0.05, 3 * np.nanmax([counts.max(), published.max()])))
        axes.set(ylim=(len(counts) - 0.5, -0.5))
        axes.set_yticks(places, counts.index)
        _emphasise(axes, list(counts.index))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    return figure


@plt.rc_context(THEME)
def plot_signs(shares: pd.DataFrame, chance: dict[str, float]) -> Figure:
    """Draw what share of a map's positive and of its negative scores lies in each region, a row a method.

    Args:
        shares: columns `region`, `method`, `sign` ("for" or "against"), `mean`, `low`, `high`.
        chance: region -> its share of the picture, dotted.
    """
    rows = list(shares["method"].unique())
    figure = new_figure(PAGE, 0.22 * len(rows) + 0.8)
    for axes, (region, share) in zip(figure.subplots(1, len(chance), sharey=True), chance.items()):
        for sign, side in (("for", 1), ("against", -1)):
            bar = shares[(shares["region"] == region) & (shares["sign"] == sign)].set_index("method").reindex(rows)
            ends = np.maximum([bar["mean"] - bar["low"], bar["high"] - bar["mean"]][::side], 0)
            bars = dict(color=_colour_signs(side), error_kw={"linewidth": 0.7})
            axes.barh(bar.index, side * bar["mean"], xerr=ends, **bars)
            axes.axvline(side * share, color="0.3", ls=":", lw=1)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(title=region, xlabel="against ← share of the map → for", ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    return figure
