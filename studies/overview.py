"""See all methods at once: one number against another, and a table as a heat map.

Exports `plot_marks` and `plot_table`.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nib.plotting import new_figure
from studies.charts import MARKERS
from studies.style import GREY, NIB, PAGE, THEME, colour_methods


@plt.rc_context(THEME)
def plot_marks(table: pd.DataFrame, x: str, y: str, labels: dict[str, str] | None = None) -> Figure:
    """Draw one named mark for each row of a table, in the colour of its method.

    Args:
        table: columns `x` and `y`; the index names the marks.
        x, y: columns of numbers.
        labels: of the axes, where not the names of the columns.
    """
    figure = new_figure(0.75 * PAGE, 0.5 * PAGE)
    axes = figure.subplots()
    colours = colour_methods([str(name) for name in table.index])
    for number, (name, row) in enumerate(table.iterrows()):
        marker = "*" if str(name).startswith("nib") else MARKERS[number % 7]
        axes.plot(row[x], row[y], marker, color=colours[str(name)], ms=9 if marker == "*" else 4)
    axes.set(xlabel=(labels or {}).get(x, x), ylabel=(labels or {}).get(y, y))
    axes.margins(x=0.12, y=0.08)
    figure.draw_without_rendering()  # places are known from here on
    # the marks themselves, three points around their centres
    marks = axes.transData.transform(table[[x, y]].to_numpy())
    taken = [Bbox.from_extents(*(place - 3), *(place + 3)) for place in marks]
    for name, row in table.sort_index(key=lambda names: ~names.astype(str).str.startswith("nib")).iterrows():
        colour = colours[str(name)] if colours[str(name)] in (NIB, GREY) else "0.2"
        taken.append(_annotate(axes, str(name), (row[x], row[y]), taken, colour))
    return figure


def _annotate(axes, name: str, place: tuple[float, float], taken: list, colour: str):
    """Write a name beside its mark, where it covers no other and no mark if there is such a place; return its box."""
    near = [(5, -2), (-5, -2), (5, 3), (5, -8), (-5, 3), (-5, -8), (0, 6), (0, -11)]
    far = [(right, up) for right in (20, -20, 40, 60) for up in (-2, 12, -16, 24, -28, 36)]
    for right, up in (around := near + far):
        side = "left" if right > 0 else "right" if right < 0 else "center"
        style = dict(xytext=(right, up), textcoords="offset points", fontsize=6.5, color=colour, ha=side)
        if (right, up) in far:
            style["arrowprops"] = dict(arrowstyle="-", color="0.6", linewidth=0.4, shrinkA=0, shrinkB=2)
        text = axes.annotate(name, place, **style)
        text.get_window_extent()  # sets the place
        box = Text.get_window_extent(text)  # without the line
        inside = box.x0 > axes.bbox.x0 and box.y0 > axes.bbox.y0
        if (right, up) == around[-1] or (inside and not any(box.overlaps(other) for other in taken)):
            return box
        text.remove()


@plt.rc_context(THEME)
def plot_table(table: pd.DataFrame, label: str, colours: str, limits: tuple[float, float], digits: int = 0) -> Figure:
    """Draw a table of numbers as a heat map with the numbers in it.

    Args:
        label: of the colour bar.
        colours: name of a colour map.
        limits: the values drawn in its end colours.
    """
    import seaborn as sns  # half a second, which other charts need not wait for

    figure = new_figure(PAGE, 1.1 + 0.17 * len(table))
    axes = figure.subplots()
    names = {"xticklabels": [str(name).replace("_", " ") for name in table.columns]}
    names |= {"yticklabels": [str(name).replace("_", " ") for name in table.index]}
    style = dict(cmap=colours, vmin=limits[0], vmax=limits[1], annot_kws={"size": 6}, cbar_kws={"label": label})
    sns.heatmap(table.astype(float), annot=True, fmt=f".{digits}f", linewidths=0.4, ax=axes, **names, **style)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(axis="x", labelrotation=40, length=0)
    axes.tick_params(axis="y", labelrotation=0, length=0)
    for text in axes.get_xticklabels():
        text.set(ha="right", rotation_mode="anchor")
    return figure
