"""One look for all figures: seaborn's theme at the sizes of a printed page, and a colour for each method.

Exports `THEME`, for `matplotlib.pyplot.rc_context`; `PAGE` and `COLUMN`, widths in inches; `CONTROLS`; and
`colour_methods`.
"""

import seaborn as sns

PAGE, COLUMN = 7.1, 3.4  # of a page with two columns
CONTROLS = ("random", "center", "objectness", "none", "true_mask")  # know nothing of the pair, or everything
NIB, GREY = "#D55E00", "0.55"
SIZES = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}
THEME = {
    **sns.plotting_context("paper"),
    **sns.axes_style("ticks", {"axes.spines.top": False, "axes.spines.right": False}),
    **SIZES,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
}
COLOURS = sns.color_palette("colorblind").as_hex()


def colour_methods(names: list[str]) -> dict[str, str]:
    """Return a colour for each method: NIB's own, grey for controls, and the same one always for any other."""
    from nib.methods import METHODS  # here, so that a style does not wait for torch

    others = [name for name in METHODS if name != "nib" and name not in CONTROLS]
    free = [colour for colour in COLOURS if colour not in (NIB.upper(), NIB.lower()) and colour != "#949494"]
    fixed = {name: free[number % len(free)] for number, name in enumerate(others)}
    fixed |= dict.fromkeys(CONTROLS, GREY) | {"nib": NIB}
    return {name: NIB if name.startswith("nib") else fixed.get(name, GREY) for name in names}
