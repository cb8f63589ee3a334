"""Measure how good a map is."""

from nib.metrics.confidence import HIGHER_IS_BETTER as _CONFIDENCE
from nib.metrics.confidence import confidence
from nib.metrics.localisation import HIGHER_IS_BETTER as _LOCALISATION
from nib.metrics.localisation import auc, energy_inside, pointing_game
from nib.metrics.statistics import bootstrap_interval, compare, summarise

HIGHER_IS_BETTER = _CONFIDENCE | _LOCALISATION

__all__ = [
    "HIGHER_IS_BETTER",
    "auc",
    "bootstrap_interval",
    "compare",
    "confidence",
    "energy_inside",
    "pointing_game",
    "summarise",
]
