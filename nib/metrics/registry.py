"""What a metric is to `nib.evaluate`, to tables and to figures."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from torch import Tensor

from nib.clip import HookedCLIP
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, InputIds, PairValues, PixelValues

WRITABLE = ("inputs", "scores", "masks", "other_masks", "absent")  # a metric gets its own: it may write into them
NEEDS = (None, "masks", "absent")  # columns of pairs that only some metrics need


@dataclass
class Case:
    """The maps of one method for a batch of pairs, and what they are held against."""

    clip: HookedCLIP
    inputs: tuple[PixelValues, InputIds, AttentionMask]
    scores: Scores
    masks: Tensor | None = None  # (batch, height, width), where what the text names is seen
    other_masks: Tensor | None = None  # likewise of other objects
    absent: tuple[InputIds, AttentionMask] | None = None  # captions that name what is not there
    # Runs the method again, `explain(model=, pixel_values=, text=)`; None for a map that no method made.
    explain: Callable[..., Scores] | None = None


class Value(NamedTuple):
    """Which way a value is better, None for neither, and its unit."""

    higher_is_better: bool | None
    unit: str = ""


@dataclass(frozen=True)
class Metric:
    """A metric that `nib.evaluate` knows by its name in `nib.metrics.METRICS`.

    Attributes:
        values: what it measures, by name; a value that a case cannot be asked for may be missing.
        measure: from a `Case` to values, (batch,) each; None where `nib.evaluate` measures for each protocol.
        needs: the column of the pairs that it needs beside `id`, `image` and `text`.
    """

    values: Mapping[str, Value]
    measure: Callable[[Case], dict[str, PairValues]] | None
    needs: str | None = None

    def __post_init__(self):
        if self.needs not in NEEDS:
            raise ValueError(f"needs must be one of {list(NEEDS)}, got {self.needs!r}")

    def read(self, case: Case) -> dict[str, PairValues]:
        """Measure a case; a ValueError names a value that is not declared, or not one number a pair."""
        own = {part.name: copy.deepcopy(getattr(case, part.name)) for part in fields(case) if part.name in WRITABLE}
        found, pairs = self.measure(replace(case, **own)), len(case.inputs[1])
        for name, numbers in found.items():
            if name not in self.values or not isinstance(numbers, Tensor) or numbers.shape != (pairs,):
                shape = list(numbers.shape) if isinstance(numbers, Tensor) else type(numbers).__name__
                raise ValueError(
                    f"a metric must give tensors ({pairs},) named {list(self.values)}, got {name!r}: {shape}"
                )
        return {name: numbers.detach() for name, numbers in found.items()}


def check_metrics(known: Mapping[str, Metric], names: Sequence[str]) -> None:
    """Raise an error unless these are metrics that can be measured, no two of which give a value of one name."""
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(known[name], Metric):
            raise TypeError(f"METRICS[{name!r}] must be a nib.metrics.Metric, got {type(known[name]).__name__}")
        if known[name].measure is None and name != "confidence":
            raise ValueError(f"METRICS[{name!r}] must have a function that measures, got None")
        for value in known[name].values:
            if seen.setdefault(value, name) != name:
                raise ValueError(f"metrics {seen[value]} and {name} both give {value!r}: call one otherwise")
