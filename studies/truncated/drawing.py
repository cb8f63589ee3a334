"""Draw paths that begin above zero: F along them, their gaps, their maps, and what the layer does.

Exports `draw_profile`, `draw_gaps`, `draw_layers` and `draw_example`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import nib
from nib.clip import HookedCLIP
from nib.plotting import plot_maps
from studies.charts import label_metrics, plot_lines
from studies.truncated.tables import TASKS


def draw_profile(profile: pd.DataFrame, lambda_mins: Sequence[float]) -> Figure:
    """Draw what `follow_paths` returns over log lambda, with a dotted line at each start."""
    figure = plot_lines(profile, "lambda", "panel", "layer", columns=4, x_scale="log", label="λ")
    for axes in figure.axes:
        for start in lambda_mins:
            axes.axvline(start, color="0.6", ls=":", linewidth=1)
    return figure


def draw_gaps(summary: pd.DataFrame, layers: Sequence[int], largest_gap: float) -> Figure:
    """Draw relative gaps against the start: a panel a side and layer, a line a rule with its number of nodes.

    Args:
        summary: what `summarise_paths` returns.
        layers: which to show.
        largest_gap: where the dotted line stands.
    """
    part = summary[summary["metric"].str.endswith("gap_relative") & summary["layer"].isin(layers)]
    part = part.sort_values(["metric", "layer"], kind="stable")
    side = part["metric"].str.split("_").str[0].replace("image", "picture")
    panel, line = side + ", layer " + part["layer"].astype(str), part["path"].str.split(",").str[0]
    figure = plot_lines(part.assign(panel=panel, line=line), "lambda_min", "panel", "line", columns=6)
    limits = max(1e-6, part["low"].min() / 2), 2 * part["high"].max()
    for axes in figure.axes:
        axes.set(yscale="log", xlabel="λ_min", ylim=limits)
        axes.axhline(largest_gap, color="0.6", ls=":", linewidth=1)
    figure.axes[0].set_ylabel("gap / explained")
    return figure


def draw_layers(summary: pd.DataFrame, reference: str) -> Figure:
    """Draw the picture's relative gap and the metrics of `TASKS` against the layer.

    A line each is the reference, and Gauss-Legendre's fewest nodes from every start.

    Args:
        summary: what `summarise_paths` returns.
        reference: name of a path.
    """
    gauss = summary["quadrature"] == "gausslegendre"
    fewest = gauss & (summary["n_steps"] == summary.loc[gauss, "n_steps"].min())
    titles = {"image_gap_relative": "image gap relative ↓"} | label_metrics(TASKS)
    part = summary[(fewest | (summary["path"] == reference)) & summary["metric"].isin(list(titles))]
    part = part.sort_values("metric", key=lambda names: names.map(list(titles).index), kind="stable")
    figure = plot_lines(part.replace({"metric": titles}), "layer", "metric", "path", columns=4)
    figure.axes[0].set_yscale("log")
    return figure


def draw_example(clip: HookedCLIP, row: Mapping, paths: Mapping[str, dict], layers: Sequence[int]) -> Figure:
    """Draw the maps of one prompt at some layers and by some paths, each with its gap and what it explains.

    Args:
        row: with `image` and `text`.
        paths: name -> parameters of `nib.attribute`.
    """
    maps = {}
    for layer in layers:
        for name, options in paths.items():
            result = nib.attribute(clip, row["image"], row["text"], layer=layer, **options)
            sums = f"gap {result.image.gap:+.2f} of {result.image.difference:+.2f}"
            maps[f"layer {layer}, {name}\n{sums}"] = result.image_scores
    figure = plot_maps(np.array(row["image"].convert("RGB")), maps, columns=len(paths) * len(layers))
    figure.suptitle(row["text"])
    return figure
