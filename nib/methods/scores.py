"""What every method returns: `Scores`, and in them `Sums`, which say how far the scores of a side add up."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from nib.shapes import GridScores, PairValues, PixelScores, TokenScores


class Sums(NamedTuple):
    """What all scores of one side should add up to by Theorem 3, and how far they miss it.

    Attributes:
        difference: F(z) - F(lambda_min z) where the path begins at zero, F(z) - F(b + lambda_min (z - b)) where at b.
        gap: the sum of all scores less that.
        gap_from_zero: the sum of all scores less F(z) - F(b): what a path that begins at lambda_min leaves out counts.
    """

    difference: PairValues | float
    gap: PairValues | float
    gap_from_zero: PairValues | float


@dataclass
class Scores:
    """Signed scores of a batch of pairs, in the units of the method (cosine, for NIB).

    Attributes:
        image: (batch, grid_h, grid_w), the patches.
        text: (batch, tokens), begin and end included, zero at padding.
        similarity: (batch,), cosine of the two embeddings, in [-1, 1].
        image_class: (batch,), the class token, which is not on the map and can carry most of the sum; None where the
            image tower has none, or the method gives it no score.
        image_sums, text_sums: `Sums` of (batch,); None where a method has none.
        image_pixels: (batch, height, width), the map at pixels, where the method has one (RISE); `image` is then its
            mean in each patch.
    """

    image: GridScores
    text: TokenScores
    similarity: PairValues
    image_class: PairValues | None = None
    image_sums: Sums | None = None
    text_sums: Sums | None = None
    image_pixels: PixelScores | None = None

    @classmethod
    def join(cls, parts: Sequence["Scores"]) -> "Scores":
        """Put the scores of several batches one after another."""

        def put(values: Sequence) -> Tensor | Sums | None:
            if isinstance(values[0], Sums):
                return Sums(*map(put, zip(*values)))
            return None if values[0] is None else torch.cat(list(values))

        return cls(**{field.name: put([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    @property
    def image_map(self) -> GridScores | PixelScores:
        """The finest map that there is: at pixels, else on the patch grid."""
        return self.image if self.image_pixels is None else self.image_pixels
