"""Measure how good a map is."""

from nib.metrics.localisation import bootstrap_interval, pointing_game

__all__ = ["bootstrap_interval", "pointing_game"]
