"""Measure whether a map lies on the object that the text names.

Exports `pointing_game`, `auc`, `energy_inside`, `put_on_masks` and `HIGHER_IS_BETTER`.
"""

import torch
from scipy.stats import rankdata

from nib.shapes import GridScores
from nib.upsample import upsample

HIGHER_IS_BETTER = {"pointing_game": True, "auc": True, "energy_inside": True}


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
        ValueError: shapes that do not fit, scores that are not finite, or a mask without a pixel.
    """
    large = put_on_masks(scores, masks)
    highest = large == large.amax((1, 2), keepdim=True)
    return (highest & masks.bool()).sum((1, 2)) / highest.sum((1, 2))


def auc(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Give the area under the ROC curve of the map as a detector of the object's pixels.

    It is the probability that a pixel on the object scores higher than a pixel beside it, ties
    counting half. The map is upsampled bilinearly to the size of the mask.

    Args:
        scores: (batch, grid_h, grid_w), signed or not; only their order matters.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        (batch,) float64 in [0, 1], higher is better; 0.5 is chance, and a constant map.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, or a mask without a pixel or
            without background.
    """
    large = put_on_masks(scores, masks).flatten(1).cpu()
    inside = masks.bool().flatten(1).cpu()
    if inside.all(1).any():
        raise ValueError("every mask must leave at least one pixel of background")
    ranks = torch.from_numpy(rankdata(large.numpy(), axis=1))  # ties share their mean rank
    n_inside, n_outside = inside.sum(1), (~inside).sum(1)
    higher = (ranks * inside).sum(1) - n_inside * (n_inside + 1) / 2  # pairs (in, out) with the first higher
    return higher / (n_inside * n_outside)


def energy_inside(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Give the share of the map's positive mass that lies on the object (Wang et al., 2020).

    The map is upsampled bilinearly to the size of the mask, and only then cut at zero. A map
    without a positive score counts as one that is the same everywhere.

    Args:
        scores: (batch, grid_h, grid_w), signed: what pushes the similarity down is no evidence.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        (batch,) float64 in [0, 1], higher is better; the share of the object in the picture is
        what a constant map gets.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, or a mask without a pixel.
    """
    mass = put_on_masks(scores, masks).clamp(min=0)
    mass = torch.where(mass.amax((1, 2), keepdim=True) > 0, mass, 1.0)
    return (mass * masks.to(mass)).sum((1, 2)) / mass.sum((1, 2))


def put_on_masks(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Upsample maps to the size of the masks, in float64, so that what is equal stays equal.

    Interpolation rounds: what was flat differs in its last digits. Twelve digits of the largest
    score are kept.
    """
    if scores.ndim != 3 or masks.ndim != 3 or len(scores) != len(masks):
        raise ValueError(f"scores and masks must be (batch, ., .), got {tuple(scores.shape)}, {tuple(masks.shape)}")
    if not masks.flatten(1).any(1).all():
        raise ValueError("every mask must have at least one pixel")
    if not scores.isfinite().all():
        raise ValueError("scores must be finite, got NaN or infinity")
    large = upsample(scores.double(), masks.shape[1:])
    largest = large.abs().amax((1, 2), keepdim=True)
    return torch.where(largest > 0, (large / largest).round(decimals=12) * largest, 0.0)
