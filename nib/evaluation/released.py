"""Attribute text as the released code does: against all pictures of the batch.

Exports `attribute_text_to_batch`.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import normalize

from nib.clip import HookedCLIP
from nib.methods import METHODS
from nib.shapes import AttentionMask, Embeds, InputIds, PixelValues, TokenScores


def attribute_text_to_batch(
    clip: HookedCLIP,
    method: str,
    parameters: Mapping[str, Any],
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    image_embeds: Embeds | None = None,
) -> TokenScores:
    """Attribute the mean similarity of each text to all pictures of the batch, as the released code does.

    The mean of cos(t, e_i) is |m| cos(t, m), m being the mean of the normalised image embeddings. A
    factor does not change a stretched map, but M2IB weighs its similarity against its KL: there beta is divided
    by |m|, which gives the same loss but for a factor, to which Adam is blind.

    Args:
        image_embeds: (batch, embed), of the pictures; None where they are not known yet.

    Returns:
        (batch, tokens), the scores of the text.
    """
    with torch.no_grad():
        image_embeds = clip.image.embed(pixel_values) if image_embeds is None else image_embeds
        mean = normalize(image_embeds, dim=-1).mean(0)  # (embed,)
    parameters = dict(parameters)
    if method == "m2ib":
        beta = parameters.get("beta", inspect.signature(METHODS["m2ib"]).parameters["beta"].default)
        parameters["beta"] = beta / float(mean.norm())
    if method == "rise":
        parameters["n_masks"] = 1  # only its text is asked for
    patch = clip.image.patch
    if method != "random":  # its draws are seeded by the picture; others do not see it: one patch costs least
        pixel_values = pixel_values[..., :patch, :patch]
    with _embed_all_pictures_as(clip, mean):
        return METHODS[method](clip, pixel_values, input_ids, attention_mask, **parameters).text


@contextmanager
def _embed_all_pictures_as(clip: HookedCLIP, embeds: Embeds) -> Iterator[None]:
    # The zero keeps the graph: methods differentiate both towers at once.
    handle = clip.image.projection.register_forward_hook(lambda module, args, output: embeds + 0 * output)
    try:
        yield
    finally:
        handle.remove()
