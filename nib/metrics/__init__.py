"""Measure how good a map is, and how steady.

`METRICS` maps the name of each metric to what `nib.evaluate`, tables and figures ask of it. A new one is a file with a
function and a `Metric`, and a line here.
"""

from nib.metrics.completeness import COMPLETENESS
from nib.metrics.confidence import CONFIDENCE, DIAGNOSTICS, confidence
from nib.metrics.dependence import DEPENDENCE, absent_prompt, infidelity, max_sensitivity, randomisation
from nib.metrics.localisation import (
    LOCALISATION,
    auc,
    average_precision,
    energy_inside,
    iou_at_mean,
    pointing_game,
    selectivity,
)
from nib.metrics.registry import Case, Metric, Value
from nib.metrics.removal import FAITHFULNESS, removal_curves
from nib.metrics.statistics import bootstrap_interval, compare, holm, summarise

# In the order of the rows of `nib.evaluate`.
METRICS = {
    "localisation": LOCALISATION,
    "completeness": COMPLETENESS,
    "faithfulness": FAITHFULNESS,
    **DEPENDENCE,
    "confidence": CONFIDENCE,
}
VALUES = {name: value for metric in METRICS.values() for name, value in metric.values.items()}
HIGHER_IS_BETTER = {name: higher for name, (higher, _) in VALUES.items() if higher is not None}

__all__ = ["DIAGNOSTICS", "HIGHER_IS_BETTER", "METRICS", "VALUES", "Case", "Metric", "Value"]
__all__ += ["absent_prompt", "confidence", "infidelity", "max_sensitivity", "randomisation", "removal_curves"]
__all__ += ["auc", "average_precision", "energy_inside", "iou_at_mean", "pointing_game", "selectivity"]
__all__ += ["bootstrap_interval", "compare", "holm", "summarise"]
