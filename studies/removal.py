"""Take a token away and see what the similarity loses: what a score ought to say.

Exports `drops_without_states`. The NIB paper says of M2IB that its scores have a weak link with the
output; this is one thing that the link is measured against. (`studies.negatives` removes patches
and words from the input instead.)
"""

import torch
from torch.nn.functional import cosine_similarity

from nib.shapes import Embeds, TokenScores
from nib.towers import Split


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
