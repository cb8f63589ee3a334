"""Say how far scores add up: `COMPLETENESS`, what `nib.Scores` holds of sums and gaps."""

from nib.methods.scores import SUMS
from nib.metrics.registry import Case, Metric, Value
from nib.shapes import PairValues


def _measure(case: Case) -> dict[str, PairValues]:
    found = {name: getattr(case.scores, name) for name in SUMS}
    return {name: values for name, values in found.items() if values is not None}


COMPLETENESS = Metric({name: Value(None, "cosine") for name in SUMS}, _measure)
