"""Draw Table 1 as measured, and one scene as all systems explain it.

Exports `draw_table` and `draw_side_by_side`.
"""

import textwrap

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nib.inputs import to_picture
from nib.plotting import new_figure
from studies.style import PAGE
from studies.table1.harness import PROPERTIES, Setting
from studies.table1.systems import Explanation, System

COLOURS = {"✓": "#56B4E9", "◐": "#F0E442", "✗": "#E69F00"}


def draw_table(table: pd.DataFrame) -> Figure:
    """Draw the marks, with the measured number below each and the paper's own mark where its text states one.

    Args:
        table: as `harness.measure` returns it.
    """
    names = list(dict.fromkeys(table["system"]))
    figure = new_figure(PAGE, 0.5 * len(names) + 0.7)
    axes = figure.subplots()
    for row in table.itertuples():
        x, y = PROPERTIES.index(row.property), names.index(row.system)
        axes.add_patch(Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, facecolor=COLOURS[row.mark], edgecolor="none"))
        axes.text(x - 0.2, y, row.mark, ha="center", va="center", fontsize=13)
        stated = "" if row.paper == "not stated" else f"\npaper {row.paper}"
        axes.text(x + 0.16, y, f"{row.number:.3g}{stated}", ha="center", va="center", fontsize=6.5)
    axes.set(xlim=(-0.5, len(PROPERTIES) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(len(PROPERTIES)), [name.replace(" ", "\n", 1) for name in PROPERTIES], fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def draw_side_by_side(setting: Setting, systems: dict[str, System], row: int = 0) -> Figure:
    """Draw the explanations of one pair by all systems: a map over the picture, examples, or words."""
    pair, seed = setting.pairs[row], setting.seeds[0]
    picture = to_picture(setting.clip, pair.pixel_values)
    columns = 4
    lines = -(-(len(systems) + 1) // columns)
    figure = new_figure(PAGE, 2.15 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    panels[0].imshow(picture)
    panels[0].set_title(f"“{pair.text}”", fontsize=7)
    for axes, (name, system) in zip(panels[1:], systems.items()):
        found = system.explain(setting.clip, pair, setting.draw(system, seed), seed)
        axes.set_title(name, fontsize=8)
        _draw_one(axes, picture, found, setting, system)
        note = textwrap.shorten(found.note, 130, placeholder=" …")
        axes.set_xlabel(textwrap.fill(note, 34), fontsize=5.5)
    return figure


def _draw_one(axes, picture: np.ndarray, found: Explanation, setting: Setting, system: System) -> None:
    if found.map is not None:
        _overlay(axes, picture, found.map)
    elif found.rows:
        images = [setting.data[system.examples][row]["image"] for row in found.rows[:4]]
        tiles = [np.asarray(image.convert("RGB").resize((112, 112))) for image in images]
        axes.imshow(np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])]))


def _overlay(axes, picture: np.ndarray, scores: torch.Tensor) -> None:
    """Lay a map over its picture, red for and blue against, on a scale that is symmetric about zero."""
    size = picture.shape[:2]
    large = torch.nn.functional.interpolate(scores[None, None].float().cpu(), size, mode="bilinear")[0, 0].numpy()
    limit = max(float(np.abs(large).max()), 1e-12)
    axes.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(large, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.55)
