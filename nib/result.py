"""What an attribution says about one pair.

Exports `Attribution` and `to_heatmap`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from nib.plotting import plot_attribution
from nib.shapes import GridScores
from nib.upsample import upsample


def to_heatmap(scores: GridScores, size: tuple[int, int]) -> torch.Tensor:
    """Upsample maps and stretch each to [0, 1], as the confidence metrics use them.

    A constant map has nothing to say: its heat map is all ones, which masks nothing.

    Args:
        scores: (batch, grid_h, grid_w).
        size: (height, width) in pixels.

    Returns:
        (batch, height, width) in [0, 1].
    """
    large = upsample(scores, size)
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    varies = (scores != scores[:, :1, :1]).any((1, 2), keepdim=True)  # interpolation rounds: a flat map may not stay so
    return torch.where(varies & (high > low), (large - low) / (high - low), 1.0)


@dataclass
class Attribution:
    """Signed scores of the patches of one picture and the words of one caption.

    For NIB they are in cosine units: positive scores raise the similarity, negative ones lower it.

    Attributes:
        image_scores: (grid_h, grid_w).
        image_class_score: score of the class token, which is not on the map; None without one.
        tokens, token_scores: all tokens, begin and end included, and (tokens,) scores.
        words, word_scores: words, and (words,) sums over each word's tokens; begin and end left out.
        similarity: cosine of the two embeddings.
        image_difference, text_difference: what all scores of a modality should add up to: F(z) - F(lambda_min z)
            (Theorem 3 of the NIB paper). These and the gaps are None for methods without such a sum.
        image_gap, text_gap: sum of all scores less that difference.
        image_gap_from_zero, text_gap_from_zero: sum of all scores less F(z) - F(0); where the path begins at
            lambda_min > 0 the scores leave out what the stretch below it explains.
        picture: (height, width, 3) uint8, what the model saw.
        text: the caption.
        method, parameters: what computed it.
    """

    image_scores: np.ndarray
    image_class_score: float | None
    tokens: list[str]
    token_scores: np.ndarray
    words: list[str]
    word_scores: np.ndarray
    similarity: float
    image_difference: float | None
    text_difference: float | None
    image_gap: float | None
    text_gap: float | None
    image_gap_from_zero: float | None
    text_gap_from_zero: float | None
    picture: np.ndarray = field(repr=False)
    text: str
    method: str
    parameters: dict[str, Any]

    @property
    def begin_score(self) -> float:
        """Score of the token before the first word."""
        return float(self.token_scores[0])

    @property
    def end_score(self) -> float:
        """Score of the token after the last word, which CLIP pools."""
        return float(self.token_scores[-1])

    def heatmap(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Give the map as (height, width) in [0, 1], by default at the size of the picture."""
        scores = torch.as_tensor(self.image_scores)[None]
        return to_heatmap(scores, size or self.picture.shape[:2])[0].numpy()

    def plot(self) -> Figure:
        """Show the picture, the signed map and the signed words; zero is neutral.

        For NIB the caption says what the scores of each side add up to, and how far they miss F(z) - F(lambda_min z)
        and F(z) - F(0).
        """
        title = f'{self.method}: "{self.text}"   similarity {self.similarity:.3f}'
        if self.image_gap is not None:
            title += "".join(f"\n{self._describe_sum(number, side)}" for number, side in enumerate(("image", "text")))
        return plot_attribution(self.picture, self.image_scores, self.words, self.word_scores, title)

    def _describe_sum(self, number: int, side: str) -> str:
        difference, gap = getattr(self, f"{side}_difference"), getattr(self, f"{side}_gap")
        from_zero = getattr(self, f"{side}_gap_from_zero")
        total = difference + gap
        start = self.parameters["lambda_min"]
        start = start[number] if isinstance(start, (tuple, list)) else start
        words = f"{side} scores add up to {total:+.3f}; "
        if start:
            words += f"F(z) - F({start:g} z) is {difference:+.3f}, gap {gap:+.3f}; "
        return words + f"F(z) - F(0) is {total - from_zero:+.3f}, gap {from_zero:+.3f}"

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the picture as plain numbers, strings and lists, ready for JSON."""
        values = {name: value for name, value in vars(self).items() if name != "picture"}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
