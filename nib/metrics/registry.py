"""What a metric is to `nib.evaluate`, to tables and to figures.

Exports `Metric` and `Value`, what `nib.metrics.METRICS` holds, and `Case`, what a metric measures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from nib.clip import HookedCLIP
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, InputIds, PairValues, PixelValues

NEEDS = (None, "masks", "absent")  # columns of pairs that only some metrics need


@dataclass
class Case:
    """The maps of one method for a batch of pairs, and what they are held against.

    Attributes:
        inputs: pixel values, token ids and their mask, which every method takes.
        masks, other_masks: (batch, height, width), where what the text names is seen, and where other objects are.
        absent: token ids and mask of captions that name what is not there.
        explain: runs the method again, `explain(model=, pixel_values=, text=)`; None for a map that no method made.
    """

    clip: HookedCLIP
    inputs: tuple[PixelValues, InputIds, AttentionMask]
    scores: Scores
    masks: Tensor | None = None
    other_masks: Tensor | None = None
    absent: tuple[InputIds, AttentionMask] | None = None
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
        found, pairs = self.measure(case), len(case.inputs[1])
        for name, numbers in found.items():
            if name not in self.values or not isinstance(numbers, Tensor) or numbers.shape != (pairs,):
                shape = list(numbers.shape) if isinstance(numbers, Tensor) else type(numbers).__name__
                raise ValueError(
                    f"a metric must give tensors ({pairs},) named {list(self.values)}, got {name!r}: {shape}"
                )
        return found
