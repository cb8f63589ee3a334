"""Measure how much a method's map changes from run to run.

Exports `run_to_run`, `Variation`, `mean_rank_correlation` and `correlate_ranks`. The NIB paper names the lack of
randomness as what it gains over bottlenecks with noise; this puts a number on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor

from nib.clip import HookedCLIP
from nib.methods import METHODS
from nib.shapes import AttentionMask, GridScores, InputIds, PairValues, PixelValues, TokenScores


@dataclass
class Variation:
    """How the scores of each pair vary between runs that differ in the seed alone.

    Attributes:
        image_std: (batch, grid_h, grid_w), sample standard deviation over the runs, in the units of
            the method; exactly 0 for a deterministic method.
        text_std: (batch, tokens), likewise; 0 at padding.
        image_rank_correlation: (batch,), Spearman's, mean over all pairs of runs, in [-1, 1]; 1 for
            a deterministic method.
        text_rank_correlation: (batch,), likewise, over the tokens that are not padding.
    """

    image_std: GridScores
    text_std: TokenScores
    image_rank_correlation: PairValues
    text_rank_correlation: PairValues


def run_to_run(
    method: str,
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    *,
    seeds: Sequence[int] = range(5),
    **parameters,
) -> Variation:
    """Explain the same pairs once a seed and compare the maps.

    Args:
        method: a key of `nib.METHODS`.
        pixel_values: (batch, channels, height, width); one picture serves all captions.
        input_ids: (batch, tokens), with begin and end.
        attention_mask: (batch, tokens), 1 at tokens; None where nothing is padded.
        seeds: at least 2.
        parameters: of the method.

    Returns:
        The `Variation` of each pair.

    Raises:
        KeyError: unknown method.
        ValueError: fewer than 2 seeds, or a bad parameter.
    """
    if method not in METHODS:
        raise KeyError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    seeds = list(seeds)
    if len(seeds) < 2:
        raise ValueError(f"seeds must be at least 2, got {seeds}")
    runs = [METHODS[method](clip, pixel_values, input_ids, attention_mask, seed=seed, **parameters) for seed in seeds]
    image = torch.stack([run.image for run in runs]).double().cpu()  # (runs, batch, grid_h, grid_w)
    text = torch.stack([run.text for run in runs]).double().cpu()  # (runs, batch, tokens)
    real = torch.ones(text.shape[1:], dtype=torch.bool) if attention_mask is None else attention_mask.bool().cpu()
    patches = image.flatten(2).unbind(1)  # of each pair, (runs, patches)
    words = [text[:, row, tokens] for row, tokens in enumerate(real)]
    return Variation(
        # Less the first run, so that equal runs give 0 and not a rounding error of their mean.
        image_std=(image - image[0]).std(0),
        text_std=(text - text[0]).std(0),
        image_rank_correlation=torch.tensor([mean_rank_correlation(values) for values in patches]),
        text_rank_correlation=torch.tensor([mean_rank_correlation(values) for values in words]),
    )


def mean_rank_correlation(maps: Tensor) -> float:
    """Average Spearman's rank correlation over all pairs of maps, ties at their mean rank.

    Two constant maps agree (1); a constant map and one that is not have nothing in common (0).

    Args:
        maps: (runs, values), at least 2 runs.

    Returns:
        The mean in [-1, 1].
    """
    ranks = rankdata(maps.numpy(), axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1)
    return float(np.mean([_correlate(ranks, lengths, i, j) for i, j in combinations(range(len(ranks)), 2)]))


def correlate_ranks(first: ArrayLike, second: ArrayLike) -> float:
    """Correlate two maps of one shape by `mean_rank_correlation`, wherever they are and in whatever precision."""
    return mean_rank_correlation(torch.stack([torch.as_tensor(x).flatten().double().cpu() for x in (first, second)]))


def _correlate(ranks: np.ndarray, lengths: np.ndarray, i: int, j: int) -> float:
    if np.array_equal(ranks[i], ranks[j]):
        return 1.0
    if 0 in (lengths[i], lengths[j]):
        return 0.0
    return float(np.clip(ranks[i] @ ranks[j] / (lengths[i] * lengths[j]), -1, 1))
