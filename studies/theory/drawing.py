"""Draw the figures of the theorems, each a `plot_lines` with what belongs to it.

Exports `draw_information`, `draw_limit`, `draw_profile`, `find_turn` and `draw_gaps`. They take what
`nib.metrics.summarise` gives.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from nib.clip import HookedCLIP
from nib.integrate import place_nodes
from nib.shapes import HiddenStates
from studies.charts import plot_lines


def draw_information(information: pd.DataFrame, sigma: float) -> Figure:
    """Draw I against lambda at one sigma, a panel a position and a part of the state.

    Args:
        information: columns `panel`, `of`, `estimate`, `sigma`, `lambda`, `mean`, `low`, `high`.
        sigma: standard deviation of the noise, one of those in the table.
    """
    drawn = information[information["sigma"] == sigma].sort_values("of", kind="stable")
    figure = plot_lines(drawn, "lambda", "panel", "estimate", columns=2, label="λ")
    for axes in figure.axes:
        axes.set(ylabel=f"I, nats, at sigma = {sigma:g}")
    return figure


def draw_limit(limit: pd.DataFrame) -> Figure:
    """Draw what becomes of each quantity as sigma goes to zero, a line a lambda; the spreads on two log axes."""
    drawn = limit[~limit["quantity"].str.startswith("ratio")]
    drawn = drawn.assign(line=[f"λ = {level:g}" for level in drawn["lambda"]])
    figure = plot_lines(drawn, "sigma", "quantity", "line", columns=3, x_scale="log", label="sigma")
    for axes in figure.axes[3:]:
        axes.set_yscale("log")
    return figure


def draw_profile(path: pd.DataFrame, turn: float) -> Figure:
    """Draw F and its slope along the path, with the paper's ten nodes as ticks.

    Args:
        path: columns `panel`, `layer`, `lambda`, `mean`, `low`, `high`; rows without lambda are not drawn.
        turn: where a dotted line stands in the panels of pictures, see `find_turn`.
    """
    known = path[path["lambda"].notna()]
    figure = plot_lines(known, "lambda", "panel", "layer", columns=2, x_scale="log", label="λ")
    for axes in figure.axes:
        axes.vlines(place_nodes()[0], 0, 0.05, "0.4", transform=axes.get_xaxis_transform(), linewidth=1)
    for axes in figure.axes[:2]:
        axes.axvline(turn, color="0.4", ls=":")
    return figure


def find_turn(clip: HookedCLIP, states: HiddenStates) -> float:
    """Return the lambda at which the standard deviation of lambda z falls below √eps of the image tower's layer norms.

    Args:
        states: (batch, tokens, width), of which the mean standard deviation over the width is taken.
    """
    return clip.model.config.vision_config.layer_norm_eps**0.5 / states.std(-1).mean().item()


def draw_gaps(gap: pd.DataFrame, steps: Sequence[int], columns: int) -> Figure:
    """Draw the gap of each rule against its steps, with what is to be explained as a dashed line.

    Args:
        gap: columns `panel`, `rule`, `n_steps`, `mean`, `low`, `high`; `n_steps` is 0 for what is to be explained.
        steps: numbers of steps, the ticks.
        columns: panels in a row.
    """
    figure = plot_lines(gap[gap["n_steps"] > 0], "n_steps", "panel", "rule", columns, x_scale="log", label="steps")
    for axes, (_, whole) in zip(figure.axes, gap[gap["n_steps"] == 0].iterrows()):
        axes.axhline(whole["mean"], color="0.3", ls="--", linewidth=1)
        axes.set(yscale="log", ylabel="mean |gap|", xticks=steps, xticklabels=steps)
        axes.minorticks_off()
    return figure
