"""Explain a pair by the known pairs that lie nearest to it (Hossain et al.).

Exports `Exemplars`. An explanation is a list of examples: those whose embeddings have the smallest L2 distance. Their
captions say what the pair is taken for, their distances how far this can be trusted, and beyond a limit the answer
is that nothing is known. This follows the description of Hossain et al. in the NIB paper.

Left out: a reduction of the example set, and distances in other layers. The confidence is ours: the share of the
examples that are at least as far from their own nearest neighbour as the pair is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nib.shapes import Embeds


@dataclass
class Neighbours:
    """What is nearest to a batch of pairs.

    Attributes:
        rows: (batch, k), indices of examples, the nearest first.
        distances: (batch, k), L2, at least 0.
        confidence: (batch,), in (0, 1].
        known: (batch,) boolean; False where the answer is "no knowledge".
        weights: (batch, k), what each example counts, proportional to 1 / distance; they sum to 1.
    """

    rows: Tensor
    distances: Tensor
    confidence: Tensor
    known: Tensor
    weights: Tensor


class Exemplars:
    """Examples in the joint embedding space.

    Example:
        known = Exemplars(image_embeds, text_embeds)
        known.nearest(clip.image.embed(pixel_values), clip.text.embed(input_ids, attention_mask), k=5)

    Attributes:
        points: (examples, 2 * embed), normalised image embedding beside normalised text embedding.
        own: (examples,), the distance of each to its nearest neighbour.
    """

    def __init__(self, image_embeds: Embeds, text_embeds: Embeds, level: float = 0.05):
        """Keep the examples.

        Args:
            image_embeds, text_embeds: (examples, embed), at least two.
            level: nothing is known of a pair that is farther away than all but this share of the examples.

        Raises:
            ValueError: fewer than two examples, or a level outside (0, 1).
        """
        if len(image_embeds) < 2 or not 0 < level < 1:
            raise ValueError(f"needs 2 examples and a level in (0, 1), got {len(image_embeds)} and {level}")
        self.points = join(image_embeds, text_embeds)
        self.level = level
        between = torch.cdist(self.points, self.points, compute_mode="donot_use_mm_for_euclid_dist")
        self.own = between.fill_diagonal_(torch.inf).amin(1)

    @torch.no_grad()
    def nearest(self, image_embeds: Embeds, text_embeds: Embeds, k: int = 5) -> Neighbours:
        """Return the `k` nearest examples of each pair; see `Neighbours`.

        Raises:
            ValueError: `k` below 1 or above the number of examples.
        """
        if not 1 <= k <= len(self.points):
            raise ValueError(f"k must be from 1 to the {len(self.points)} examples, got {k}")
        pairs = join(image_embeds, text_embeds)
        between = torch.cdist(pairs, self.points, compute_mode="donot_use_mm_for_euclid_dist")  # (batch, examples)
        distances, rows = between.topk(k, largest=False)
        farther = (self.own[None] >= distances[:, :1]).sum(1)
        confidence = (1 + farther) / (1 + len(self.own))
        weights = 1 / distances.clamp(min=1e-9)
        return Neighbours(rows, distances, confidence, confidence > self.level, weights / weights.sum(1, keepdim=True))


def join(image_embeds: Embeds, text_embeds: Embeds) -> Tensor:
    """Put a pair into one space: (batch, 2 * embed)."""
    return torch.cat([normalize(image_embeds, dim=-1), normalize(text_embeds, dim=-1)], dim=-1)
