"""MFABA: more faithful and accelerated boundary-based attribution (Zhu et al., AAAI 2024)."""

import torch
from torch.nn.functional import cosine_similarity

from nib.checks import check_count, check_number
from nib.methods.gradients import token_embeddings
from nib.methods.pairs import cut, over_pairs, to_scores
from nib.methods.scores import Scores
from nib.shapes import TokenScores


def mfaba(
    clip, pixel_values, input_ids, attention_mask=None, *, n_steps=10, step_size=0.01, batch_size=64, seed=0
) -> Scores:
    """Attribute along sign steps that lower the similarity: - sum over t of (x_{t+1} - x_t) * dF(x_t).

    x_{t+1} = x_t - step_size * sign(dF(x_t)), F the cosine, the other embedding held fixed. For the image x are the
    class and patch embeddings with their positions, before the first layer norm; for the text, the token embeddings.

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
        image, text = cut(clip, pixel_values, input_ids, attention_mask, 0, 0)
        with torch.no_grad():
            patches = clip.image.embeddings(pixel_values)  # (1 or batch, tokens, width)
            image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
        patches = patches.expand(len(text), -1, -1)
        image_scores = _descend(lambda x: image(clip.image.enter(x)), patches, text_embeds, n_steps, step_size)
        tokens = token_embeddings(clip, input_ids)
        text_scores = _descend(lambda x: text(clip.text.enter(x, input_ids)), tokens, image_embeds, n_steps, step_size)
        similarity = cosine_similarity(image_embeds, text_embeds)
        return to_scores(clip, pixel_values, text.real, similarity, image_scores, text_scores)

    return over_pairs(explain, pixel_values, input_ids, attention_mask, batch_size)


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
