"""Attention relevance of Chefer, Gur and Wolf (ICCV 2021), of the last block or rolled out."""

import torch

from nib.methods.attention import explain_attention
from nib.methods.scores import Scores


def chefer(clip, pixel_values, input_ids, attention_mask=None, *, start_layer=None, batch_size=64, seed=0) -> Scores:
    """Score tokens by attention times its positive gradient, A_bar = mean over heads of (A * d logit / d A)+.

    With a `start_layer` these are rolled out as the authors define it (Eq. 5 and 6): R = I, and R <- R + A_bar R for
    each block from `start_layer` on. The score of token j is R[pooled, j], the pooled token's own 1 from the identity
    included. The released code of the NIB paper takes the last block alone, without the identity, which is the default
    here: its tables measure that, not the rollout. See `nib.methods.attention`. Scores are at least 0, in logit units.

    Args:
        start_layer: first block of the rollout, in both towers, from 0 to the number of blocks less 1; None for A_bar
            of the last block alone.
    """

    def relevance(attentions, gradients):
        positive = [(a * g).clamp(min=0).mean(1) for a, g in zip(attentions, gradients)]
        if start_layer is None:
            return positive[-1]
        total = torch.eye(positive[0].shape[-1], dtype=positive[0].dtype, device=positive[0].device)
        for each in positive:
            passed = each @ total
            total = total + passed if each.shape[1] == each.shape[2] else passed  # a pooling head has one query
        return total

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size, start_layer)
