"""Take a token away and see what the similarity loses: what a score ought to say.

Exports `drops_without_states`, `drops_without_patches` and `drops_without_words`. The NIB paper says of M2IB that its
scores have a weak link with the output; these are what the link is measured against.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.clip import HookedCLIP
from nib.evaluation import Batch
from nib.shapes import Embeds, PixelValues, TokenScores
from nib.towers import Split
from studies.negatives import patch_removal, word_removal


@torch.no_grad()
def drops_without_states(split: Split, targets: Embeds) -> TokenScores:
    """Set the state of one token at a time to zero.

    Zero is where NIB's path starts, so this removal shares NIB's own idea of absence.

    Args:
        split: the tower, cut, with the batch of inputs in it.
        targets: (batch, embed), the other modality's embeddings.

    Returns:
        F(z) - F(z without the token), (batch, tokens), positive where the token raised the similarity.
    """
    z = split.hidden_states
    full = cosine_similarity(split(z), targets, dim=-1)
    drops = []
    for token in range(z.shape[1]):
        without = z.clone()
        without[:, token] = 0
        drops.append(full - cosine_similarity(split(without), targets, dim=-1))
    return torch.stack(drops, 1)


def drops_without_patches(clip: HookedCLIP, pairs: Batch) -> Tensor:
    """Paint one patch of the input at a time in the mean colour, which is foreign to every method.

    Returns:
        (batch, patches), what the similarity loses, in cosine units.
    """
    grid = clip.grid(pairs.pixel_values)
    single = torch.eye(grid[0] * grid[1], dtype=torch.bool).unflatten(1, grid)  # (patches, grid_h, grid_w)
    return -patch_removal(clip, *pairs.arguments(), single.expand(len(pairs.input_ids), -1, -1, -1))


def drops_without_words(clip: HookedCLIP, pixel_values: PixelValues, words: Sequence[Sequence[str]]) -> Tensor:
    """Drop one word of the caption at a time.

    Args:
        pixel_values: (batch, channels, height, width).
        words: of each caption, at least 2, as in `Attribution`.

    Returns:
        (batch, words of the longest caption), what the similarity loses, in cosine units; 0 after the last word.
    """
    longest = max(map(len, words))
    single = torch.stack([torch.eye(longest) * (torch.arange(longest) < len(row)) for row in words]).bool()
    return torch.where(single.any(2), -word_removal(clip, pixel_values, words, single), 0)
