"""Measure whether a map lies on the object that the text names.

Exports `pointing_game` and `bootstrap_interval`.
"""

import numpy as np
import torch
from scipy.stats import bootstrap

from nib.plotting import upsample
from nib.shapes import GridScores


def pointing_game(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Say whether the largest score lies on the object (Zhang et al., 2016).

    The map is upsampled bilinearly to the size of the mask. Where several pixels share the
    maximum, the result is the share of them that lie on the object.

    Args:
        scores: (batch, grid_h, grid_w), signed or not.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        (batch,) in [0, 1], higher is better.

    Raises:
        ValueError: shapes that do not fit, or a mask without a pixel.
    """
    if scores.ndim != 3 or masks.ndim != 3 or len(scores) != len(masks):
        raise ValueError(f"scores and masks must be (batch, ., .), got {tuple(scores.shape)}, {tuple(masks.shape)}")
    if not masks.flatten(1).any(1).all():
        raise ValueError("every mask must have at least one pixel")
    large = upsample(scores.double(), masks.shape[1:])
    highest = large == large.amax((1, 2), keepdim=True)
    return (highest & masks.bool()).sum((1, 2)) / highest.sum((1, 2))


def bootstrap_interval(values: np.ndarray, seed: int = 0, n_resamples: int = 2000) -> tuple[float, float]:
    """Give the 95 % percentile bootstrap interval of the mean.

    Args:
        values: (n,), at least 2, finite.
        seed: of the resampling.

    Raises:
        ValueError: fewer than 2 values, or a value that is not finite.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be at least 2 finite numbers, got shape {values.shape}")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = bootstrap((values,), np.mean, n_resamples=n_resamples, method="percentile", rng=seed)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
