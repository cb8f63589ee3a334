"""Measure whether a map lies on the object that the text names.

Exports `pointing_game`, `auc`, `selectivity`, `energy_inside`, `average_precision`, `iou_at_mean`, `put_on_masks` and
`LOCALISATION`. Against the whole picture a map that lies on any object does well, whatever the text says: `selectivity`
sets the named object against the others alone.
"""

import torch
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from nib.checks import check_finite, to_real
from nib.heatmaps import upsample
from nib.metrics.registry import Case, Metric, Value
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
        ValueError: shapes that do not fit, scores that are not finite, or a mask without a pixel.
    """
    large, inside = _read(scores, masks)
    highest = large == large.amax((1, 2), keepdim=True)
    return (highest & inside).sum((1, 2)) / highest.sum((1, 2))


def auc(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Return the area under the ROC curve of the map as a detector of the object's pixels.

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
    large, inside = (part.flatten(1).cpu() for part in _read(scores, masks))
    if full := inside.all(1).nonzero()[:, 0].tolist():
        raise ValueError(f"every mask must leave at least one pixel of background, rows {full[:10]} leave none")
    return _area(large, inside, ~inside)


def selectivity(scores: GridScores, masks: torch.Tensor, other_masks: torch.Tensor) -> torch.Tensor:
    """Return the area under the ROC curve of the map between the named object and the other ones.

    It is `auc` with the background left out: the probability that a pixel on the named object scores higher than a
    pixel on an object that is not named. A map that shows objects, whatever the text says, is at chance.

    Args:
        scores: (batch, grid_h, grid_w), signed or not; only their order matters.
        masks: (batch, height, width) boolean, where the named object is seen.
        other_masks: the same, where objects are seen that are not named.

    Returns:
        (batch,) float64 in [0, 1], higher is better; 0.5 is chance, and a constant map; NaN where there is no other
        object.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, a mask without a pixel, or a pixel
            on both masks.
    """
    large, inside = _read(scores, masks)
    beside = _read_masks(other_masks).to(inside.device)
    if beside.shape != inside.shape:
        raise ValueError(f"other_masks must be {tuple(inside.shape)}, as masks are, got {tuple(beside.shape)}")
    if both := (inside & beside).flatten(1).any(1).nonzero()[:, 0].tolist():
        raise ValueError(f"other_masks must be beside masks, and overlap them in rows {both[:10]}")
    return _area(*(part.flatten(1).cpu() for part in (large, inside, beside)))


def _area(large: torch.Tensor, inside: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Return the share of pairs (in, out) with the first higher; all are (batch, pixels)."""
    seen = inside | outside
    ranks = torch.from_numpy(rankdata(torch.where(seen, large, -torch.inf).numpy(), axis=1))  # ties share their mean
    n_inside, n_outside, n_below = (each.sum(1).double() for each in (inside, outside, ~seen))
    higher = (ranks * inside).sum(1) - n_inside * (n_below + (n_inside + 1) / 2)
    return higher / (n_inside * n_outside)  # 0 / 0 without a pixel outside


def energy_inside(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Return the share of the map's positive mass that lies on the object (Wang et al., 2020).

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
    large, inside = _read(scores, masks)
    mass = large.clamp(min=0)
    mass = torch.where(mass.amax((1, 2), keepdim=True) > 0, mass, 1.0)
    return (mass * inside).sum((1, 2)) / mass.sum((1, 2))


def average_precision(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Return the area under the precision-recall curve of the map as a detector of the object's pixels.

    Unlike `auc` it depends on how large the object is: a constant map gets the object's share of the picture.

    Args:
        scores: (batch, grid_h, grid_w), signed or not; only their order matters.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        (batch,) float64 in [0, 1], higher is better (scikit-learn's `average_precision_score`).
    """
    large, inside = (part.flatten(1).cpu().numpy() for part in _read(scores, masks))
    return torch.tensor([average_precision_score(*row) for row in zip(inside, large)], dtype=torch.float64)


def iou_at_mean(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Return intersection over union of the object with the pixels that score above the map's mean.

    Args:
        scores: (batch, grid_h, grid_w), signed or not.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        (batch,) float64 in [0, 1], higher is better; 0 for a constant map, which has no pixel above its mean.
    """
    large, inside = _read(scores, masks)
    above = large > large.mean((1, 2), keepdim=True)
    return (above & inside).sum((1, 2)).double() / (above | inside).sum((1, 2)).double()


def put_on_masks(scores: GridScores, masks: torch.Tensor) -> torch.Tensor:
    """Upsample maps to the size of the masks, in float64, so that what is equal stays equal.

    Interpolation rounds: what was flat differs in its last digits. Twelve digits of the largest
    score are kept.
    """
    return _read(scores, masks)[0]


def _read(scores: GridScores, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps on the masks, see `put_on_masks`, and the masks, boolean; also of arrays and lists."""
    scores, masks = to_real("scores", scores).detach(), _read_masks(masks)
    if scores.ndim != 3 or masks.ndim != 3 or len(scores) != len(masks) or not scores.numel():
        raise ValueError(f"scores and masks must be (batch, ., .), got {tuple(scores.shape)}, {tuple(masks.shape)}")
    if empty := (~masks.flatten(1).any(1)).nonzero()[:, 0].tolist():
        raise ValueError(f"every mask must have at least one pixel, rows {empty[:10]} have none")
    check_finite("scores", scores)
    if scores.shape[1] > masks.shape[1] or scores.shape[2] > masks.shape[2]:
        raise ValueError(f"a map must not be finer than its mask, got {tuple(scores.shape)} and {tuple(masks.shape)}")
    large = upsample(scores.double(), masks.shape[1:])
    largest = large.abs().amax((1, 2), keepdim=True)
    kept, there = scores.double().abs() >= 1e-12 * scores.double().abs().amax((1, 2), keepdim=True), scores != 0
    if lost := (2 * (kept & there).sum((1, 2)) < there.sum((1, 2))).nonzero()[:, 0].tolist():
        raise ValueError(
            "most scores of a map must be at least 1e-12 of its largest, or rounding takes them for 0: so in rows"
            f" {lost[:10]}, whose largest are {[float(scores[row].abs().max()) for row in lost[:10]]}"
        )
    large = torch.where(largest > 0, (large / largest).round(decimals=12) * largest, 0.0)
    return large, masks.to(large.device)


def _read_masks(masks: torch.Tensor) -> torch.Tensor:
    masks = to_real("masks", masks)
    if not masks.isfinite().all() or (masks < 0).any():
        raise ValueError("masks must be boolean or numbers, 0 where the object is not seen, got NaN or below 0")
    return masks.bool()


def _measure(case: Case) -> dict[str, torch.Tensor]:
    image = case.scores.image_map.cpu()
    found = {function.__name__: function(image, case.masks) for function in AGAINST_THE_REST}
    return found | {"selectivity": selectivity(image, case.masks, case.other_masks)}


AGAINST_THE_REST = (pointing_game, auc, energy_inside, average_precision, iou_at_mean)
VALUES = {function.__name__: Value(True, "share") for function in (*AGAINST_THE_REST, selectivity)}
LOCALISATION = Metric(VALUES, _measure, needs="masks")
