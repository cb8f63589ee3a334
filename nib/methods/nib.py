"""Narrowing Information Bottleneck attribution (Zhu et al., ICLR 2025, Eq. 10)."""

import torch
from torch.nn.functional import cosine_similarity

from nib.clip import HookedCLIP
from nib.methods.scores import Scores
from nib.narrowing import integrate
from nib.shapes import AttentionMask, InputIds, PixelValues


def nib(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    *,
    layer: int = 9,
    n_steps: int = 10,
    quadrature: str = "riemann_right",
    lambda_min: float = 0.0,
    batch_size: int = 64,
    seed: int = 0,
) -> Scores:
    """Explain the similarity of pairs by narrowing one tower at a time, the other held fixed.

    Differs from the released code: the text is explained against the image of its own pair, not
    against the mean over all images of the batch; the class token's score is kept beside the map.

    Args:
        pixel_values: (batch, channels, height, width); one picture serves all captions, and its
            forward passes along the path are then shared.
        input_ids: (batch, tokens), with begin and end.
        attention_mask: (batch, tokens), 1 at tokens; None where nothing is padded.
        layer: blocks run before the bottleneck, in both towers; the paper's default.
        n_steps: nodes of the path; the paper's default.
        quadrature: one of `nib.quadrature.RULES`; the paper's is the right Riemann sum.
        lambda_min: where the path starts, in [0, 1); 0 is the paper's.
        batch_size: rows of hidden states at once; bounds memory.
        seed: unused, nothing here is random.

    Returns:
        Scores in cosine units. `image_gap` is the sum of all image scores, class token included,
        less F(z) - F(lambda_min z); `text_gap` likewise.

    Raises:
        ValueError: a parameter out of its range, or batches that do not pair up.
    """
    pictures, captions = len(pixel_values), len(input_ids)
    if pictures not in (1, captions):
        raise ValueError(f"pixel_values must have 1 or {captions} rows, one a caption, got {pictures}")
    path = dict(n_steps=n_steps, rule=quadrature, lambda_min=lambda_min, batch_size=batch_size)
    image = clip.image.split(pixel_values, layer)
    text = clip.text.split(input_ids, layer, attention_mask)
    with torch.no_grad():
        image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
    similarity = cosine_similarity(image_embeds, text_embeds)
    shared = pictures != captions
    image_scores, image_start = integrate(image, text_embeds[None] if shared else text_embeds[:, None], **path)
    text_scores, text_start = integrate(text, image_embeds.expand(captions, -1)[:, None], **path)
    image_scores, image_start = image_scores.flatten(0, 1), image_start.flatten()  # (captions, tokens), (captions,)
    text_scores, text_start = text_scores.squeeze(1), text_start.squeeze(1)
    return Scores(
        image=image_scores[:, 1:].unflatten(1, clip.grid(pixel_values)),
        text=text_scores,
        similarity=similarity,
        image_class=image_scores[:, 0],
        image_gap=image_scores.sum(1) - (similarity - image_start),
        text_gap=text_scores.sum(1) - (similarity - text_start),
    )
