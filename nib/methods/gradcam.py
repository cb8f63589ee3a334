"""Grad-CAM on the hidden states of a block (Selvaraju et al., ICCV 2017)."""

import torch
from torch import Tensor

from nib.checks import check_flag
from nib.clip import HookedCLIP
from nib.methods.gradients import similarity_gradients
from nib.methods.pairs import cut, over_pairs, to_scores
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, InputIds, PixelValues


def gradcam(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    *,
    layer: int | tuple[int, int] | None = None,
    pool_gradients: bool = False,
    batch_size: int = 64,
    seed: int = 0,
) -> Scores:
    """Score tokens by relu(sum over the width of gradient * activation) of their hidden states.

    The gradient is that of the cosine, the other embedding held fixed. As cited (Eq. 1 and 2 of
    Selvaraju et al.) the gradient is first averaged over positions, so that each channel has one
    weight: `pool_gradients=True`. The positions averaged over are the patches, and for text the
    tokens of the caption; the class token is no place on a map.

    Differs from the released code: nothing by default. That code does not pool the gradients, and
    what it calls layer 9 is the output of block 9, which is 10 here.

    Args:
        layer: blocks run before the hidden states, in both towers or in each; None for one more than 3/4 of them, 10
            of 12.
        pool_gradients: average the gradient over positions first.

    Returns:
        Scores, at least 0, in cosine units to first order.
    """
    check_flag("pool_gradients", pool_gradients)
    layers = clip.layers(layer, later=1)

    def explain(pixel_values, input_ids, attention_mask):
        """Explain some pairs: see `over_pairs`."""
        image, text = cut(clip, pixel_values, input_ids, attention_mask, *layers)
        states = image.hidden_states, text.hidden_states
        similarity, *gradients = similarity_gradients(image, text, *states)
        real = text.real
        if pool_gradients:
            patches = clip.image.from_grid(real.new_ones(len(real), *clip.grid(pixel_values)), False)
            gradients = [_average(gradient, places) for gradient, places in zip(gradients, (patches, real))]
        image_scores, text_scores = ((g * z).sum(-1).clamp(min=0) for g, z in zip(gradients, states))
        return to_scores(clip, pixel_values, real, similarity, image_scores, text_scores)

    return over_pairs(explain, pixel_values, input_ids, attention_mask, batch_size)


def _average(gradient: Tensor, places: Tensor) -> Tensor:
    """Average (batch, tokens, width) over the places (batch, tokens) that are True: (batch, 1, width)."""
    places = places[..., None]
    return torch.where(places, gradient, 0.0).sum(1, keepdim=True) / places.sum(1, keepdim=True)
