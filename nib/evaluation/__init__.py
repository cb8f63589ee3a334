"""Run methods over pairs and measure their maps."""

from nib.evaluation.batches import Batch, Pairs, Setting, read_pairs
from nib.evaluation.released import attribute_text_to_batch
from nib.evaluation.run import evaluate
from nib.evaluation.work import PROTOCOLS
from nib.metrics import METRICS

__all__ = ["METRICS", "PROTOCOLS", "Batch", "Pairs", "Setting", "attribute_text_to_batch", "evaluate", "read_pairs"]
