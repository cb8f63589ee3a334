"""Attribute text with NIB as its released code does: against all pictures of the batch."""

from typing import Any

import torch
from torch.nn.functional import normalize

from nib.clip import HookedCLIP
from nib.methods import METHODS
from nib.shapes import AttentionMask, Embeds, InputIds, PixelValues, TokenScores
from nib.towers import of_this_thread


def attribute_text_to_batch(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    image_embeds: Embeds | None = None,
    **parameters: Any,
) -> TokenScores:
    """Attribute the mean similarity of each text to all pictures of the batch, as the released code runs NIB.

    The mean of cos(t, e_i) is |m| cos(t, m), m being the mean of the normalised image embeddings. A
    factor does not change a stretched map. The released code runs every other method against the text's own picture.

    Args:
        image_embeds: (batch, embed), of the pictures; None where they are not known yet.
        parameters: of `nib.METHODS["nib"]`.

    Returns:
        (batch, tokens), the scores of the text.
    """
    with torch.no_grad():
        image_embeds = clip.image.embed(pixel_values) if image_embeds is None else image_embeds
        mean = normalize(image_embeds, dim=-1).mean(0)  # (embed,)
    patch = clip.image.patch
    one_patch = pixel_values[..., :patch, :patch]  # the picture is not looked at: one patch costs least
    # The zero keeps the graph: nib differentiates both towers at once.
    hook = of_this_thread(lambda module, args, output: mean + 0 * output)
    with clip.image.projection.register_forward_hook(hook):
        return METHODS["nib"](clip, one_patch, input_ids, attention_mask, **parameters).text
