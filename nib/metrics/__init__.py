"""Measure how good a map is, and how steady."""

from nib.metrics.localisation import auc, bootstrap_interval, energy_inside, pointing_game
from nib.metrics.randomness import Variation, run_to_run

__all__ = ["Variation", "auc", "bootstrap_interval", "energy_inside", "pointing_game", "run_to_run"]
