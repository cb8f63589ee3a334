"""Run methods over pairs, measure their maps, and time them."""

from nib.evaluation.batches import Batch, Pairs, Setting, read_pairs
from nib.evaluation.parts import save_table
from nib.evaluation.released import attribute_text_to_batch
from nib.evaluation.run import METRICS, PROTOCOLS, evaluate
from nib.evaluation.speed import measure_fps

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Batch",
    "Pairs",
    "Setting",
    "attribute_text_to_batch",
    "evaluate",
    "measure_fps",
    "read_pairs",
    "save_table",
]
