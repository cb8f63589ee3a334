"""Put Theorem 3 in tables: where F moves, what quadratures miss of it, and what that does to maps.

Exports `tabulate_profile`, `tabulate_gaps`, `explain_parts` and `measure_parts`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nib.clip import HookedCLIP
from nib.evaluation import Batch
from nib.integrate import RULES, integrate, place_nodes
from nib.metrics import auc, pointing_game
from nib.shapes import Embeds, GridScores, PairValues, TokenScores
from nib.towers import Split
from studies.randomness import correlate_ranks
from studies.theory.path import gaps, integrate_at, log_quadrature, profile
from studies.theory.sides import cut_sides

BORDER = 0.1  # the first node of the paper's rule
PAPER = "right Riemann, 10"


def tabulate_profile(clip: HookedCLIP, pairs: Batch, layers: Sequence[int], n_pairs: int | None = None) -> pd.DataFrame:
    """Follow F and its slope in log lambda from lambda = 1e-6 to 1.

    Returns:
        Columns `panel`, `layer`, `lambda` and `value`, a row a pair: panel "F(λz), picture" and the like, in cosine
        units; "|dF / d log λ|, picture" and the like; and, where lambda is NaN, "share below λ = 0.1, picture" and the
        like, what part of the second lies below the paper's first node.
    """
    points, rows = np.geomspace(1e-6, 1, 25), []
    for side, layer, split, targets in cut_sides(clip, pairs, layers, n_pairs):
        values, slopes = profile(split, targets, points)  # (points, pairs) each
        mass = slopes.abs().cpu() * torch.tensor(points)[:, None]  # dF / d log lambda = lambda dF / d lambda
        for name, found in (("F(λz)", values), ("|dF / d log λ|", mass)):
            for point, row in zip(points, found.tolist()):
                rows += [(f"{name}, {side}", f"layer {layer}", point, value) for value in row]
        below = mass[points < BORDER].sum(0) / mass.sum(0)
        rows += [(f"share below λ = {BORDER}, {side}", f"layer {layer}", np.nan, value) for value in below.tolist()]
    return pd.DataFrame(rows, columns=["panel", "layer", "lambda", "value"])


def tabulate_gaps(
    clip: HookedCLIP, pairs: Batch, layers: Sequence[int], steps: Sequence[int], n_pairs: int | None = None
) -> pd.DataFrame:
    """Measure how far the sum of all scores misses F(z) - F(0), by every rule and number of steps.

    Returns:
        Columns `panel` ("picture, layer 9" and the like), `rule`, `n_steps` and `value`, a row a pair: the absolute
        gap in cosine units. Rule "F(z) - F(0)", with 0 steps, is the absolute value of what is to be explained.
    """
    paths = {(rule, n): place_nodes(rule, n) for rule in RULES for n in steps}
    paths |= {("in log λ", n): log_quadrature(n) for n in steps}
    rows = []
    for side, layer, split, targets in cut_sides(clip, pairs, layers, n_pairs):
        start, end = profile(split, targets, [0.0, 1.0])[0]
        found = {**gaps(split, targets, paths), ("F(z) - F(0)", 0): end - start}
        for (rule, n), values in found.items():
            rows += [(f"{side}, layer {layer}", rule, n, abs(value)) for value in values.tolist()]
    return pd.DataFrame(rows, columns=["panel", "rule", "n_steps", "value"])


def explain_parts(
    split: Split, targets: Embeds, log_steps: tuple[int, int]
) -> dict[str, tuple[TokenScores, PairValues]]:
    """Score tokens by the paper's rule, and by nodes in log lambda on the whole path and its two parts.

    Args:
        split: the tower, cut, with the batch of inputs in it.
        targets: (batch, embed), the other side's embeddings.
        log_steps: nodes below and above lambda = 0.1.

    Returns:
        name -> scores (batch, tokens), signed, in cosine units, and what they should add up to, (batch,).
    """
    start, middle, end = profile(split, targets, [0.0, BORDER, 1.0])[0]
    below, above = log_quadrature(log_steps[0], 1e-5, BORDER), log_quadrature(log_steps[1], BORDER, 1.0)
    low = integrate_at(split, targets[:, None], *below)[:, 0]
    high = integrate_at(split, targets[:, None], *above)[:, 0]
    paper = integrate(split, targets[:, None])[0][:, 0]
    return {
        PAPER: (paper, end - start),
        "all of log λ": (low + high, end - start),
        f"λ < {BORDER} alone": (low, middle - start),
        f"λ > {BORDER} alone": (high, end - middle),
    }


def measure_parts(
    scores: Mapping[str, tuple[TokenScores, PairValues]], maps: Mapping[str, GridScores], masks: Tensor
) -> pd.DataFrame:
    """Measure how well each map finds the object, how close it is to the paper's, and how far its sum is off.

    Args:
        scores: what `explain_parts` gives.
        maps: name -> (batch, grid_h, grid_w), the patches of these scores.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        Columns `map`, `metric`, `id` and `value`.
    """
    rows = []
    for name, (score, goal) in scores.items():
        found = {"pointing game": pointing_game(maps[name], masks), "AUC": auc(maps[name], masks)}
        found["rank correlation with the paper's"] = torch.tensor(
            [correlate_ranks(own, paper) for own, paper in zip(maps[name], maps[PAPER])], dtype=torch.float64
        )
        found |= {"absolute gap": (score.sum(1) - goal).abs(), "to explain, absolute": goal.abs()}
        for metric, values in found.items():
            rows += [(name, metric, number, float(value)) for number, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["map", "metric", "id", "value"])
