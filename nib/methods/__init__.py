"""The attribution methods. `METHODS` maps the name of each to its function; all share one signature."""

from nib.methods.nib import nib
from nib.methods.scores import Scores

METHODS = {"nib": nib}

__all__ = ["METHODS", "Scores"]
