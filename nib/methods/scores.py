"""What every method returns: `Scores`, and `SUMS`, those of its fields that say how far scores add up."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from nib.shapes import GridScores, PairValues, PixelScores, TokenScores

SUMS = tuple(f"{side}_{name}" for side in ("image", "text") for name in ("difference", "gap", "gap_from_zero"))


@dataclass
class Scores:
    """Signed scores of a batch of pairs, in the units of the method (cosine, for NIB).

    Attributes:
        image: (batch, grid_h, grid_w), the patches.
        text: (batch, tokens), begin and end included, zero at padding.
        similarity: (batch,), cosine of the two embeddings, in [-1, 1].
        image_class: (batch,), the class token, which is not on the map and can carry most of the sum; None where the
            image tower has none, or the method reads pixels.
        image_difference, text_difference: (batch,), what all scores of a modality should add up to: for NIB with the
            zero baseline F(z) - F(lambda_min z). These and the gaps are None where a method has no such sum.
        image_gap, text_gap: (batch,), how far the sum misses that.
        image_gap_from_zero, text_gap_from_zero: (batch,), how far it misses F(z) - F(baseline), the whole path's.
        image_pixels: (batch, height, width), the map at pixels, where the method has one (RISE); `image` is then its
            mean in each patch.
    """

    image: GridScores
    text: TokenScores
    similarity: PairValues
    image_class: PairValues | None = None
    image_difference: PairValues | None = None
    text_difference: PairValues | None = None
    image_gap: PairValues | None = None
    text_gap: PairValues | None = None
    image_gap_from_zero: PairValues | None = None
    text_gap_from_zero: PairValues | None = None
    image_pixels: PixelScores | None = None

    @classmethod
    def join(cls, parts: Sequence["Scores"]) -> "Scores":
        """Put the scores of several batches one after another."""
        values = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{name: None if column[0] is None else torch.cat(column) for name, column in values.items()})

    @property
    def image_map(self) -> GridScores | PixelScores:
        """The finest map that there is: at pixels, else on the patch grid."""
        return self.image if self.image_pixels is None else self.image_pixels
