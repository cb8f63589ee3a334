"""Measure how good a map is, and how steady."""

from nib.metrics.confidence import DIAGNOSTICS, confidence
from nib.metrics.confidence import HIGHER_IS_BETTER as _CONFIDENCE
from nib.metrics.faithfulness import HIGHER_IS_BETTER as _FAITHFULNESS
from nib.metrics.faithfulness import absent_prompt, infidelity, max_sensitivity, randomisation
from nib.metrics.localisation import HIGHER_IS_BETTER as _LOCALISATION
from nib.metrics.localisation import auc, average_precision, energy_inside, iou_at_mean, pointing_game, selectivity
from nib.metrics.removal import HIGHER_IS_BETTER as _REMOVAL
from nib.metrics.removal import removal_curves
from nib.metrics.statistics import bootstrap_interval, compare, holm, summarise

HIGHER_IS_BETTER = _CONFIDENCE | _LOCALISATION | _REMOVAL | _FAITHFULNESS

__all__ = [
    "DIAGNOSTICS",
    "HIGHER_IS_BETTER",
    "absent_prompt",
    "auc",
    "average_precision",
    "bootstrap_interval",
    "compare",
    "confidence",
    "energy_inside",
    "holm",
    "infidelity",
    "iou_at_mean",
    "max_sensitivity",
    "pointing_game",
    "randomisation",
    "removal_curves",
    "selectivity",
    "summarise",
]
