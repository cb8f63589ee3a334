"""Gradients of the similarity with respect to something in each tower, both in one pass."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.clip import HookedCLIP
from nib.methods.pairs import over_pairs, to_scores
from nib.methods.scores import Scores
from nib.shapes import HiddenStates, InputIds, PairValues


def similarity_gradients(embed_image, embed_text, image_inputs, text_inputs) -> tuple[PairValues, Tensor, Tensor]:
    """Return cos(embed_image(image_inputs), embed_text(text_inputs)), (batch,), and the gradients in both inputs.

    Neither tower's inputs reach the other's embedding, so one backward pass gives for each tower the gradient with the
    other embedding held fixed.
    """
    inputs = [values.detach().requires_grad_() for values in (image_inputs, text_inputs)]
    with torch.enable_grad():
        similarity = cosine_similarity(embed_image(inputs[0]), embed_text(inputs[1]))
    return similarity.detach(), *torch.autograd.grad(similarity.sum(), inputs)


def explain_inputs(clip, pixel_values, input_ids, attention_mask, score: Callable, batch_size: int) -> Scores:
    """Score patches and tokens by pixels, token embeddings and the gradients of the cosine in both.

    Args:
        score: from pixels, token embeddings, and the gradients in the shapes of the two, to patch
            scores (batch, grid_h, grid_w) and token scores (batch, tokens).
    """

    def explain(pixel_values, input_ids, attention_mask):
        text, tokens = clip.text.split(input_ids, 0, attention_mask), token_embeddings(clip, input_ids)
        pixels = pixel_values.expand(len(text), -1, -1, -1)

        def embed_text(embeddings):
            return text(clip.text.enter(embeddings, input_ids))

        similarity, *gradients = similarity_gradients(clip.image.embed, embed_text, pixels, tokens)
        scores = score(pixels, tokens, *gradients)
        return to_scores(clip, pixel_values, text.real, similarity, *scores)

    return over_pairs(explain, pixel_values, input_ids, attention_mask, batch_size)


@torch.no_grad()
def token_embeddings(clip: HookedCLIP, input_ids: InputIds) -> HiddenStates:
    """Look up the tokens, before positions are added: (batch, tokens, width)."""
    return clip.text.embeddings(input_ids)
