"""Narrowing Information Bottleneck attribution for CLIP, and what it is measured against."""

from nib import datasets
from nib.attribution import attribute
from nib.clip import HookedCLIP, load
from nib.evaluation import evaluate, save_table
from nib.methods import METHODS, PRESETS, Scores
from nib.plotting import save_figure
from nib.result import Attribution

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "PRESETS",
    "Attribution",
    "HookedCLIP",
    "Scores",
    "attribute",
    "datasets",
    "evaluate",
    "load",
    "save_figure",
    "save_table",
]
