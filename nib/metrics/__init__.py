"""Measure how good a map is, and how steady."""

from nib.metrics.confidence import DIAGNOSTICS, confidence
from nib.metrics.confidence import HIGHER_IS_BETTER as _CONFIDENCE
from nib.metrics.localisation import HIGHER_IS_BETTER as _LOCALISATION
from nib.metrics.localisation import auc, energy_inside, pointing_game, selectivity
from nib.metrics.statistics import bootstrap_interval, compare, holm, summarise

HIGHER_IS_BETTER = _CONFIDENCE | _LOCALISATION

__all__ = [
    "DIAGNOSTICS",
    "HIGHER_IS_BETTER",
    "auc",
    "bootstrap_interval",
    "compare",
    "confidence",
    "energy_inside",
    "holm",
    "pointing_game",
    "selectivity",
    "summarise",
]
