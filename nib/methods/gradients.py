"""Gradients of the similarity with respect to something in each tower, both in one pass.

Exports `similarity_gradients` and `token_embeddings`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.clip import HookedCLIP
from nib.shapes import HiddenStates, InputIds, PairValues


def similarity_gradients(
    embed_image: Callable[[Tensor], Tensor],
    embed_text: Callable[[Tensor], Tensor],
    image_inputs: Tensor,
    text_inputs: Tensor,
) -> tuple[PairValues, Tensor, Tensor]:
    """Differentiate cos(embed_image(image_inputs), embed_text(text_inputs)) of each pair.

    Neither tower's inputs reach the other's embedding, so one backward pass gives for each tower
    the gradient with the other embedding held fixed.

    Args:
        embed_image, embed_text: from inputs to (batch, embed), such as a `nib.clip.Split`.
        image_inputs, text_inputs: one row a pair.

    Returns:
        The cosines (batch,), and the gradients in the shapes of the inputs.
    """
    inputs = [values.detach().requires_grad_() for values in (image_inputs, text_inputs)]
    with torch.enable_grad():
        similarity = cosine_similarity(embed_image(inputs[0]), embed_text(inputs[1]))
    return similarity.detach(), *torch.autograd.grad(similarity.sum(), inputs)


@torch.no_grad()
def token_embeddings(clip: HookedCLIP, input_ids: InputIds) -> HiddenStates:
    """Look up the tokens, before positions are added: (batch, tokens, width).

    The states that enter the first block differ from these by a constant, so a gradient with
    respect to those states is a gradient with respect to these.
    """
    return clip.model.text_model.embeddings.token_embedding(input_ids)
