"""Remove what has the lowest scores, and see whether the similarity rises: is negative evidence real?

Exports `choose_lowest`, `find_outside`, `remove_patches`, `remove_words`, `report_removals`, `list_cases`,
`score_names` and `draw_removals`. The removals themselves are in `studies.negatives`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d
from torch.nn.utils.rnn import pad_sequence

from nib.clip import HookedCLIP
from nib.inputs import to_pixel_values, to_tokens
from nib.metrics import compare, summarise
from nib.result import Attribution
from nib.shapes import GridScores
from studies.charts import plot_rows
from studies.negatives import at_random, lowest, patch_removal, word_removal
from studies.two_objects import ASKED, Scenes

CASE = ["panel", "k"]  # how things are removed, and how many


def choose_lowest(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Choose the `k` items of lowest score by each name, and those nearest to zero by the first.

    Args:
        scores: name -> (pairs, items), +inf where a pair has no item.

    Returns:
        "lowest of NAME" and "nearest to 0 of NAME" -> (pairs, 1 set, items) boolean.
    """
    first = next(iter(scores))
    sets = {f"lowest of {name}": lowest(values, k)[:, None] for name, values in scores.items()}
    return sets | {f"nearest to 0 of {first}": lowest(scores[first].abs(), k)[:, None]}


def remove_patches(
    clip: HookedCLIP, scenes: Scenes, maps: Mapping[str, GridScores], counts: Sequence[int], n_draws: int
) -> pd.DataFrame:
    """Remove the patches of lowest score in two ways, and controls: near zero, random, random off the object.

    Args:
        scenes: compared with the prompts that name the object asked for.
        maps: name -> (scenes, grid_h, grid_w), the scores by which patches are chosen.
        counts: how many patches are removed at once.
        n_draws: random sets of each scene, whose mean counts.

    Returns:
        Columns `id`, `removed` (which patches), `value` (the change of the similarity, in cosine units), `panel` (how)
        and `k` (how many).
    """
    pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in scenes.pictures])
    inputs = pixel_values, *to_tokens(clip, scenes.prompts)[:2]
    off = find_outside(scenes.masks[ASKED], pixel_values.shape[-2:], clip.model.config.vision_config.patch_size)
    flat, parts = {name: scores.flatten(1) for name, scores in maps.items()}, []
    for k in counts:
        sets = choose_lowest(flat, k)
        sets["random"] = at_random(torch.ones_like(off), k, n_draws)
        sets["random, off the object"] = at_random(off, k, n_draws)
        removed = torch.cat(list(sets.values()), 1).unflatten(-1, clip.grid(pixel_values))
        for removal in ("mean_colour", "left_out"):
            change = patch_removal(clip, *inputs, removed, removal)  # (scenes, sets)
            panel = f"patches, {removal.replace('_', ' ')}"
            parts.append(_average_draws(scenes.ids, sets, change).assign(panel=panel, k=k))
    return pd.concat(parts, ignore_index=True)


def find_outside(masks: Tensor, size: Sequence[int], patch_size: int) -> Tensor:
    """Mark the patches of which no pixel lies on an object.

    Args:
        masks: (scenes, height, width) boolean, where the object is seen.
        size: (height, width) of the pictures that the model sees.
        patch_size: side of a patch, in pixels.

    Returns:
        (scenes, patches) boolean.
    """
    large = interpolate(masks[:, None].double(), tuple(size))
    return max_pool2d(large, patch_size).flatten(1) == 0


def remove_words(
    clip: HookedCLIP,
    scenes: Scenes,
    results: Mapping[str, Sequence[Attribution]],
    counts: Sequence[int],
    n_draws: int,
) -> pd.DataFrame:
    """Drop the words of lowest score from captions, and controls: near zero and random ones.

    Args:
        scenes: compared with the captions of the results.
        results: name -> an attribution a scene, of the same captions under every name.
        counts: how many words are dropped at once.
        n_draws: random sets of each caption, whose mean counts.

    Returns:
        The columns of `remove_patches` but `panel`.
    """
    pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in scenes.pictures])
    scores = {}
    for name, found in results.items():
        rows = [torch.tensor(result.word_scores) for result in found]
        scores[name] = pad_sequence(rows, batch_first=True, padding_value=torch.inf)  # (scenes, words of the longest)
    first = next(iter(results))
    words, parts = [result.words for result in results[first]], []
    for k in counts:
        sets = choose_lowest(scores, k)
        sets["random"] = at_random(scores[first] < torch.inf, k, n_draws)
        change = word_removal(clip, pixel_values, words, torch.cat(list(sets.values()), 1))
        parts.append(_average_draws(scenes.ids, sets, change).assign(k=k))
    return pd.concat(parts, ignore_index=True)


def _average_draws(ids: Sequence[str], sets: Mapping[str, Tensor], change: Tensor) -> pd.DataFrame:
    """Divide changes, (pairs, all sets), among the names of the sets, and average those of one name."""
    values = change.double().cpu().split([chosen.shape[1] for chosen in sets.values()], 1)
    tables = [pd.DataFrame({"id": ids, "removed": name, "value": own.mean(1)}) for name, own in zip(sets, values)]
    return pd.concat(tables, ignore_index=True)


def report_removals(removals: pd.DataFrame, mine: str, controls: Sequence[str]) -> pd.DataFrame:
    """Report what removing one kind of items changes, and how much more than removing others.

    Args:
        removals: columns `id`, `panel`, `removed`, `k` and `value`.
        mine: the entry of `removed` that is reported.
        controls: those that it is compared with, pair by pair.

    Returns:
        A row a case, by `panel` and `k`: `change`, `rises in` (the share of pairs), and for each control `more than
        ...` and Wilcoxon's p. Intervals are text; a control that a panel does not have is NaN.
    """
    own = removals[removals["removed"] == mine]
    change = summarise(own, CASE).set_index(CASE)
    rises = own.assign(value=own["value"] > 0).groupby(CASE)["value"].mean()
    report = pd.DataFrame({"change": _write(change, "mean"), "rises in": rises.reindex(change.index)})
    for name in controls:
        both = removals[removals["removed"].isin([mine, name])]
        tests = compare(both, CASE, "removed", name).set_index(CASE)
        report[f"more than {name}"] = _write(tests, "difference")
        report[f"p ({name})"] = tests["p"].map("{:.1g}".format)
    return report


def _write(table: pd.DataFrame, column: str) -> pd.Series:
    """Write a column with its interval, each with its sign."""
    cells = [f"{row[column]:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for _, row in table.iterrows()]
    return pd.Series(cells, table.index, dtype=object)


def list_cases(intervals: pd.DataFrame) -> dict[str, str]:
    """Name the cases whose interval lies `above` zero, `below` it, or `across` it.

    Args:
        intervals: columns `panel`, `k`, `low` and `high`.

    Returns:
        Text such as "patches, left out (1, 3)", with `k` in brackets; "in no case" where there is none.
    """
    above, below = intervals["low"] > 0, intervals["high"] < 0
    chosen = {"above": above, "below": below, "across": ~(above | below)}
    return {name: _name_cases(intervals[which]) for name, which in chosen.items()}


def _name_cases(cases: pd.DataFrame) -> str:
    counts = cases.groupby("panel", sort=False)["k"]
    return "; ".join(f"{panel} ({', '.join(map(str, k))})" for panel, k in counts) or "in no case"


def score_names(results: Sequence[Attribution], names: Sequence[str]) -> np.ndarray:
    """Add up the scores of the words of one name in each caption: (captions,), 0 where it is not named."""
    totals = []
    for result, name in zip(results, names):
        own = [score for word, score in zip(result.words, result.word_scores) if word in name.split()]
        totals.append(sum(own))
    return np.array(totals)


def draw_removals(changes: pd.DataFrame) -> Figure:
    """Draw the change of the similarity: a panel a way to remove, a row a choice of what is removed, a mark a number.

    Args:
        changes: columns `panel`, `removed`, `k`, `mean`, `low` and `high`.
    """
    marked = changes.assign(k=changes["k"].map("{} removed".format))
    figure = plot_rows(marked, "removed", "panel", "k", list(changes["removed"].unique()))
    for axes in figure.axes:
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel="change of the similarity")
        axes.locator_params(axis="x", nbins=4)
    return figure
