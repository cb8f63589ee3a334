"""Score tokens by gradients of the similarity in hidden states, pixels or token embeddings, both towers in one pass."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity

from nib.checks import check_count, check_flag, check_number
from nib.clip import HookedCLIP
from nib.methods.pairs import average, explain_in_batches, find_patches, split_towers, to_scores
from nib.methods.scores import Scores
from nib.shapes import HiddenStates, InputIds, PairValues, TokenScores


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

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


@torch.no_grad()
def token_embeddings(clip: HookedCLIP, input_ids: InputIds) -> HiddenStates:
    """Look up the tokens, before positions are added: (batch, tokens, width)."""
    return clip.text.embeddings(input_ids)


def gradcam(
    clip, pixel_values, input_ids, attention_mask=None, *, layer=None, pool_gradients=False, batch_size=64, seed=0
) -> Scores:
    """Score tokens by relu(sum over the width of gradient * activation) of their hidden states.

    The gradient is that of the cosine, the other embedding held fixed. As cited (Selvaraju et al., Grad-CAM, ICCV 2017,
    Eq. 1 and 2) it is first averaged over positions, so that each channel has one weight: `pool_gradients=True`, which
    the released code does not do. The positions averaged over are the patches, and for text the tokens of the caption;
    the class token is no place on a map. Scores are at least 0, in cosine units to first order.
    """
    check_flag("pool_gradients", pool_gradients)
    layers = clip.layers(layer, later=1)

    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
        states = image.hidden_states, text.hidden_states
        similarity, *gradients = similarity_gradients(image, text, *states)
        if pool_gradients:
            places = find_patches(image), text.real
            gradients = [average(*of_tower) for of_tower in zip(gradients, places)]
        image_scores, text_scores = ((g * z).sum(-1).clamp(min=0) for g, z in zip(gradients, states))
        return to_scores(clip, pixel_values, text.real, similarity, image_scores, text_scores)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def pixel_gradient(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score pixels by the largest absolute gradient of the cosine over the channels, patches by their mean.

    Saliency as it is cited (Simonyan et al., ICLR workshop 2014). A word has no pixels: its score is the sum over the
    width of the absolute gradient with respect to its token embedding. The other embedding is held fixed. What the
    released code calls a saliency map is `saliency`. Scores are at least 0: cosine per unit of a normalised pixel, or
    of an embedding.
    """

    def score(pixels, embeddings, pixel_gradients, embedding_gradients):
        return avg_pool2d(pixel_gradients.abs().amax(1), clip.image.patch), embedding_gradients.abs().sum(-1)

    return explain_inputs(clip, pixel_values, input_ids, attention_mask, score, batch_size)


def input_x_gradient(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score patches by the sum of pixel * gradient of the cosine, words by that of their embeddings.

    Shrikumar et al., 2016; FastIG as it is cited (Hesse et al., NeurIPS 2021). Patches sum over their pixels and
    channels, words over the width of the token embedding, before positions are added. The other embedding is held
    fixed. For a network without biases this is integrated gradients from zero in one pass; CLIP has biases. What the
    released code calls FastIG is `fast_ig`. Scores are signed, in cosine units to first order, against the mean colour
    and a zero embedding.
    """
    patch = clip.image.patch

    def score(pixels, embeddings, pixel_gradients, embedding_gradients):
        patches = avg_pool2d((pixels * pixel_gradients).sum(1), patch) * patch**2
        return patches, (embeddings * embedding_gradients).sum(-1)

    return explain_inputs(clip, pixel_values, input_ids, attention_mask, score, batch_size)


def mfaba(
    clip, pixel_values, input_ids, attention_mask=None, *, n_steps=10, step_size=0.01, batch_size=64, seed=0
) -> Scores:
    """Attribute along sign steps that lower the similarity: - sum over t of (x_{t+1} - x_t) * dF(x_t).

    x_{t+1} = x_t - step_size * sign(dF(x_t)), F the cosine, the other embedding held fixed (Zhu et al., MFABA, AAAI
    2024). For the image x are the class and patch embeddings with their positions, before the first layer norm; for the
    text, the token embeddings.

    Differs from the released code: there the steps of the text move the whole embedding table, so that a token that
    occurs twice moves by the sign of the summed gradient; here each position moves by its own. There the text is on the
    logit, which multiplies its scores by exp(logit_scale) and changes no step. Scores are at least 0, in cosine units:
    to first order what all steps together take away.

    Args:
        n_steps: steps, at least 1; the paper's default.
        step_size: of a step in each element, more than 0, in units of the embeddings; the paper's default.
    """
    check_count("n_steps", n_steps, limit="nodes")
    step_size = check_number("step_size", step_size, 0, open_end=True)

    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, 0, 0)
        with torch.no_grad():
            patches = clip.image.embeddings(pixel_values)  # (1 or batch, tokens, width)
            image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
        patches = patches.expand(len(text), -1, -1)
        image_scores = _descend(lambda x: image(clip.image.enter(x)), patches, text_embeds, n_steps, step_size)
        tokens = token_embeddings(clip, input_ids)
        text_scores = _descend(lambda x: text(clip.text.enter(x, input_ids)), tokens, image_embeds, n_steps, step_size)
        similarity = cosine_similarity(image_embeds, text_embeds)
        return to_scores(clip, pixel_values, text.real, similarity, image_scores, text_scores)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def _descend(embed, x, targets, n_steps: int, step_size: float) -> TokenScores:
    """Take the steps and add up what each takes away, summed over the width: (batch, tokens)."""
    scores = torch.zeros(x.shape[:2], dtype=x.dtype, device=x.device)
    for _ in range(n_steps):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            similarity = cosine_similarity(embed(x), targets)
        (gradient,) = torch.autograd.grad(similarity.sum(), x)
        change = -step_size * gradient.sign()
        scores -= (change * gradient).sum(-1)
        x = x + change
    return scores
