"""Say how far scores add up: `COMPLETENESS`, the `Sums` of both sides."""

from nib.methods.scores import Sums
from nib.metrics.registry import Case, Metric, Value
from nib.shapes import PairValues


def _measure(case: Case) -> dict[str, PairValues]:
    sums = {"image": case.scores.image_sums, "text": case.scores.text_sums}
    there = {side: of_side._asdict() for side, of_side in sums.items() if of_side is not None}
    return {f"{side}_{name}": values for side, of_side in there.items() for name, values in of_side.items()}


VALUES = {f"{side}_{name}": Value(None, "cosine") for side in ("image", "text") for name in Sums._fields}
COMPLETENESS = Metric(VALUES, _measure)
