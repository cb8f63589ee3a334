"""Rebuild Figure 1 of the paper: prompts down, methods across, and the numbers of many scenes under it.

Exports `explain_prompts`, `explain_scenes`, `draw_prompts`, `show_small`, `tabulate_prompts`, `tabulate_regions`,
`measure_prompts` and `describe_differences`.
"""

import io
from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

import nib
from nib.clip import HookedCLIP
from nib.metrics import pointing_game, selectivity
from nib.plotting import as_written, draw_map, new_figure, symmetric_limit, upsample
from studies.style import NIB, PAGE, THEME


def explain_prompts(clip: HookedCLIP, image, prompts: Sequence[str], runs: Mapping[str, dict]) -> dict[str, list]:
    """Explain one picture for each prompt by each run, a name and the parameters of `nib.attribute`."""
    return {name: nib.attribute(clip, image, list(prompts), **setting) for name, setting in runs.items()}


def explain_scenes(clip: HookedCLIP, count: int, runs: Mapping[str, dict], seed: int = 0) -> tuple[dict, np.ndarray]:
    """Draw some scenes at random and explain each for a prompt that names one of its objects.

    Returns:
        What `explain_prompts` returns, and the masks of what is named, (count, height, width).
    """
    images, prompts, masks = nib.datasets.object_prompts()
    drawn = np.random.default_rng(seed).choice(len(prompts), min(count, len(prompts)), replace=False)
    images, prompts = [images[number] for number in drawn], [prompts[number] for number in drawn]
    return {name: nib.attribute(clip, images, prompts, **setting) for name, setting in runs.items()}, masks[drawn]


@plt.rc_context(THEME)
def draw_prompts(results: Mapping[str, list], outlines: Sequence[np.ndarray | None], blocks: int = 1) -> Figure:
    """Draw a row a prompt: the picture, then the map of each run, with the outline of what the prompt names.

    Signed maps are red and blue, those of one picture by one run on one scale; maps that cannot go below zero are
    sequential.

    Args:
        results: name -> an `Attribution` a prompt.
        outlines: a mask (height, width) a prompt, or None where nothing is outlined.
        blocks: of rows, side by side.
    """
    first = next(iter(results.values()))
    width, rows = len(results) + 1, -(-len(first) // blocks)
    figure = new_figure(PAGE, PAGE / (width * blocks) * 1.08 * rows)
    panels = figure.subplots(rows, width * blocks, squeeze=False)
    panels = np.concatenate(np.split(panels, blocks, axis=1))  # (rows of all blocks, pictures)
    for axes in panels[len(first) :].flat:
        axes.set_axis_off()
    for (left, *others), result, mask, row in zip(panels, first, outlines, range(len(first))):
        left.imshow(result.picture)
        left.set(xticks=[], yticks=[])
        text = as_written(fill(f"“{result.caption}”", 40 if blocks == 1 else 14), 40)
        left.set_ylabel(text, fontsize=8 if blocks == 1 else 6)
        left.spines[:].set_visible(False)
        for axes, (name, found) in zip(others, results.items()):
            _draw_one(axes, found[row], found)
            if row % rows == 0:
                axes.set_title(name, **({"color": NIB, "fontweight": "bold"} if name.startswith("NIB") else {}))
        for axes in (left, *others) if mask is not None else ():
            axes.contour(mask, [0.5], colors="black", linewidths=0.9 if blocks == 1 else 0.5)
    return figure


def show_small(figure: Figure) -> display.Image:
    """Return a figure of many pictures as a JPEG, a fifth of the size of a PNG, for a notebook's output."""
    pixels = io.BytesIO()
    figure.savefig(pixels, format="jpeg", dpi=100, pil_kwargs={"quality": 80})
    return display.Image(pixels.getvalue(), format="jpeg", alt="Figure")


def tabulate_prompts(results: Mapping[str, list]) -> pd.DataFrame:
    """Return what `draw_prompts` shows, a row a patch: columns `map`, `number`, `prompt`, `row`, `column`, `score`."""
    rows = [
        (name, number, result.caption, row, column, score)
        for name, found in results.items()
        for number, result in enumerate(found)
        for (row, column), score in np.ndenumerate(result.image_scores)
    ]
    return pd.DataFrame(rows, columns=["map", "number", "prompt", "row", "column", "score"])


def tabulate_regions(results: Sequence, regions: np.ndarray, named: Mapping[str, int]) -> pd.DataFrame:
    """Return the mean score of each map on each region of the picture, and where its highest score lies, a row a map.

    Args:
        results: of one picture, an `Attribution` each.
        regions: (height, width), the number of the region that a pixel belongs to.
        named: name of a region -> its number.
    """
    rows = {}
    for result in results:
        large = upsample(torch.as_tensor(result.image_scores)[None], result.picture.shape[:2])[0].numpy()
        highest = regions.ravel()[large.argmax()]
        row = {f"mean score on {name}": large[regions == number].mean() for name, number in named.items()}
        row["highest score on"] = next(name for name, number in named.items() if number == highest)
        rows[f"layer {result.parameters['layer']}, {result.caption}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _draw_one(axes: Axes, result, found: Sequence) -> None:
    if min(each.image_map.min() for each in found) < 0:
        same = [each.image_map for each in found if np.array_equal(each.picture, result.picture)]
        draw_map(axes, result.picture, result.image_map, max(map(symmetric_limit, same)))
        return
    axes.imshow(result.picture.mean(-1), cmap="gray", vmin=-80, vmax=255)
    large = upsample(torch.as_tensor(result.image_map)[None].float(), result.picture.shape[:2])[0]
    axes.imshow(large, cmap="magma", alpha=0.6)
    axes.set_axis_off()


def measure_prompts(clip: HookedCLIP, limit: int, runs: Mapping[str, dict]) -> pd.DataFrame:
    """Ask for one object in each of many scenes: does the map lie on it, and not on the others?

    Returns:
        Columns `id`, `method`, `metric` ("pointing game" or "selectivity") and `value`.
    """
    images, prompts, masks, others = nib.datasets.object_prompts(limit, with_others=True)
    masks, others, parts = torch.tensor(masks), torch.tensor(others), []
    for name, setting in tqdm(runs.items(), desc="object prompts", unit="method"):
        found = nib.attribute(clip, images, prompts, progress=False, **setting)
        maps = torch.tensor(np.stack([result.image_scores for result in found]))
        values = {"pointing game": pointing_game(maps, masks), "selectivity": selectivity(maps, masks, others)}
        for metric, value in values.items():
            parts.append(pd.DataFrame({"id": range(len(maps)), "method": name, "metric": metric, "value": value}))
    return pd.concat(parts, ignore_index=True)


def describe_differences(against: pd.DataFrame) -> str:
    """Write which methods are above NIB and which below, a line a metric, where Holm's p is below 0.05.

    Args:
        against: what `nib.metrics.compare` returns: method less NIB.
    """
    lines = []
    for metric, table in against.groupby("metric"):
        settled = table[table["p_holm"] < 0.05]
        above, below = (settled[settled["difference"] * sign > 0]["method"] for sign in (1, -1))
        named = ["; ".join(f"`{name}`" for name in names) or "none" for names in (above, below)]
        lines.append(f"- {metric}: above `NIB` {named[0]}, and below it {named[1]}")
    return "Scene by scene, p < 0.05 after Holm's correction:\n\n" + "\n".join(lines)
