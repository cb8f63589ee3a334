"""What every method returns."""

from dataclasses import dataclass

from nib.shapes import GridScores, PairValues, TokenScores


@dataclass
class Scores:
    """Signed scores of a batch of pairs, in the units of the method (cosine, for NIB).

    Attributes:
        image: (batch, grid_h, grid_w), the patches.
        text: (batch, tokens), begin and end included, zero at padding.
        similarity: (batch,), cosine of the two embeddings, in [-1, 1].
        image_class: (batch,), the class token, where the image tower has one. It is not on the
            map, and can carry most of the sum.
        image_gap, text_gap: (batch,), how far the sum of all scores of a modality misses what it
            should add up to; None where a method has no such sum.
    """

    image: GridScores
    text: TokenScores
    similarity: PairValues
    image_class: PairValues | None = None
    image_gap: PairValues | None = None
    text_gap: PairValues | None = None
