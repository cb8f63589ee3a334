"""Upsample maps of patch scores, and stretch them to masks."""

import torch
from torch import Tensor

from nib.shapes import GridScores


def upsample(scores: GridScores, size: tuple[int, int]) -> Tensor:
    """Interpolate maps bilinearly, as the paper does: (batch, grid_h, grid_w) -> (batch, *size)."""
    if min(size) < 1 or not scores.numel():
        raise ValueError(f"maps and size must have at least one pixel, got {tuple(scores.shape)} and {tuple(size)}")
    if not scores.is_floating_point():
        raise ValueError(f"maps must be floats, got {scores.dtype}")
    return torch.nn.functional.interpolate(scores[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def to_heatmap(scores: GridScores, size: tuple[int, int]) -> Tensor:
    """Upsample maps and stretch each to [0, 1], as the confidence metrics use them: (batch, *size).

    A constant map has nothing to say: its heat map is all ones, which masks nothing.
    """
    large = upsample(scores, size)
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    varies = (scores != scores[:, :1, :1]).any((1, 2), keepdim=True)  # interpolation rounds: a flat map may not stay so
    return torch.where(varies & (high > low), (large - low) / (high - low), 1.0)
