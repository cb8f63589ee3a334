"""Measure whether a map lies on the object that the text names.

Against the whole picture a map that lies on any object does well, whatever the text says: `selectivity` sets the named
object against the others alone. All measures take

    scores: (batch, grid_h, grid_w), signed, which are upsampled bilinearly to the size of the masks.
    masks: (batch, height, width) boolean, where the object is seen.

and return (batch,) in [0, 1], higher is better. A ValueError says that shapes do not fit, that scores are not finite,
or that a mask has no pixel.
"""

import torch
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from torch import Tensor

from nib.checks import check_finite, to_real
from nib.heatmaps import upsample
from nib.metrics.registry import Case, Metric, Value
from nib.shapes import GridScores, PairValues


def pointing_game(scores: GridScores, masks: Tensor) -> PairValues:
    """Say whether the largest score lies on the object (Zhang et al., 2016).

    Where several pixels share the maximum, the result is the share of them that lie on the object.

        pointing_game(scores.image, masks).mean()
    """
    large, inside = _read(scores, masks)
    highest = large == large.amax((1, 2), keepdim=True)
    return (highest & inside).sum((1, 2)) / highest.sum((1, 2))


def auc(scores: GridScores, masks: Tensor) -> PairValues:
    """Return the area under the ROC curve of the map as a detector of the object's pixels.

    It is the probability that a pixel on the object scores higher than a pixel beside it, ties counting half: 0.5 is
    chance, and a constant map. Only the order of scores matters. A mask without background raises a ValueError.

        auc(scores.image, masks).mean()
    """
    large, inside = (part.flatten(1).cpu() for part in _read(scores, masks))
    if full := inside.all(1).nonzero()[:, 0].tolist():
        raise ValueError(f"every mask must leave at least one pixel of background, rows {full[:10]} leave none")
    return _area(large, inside, ~inside)


def selectivity(scores: GridScores, masks: Tensor, other_masks: Tensor) -> PairValues:
    """Return the area under the ROC curve of the map between the named object and the other ones.

    It is `auc` with the background left out: the probability that a pixel on the named object scores higher than a
    pixel on an object that is not named. A map that shows objects, whatever the text says, is at chance, 0.5.

        selectivity(scores.image, masks, other_masks).nanmean()

    Args:
        other_masks: where objects are seen that are not named, beside `masks`; NaN is returned where there is none.
    """
    large, inside = _read(scores, masks)
    beside = _read_masks(other_masks).to(inside.device)
    if beside.shape != inside.shape:
        raise ValueError(f"other_masks must be {tuple(inside.shape)}, as masks are, got {tuple(beside.shape)}")
    if both := (inside & beside).flatten(1).any(1).nonzero()[:, 0].tolist():
        raise ValueError(f"other_masks must be beside masks, and overlap them in rows {both[:10]}")
    return _area(*(part.flatten(1).cpu() for part in (large, inside, beside)))


def _area(large: Tensor, inside: Tensor, outside: Tensor) -> PairValues:
    """Return the share of pairs (in, out) with the first higher; all are (batch, pixels)."""
    seen = inside | outside
    ranks = torch.from_numpy(rankdata(torch.where(seen, large, -torch.inf).numpy(), axis=1))  # ties share their mean
    n_inside, n_outside, n_below = (each.sum(1).double() for each in (inside, outside, ~seen))
    higher = (ranks * inside).sum(1) - n_inside * (n_below + (n_inside + 1) / 2)
    return higher / (n_inside * n_outside)  # 0 / 0 without a pixel outside


def energy_inside(scores: GridScores, masks: Tensor) -> PairValues:
    """Return the share of the map's positive mass that lies on the object (Wang et al., 2020).

    The map is upsampled, and only then cut at zero: what pushes the similarity down is no evidence. A map without a
    positive score counts as a constant one, which gets the object's share of the picture.

        energy_inside(scores.image, masks).mean()
    """
    large, inside = _read(scores, masks)
    mass = large.clamp(min=0)
    mass = torch.where(mass.amax((1, 2), keepdim=True) > 0, mass, 1.0)
    return (mass * inside).sum((1, 2)) / mass.sum((1, 2))


def average_precision(scores: GridScores, masks: Tensor) -> PairValues:
    """Return the area under the precision-recall curve of the map as a detector of the object's pixels.

    Unlike `auc` it depends on how large the object is: a constant map gets the object's share of the picture. It is
    scikit-learn's `average_precision_score`.

        average_precision(scores.image, masks).mean()
    """
    large, inside = (part.flatten(1).cpu().numpy() for part in _read(scores, masks))
    return torch.tensor([average_precision_score(*row) for row in zip(inside, large)], dtype=torch.float64)


def iou_at_mean(scores: GridScores, masks: Tensor) -> PairValues:
    """Return intersection over union of the object with the pixels that score above the map's mean.

    It is 0 for a constant map, which has no such pixel.

        iou_at_mean(scores.image, masks).mean()
    """
    large, inside = _read(scores, masks)
    above = large > large.mean((1, 2), keepdim=True)
    return (above & inside).sum((1, 2)).double() / (above | inside).sum((1, 2)).double()


def put_on_masks(scores: GridScores, masks: Tensor) -> Tensor:
    """Upsample maps to the size of the masks, in float64, so that what is equal stays equal.

    Interpolation rounds: what was flat differs in its last digits. Twelve digits of the largest score are kept.
    """
    return _read(scores, masks)[0]


def _read(scores: GridScores, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps on the masks, see `put_on_masks`, and the masks, boolean; also of arrays and lists."""
    scores, masks = to_real("scores", scores).detach(), _read_masks(masks)
    if scores.ndim != 3 or masks.ndim != 3 or len(scores) != len(masks) or not scores.numel():
        raise ValueError(f"scores and masks must be (batch, ., .), got {tuple(scores.shape)}, {tuple(masks.shape)}")
    if empty := (~masks.flatten(1).any(1)).nonzero()[:, 0].tolist():
        raise ValueError(f"every mask must have at least one pixel, rows {empty[:10]} have none")
    check_finite("scores", scores)
    if scores.shape[1] > masks.shape[1] or scores.shape[2] > masks.shape[2]:
        raise ValueError(f"a map must not be finer than its mask, got {tuple(scores.shape)} and {tuple(masks.shape)}")
    scores = scores.double()
    sizes, there = scores.abs(), scores != 0
    kept = there & (sizes >= 1e-12 * sizes.amax((1, 2), keepdim=True))
    if lost := (2 * kept.sum((1, 2)) < there.sum((1, 2))).nonzero()[:, 0].tolist():
        raise ValueError(
            "most scores of a map must be at least 1e-12 of its largest, or rounding takes them for 0: so in rows"
            f" {lost[:10]}, whose largest are {[float(sizes[row].max()) for row in lost[:10]]}"
        )
    large = upsample(scores, masks.shape[1:])
    largest = large.abs().amax((1, 2), keepdim=True)
    large = torch.where(largest > 0, (large / largest).round(decimals=12) * largest, 0.0)
    return large, masks.to(large.device)


def _read_masks(masks: Tensor) -> Tensor:
    masks = to_real("masks", masks)
    if not masks.isfinite().all() or (masks < 0).any():
        raise ValueError("masks must be boolean or numbers, 0 where the object is not seen, got NaN or below 0")
    return masks.bool()


def _measure(case: Case) -> dict[str, PairValues]:
    image = case.scores.image_map.cpu()
    found = {function.__name__: function(image, case.masks) for function in AGAINST_THE_REST}
    return found | {"selectivity": selectivity(image, case.masks, case.other_masks)}


AGAINST_THE_REST = (pointing_game, auc, energy_inside, average_precision, iou_at_mean)
VALUES = {function.__name__: Value(True, "share") for function in (*AGAINST_THE_REST, selectivity)}
LOCALISATION = Metric(VALUES, _measure, needs="masks")
