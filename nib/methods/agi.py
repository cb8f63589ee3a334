"""Adversarial gradient integration (Pan, Li and Zhu, IJCAI 2021)."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity, normalize

from nib.checks import check_count, check_number
from nib.methods.gradients import token_embeddings
from nib.methods.pairs import batches, check_pairs, embed_pairs, to_scores
from nib.methods.scores import Scores
from nib.shapes import Embeds


def agi(
    clip, pixel_values, input_ids, attention_mask=None, *, n_others=5, n_steps=15, step_size=0.05, batch_size=64, seed=0
) -> Scores:
    """Integrate the gradient on the way to what the input could be mistaken for, instead of from a baseline.

    For each of the other captions of the call that are most similar to the picture, the picture walks up its similarity
    G with that caption by sign steps, x <- x + step_size sign(dG), until G is above its similarity F with its own; and
    what F loses on the way, minus the sum of dF times the steps, is added to the map. A caption walks likewise towards
    other pictures of the call, in its token embeddings. A single pair has no others: it walks to where F falls, G = -F.

    So a map depends on the pairs that are explained together; give the same call the same pairs. Scores are signed, in
    cosine units: patches sum over their pixels, words over their embeddings.

    Args:
        n_others: captions, and pictures, that are walked to, at least 1; all where there are fewer.
        n_steps: steps of a walk, at least 1.
        step_size: of a step in each element, more than 0, in units of normalised pixels and of token embeddings.
    """
    check_count("n_others", n_others, limit="nodes")
    check_count("n_steps", n_steps, limit="nodes")
    step_size = check_number("step_size", step_size, 0, open_end=True)
    check_pairs(pixel_values, input_ids, attention_mask, batch_size)
    image_embeds, text_embeds = embed_pairs(clip, pixel_values, input_ids, attention_mask, batch_size)
    similarity, patch, parts = cosine_similarity(image_embeds, text_embeds), clip.image.patch, []
    to_texts = _choose(image_embeds, text_embeds, n_others)
    to_images = _choose(text_embeds, image_embeds, n_others)
    for rows, pictures, ids, mask in batches(pixel_values, input_ids, attention_mask, batch_size):
        text, pictures = clip.text.split(ids, 0, mask), pictures.expand(len(ids), -1, -1, -1)

        def embed_text(embeddings, text=text, ids=ids):
            return text(clip.text.enter(embeddings, ids))

        tokens = token_embeddings(clip, ids)
        pixels = _walk(clip.image.embed, pictures, text_embeds[rows], to_texts[:, rows], n_steps, step_size).sum(1)
        words = _walk(embed_text, tokens, image_embeds[rows], to_images[:, rows], n_steps, step_size).sum(-1)
        patches = avg_pool2d(pixels[:, None], patch)[:, 0] * patch**2
        parts.append(to_scores(clip, pictures, text.real, similarity[rows], patches, words))
    return Scores.join(parts)


def _choose(embeds: Embeds, others: Embeds, n_others: int) -> Tensor:
    """Return for each input the most similar of the others, its own left out: (others, batch, embed).

    Others that are the same as the own one are no others; where none is left, the opposite of the own one is.
    """
    similarity = normalize(embeds, dim=-1) @ normalize(others, dim=-1).T  # (batch, batch)
    same = (normalize(others, dim=-1) @ normalize(others, dim=-1).T) > 1 - 1e-6
    ranked = similarity.masked_fill(same, -torch.inf).topk(min(n_others, len(others)), dim=1)
    chosen = others[ranked.indices.T]  # (others, batch, embed)
    is_other = (-torch.inf < ranked.values.T)[..., None]
    fallback = torch.where(is_other.any(0), torch.zeros_like(others), -others)  # zero: a walk that goes nowhere
    first = torch.where(is_other[:1], chosen[:1], fallback)
    return torch.cat([first, torch.where(is_other[1:], chosen[1:], 0.0)])


def _walk(embed, inputs: Tensor, own: Embeds, others: Tensor, n_steps: int, step_size: float) -> Tensor:
    """Add up what the own similarity loses on the way to each of the others, in the shape of the inputs."""
    total = torch.zeros_like(inputs)
    for other in others:
        x, going = inputs.detach(), other.norm(dim=-1) > 0
        for _ in range(n_steps):
            if not going.any():
                break
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                embeds = embed(x)
                near, far = cosine_similarity(embeds, own), cosine_similarity(embeds, other)
            (to_own,) = torch.autograd.grad(near.sum(), x, retain_graph=True)
            (to_other,) = torch.autograd.grad(far.sum(), x)
            going = going & (near > far).detach()
            step = step_size * to_other.sign() * going.to(x).view(-1, *[1] * (x.ndim - 1))
            total = total - to_own * step
            x = x + step
    return total
