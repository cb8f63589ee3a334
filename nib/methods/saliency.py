"""Attention saliency: what the paper's tables call "Saliency Map"."""

from nib.clip import HookedCLIP
from nib.methods.attention import explain_attention
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, InputIds, PixelValues


def saliency(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Scores:
    """Score tokens by how strongly the logit depends on the last attention that they get.

    The score of token j is the mean over heads of abs(d logit / d A[pooled, j]), A the attention
    probabilities of the last block. The logit is exp(logit_scale) times the cosine; the other
    embedding is held fixed. The method that is cited under this name, the gradient of the pixels
    (Simonyan et al., 2014), is `pixel_gradient`.

    Differs from the released code: the text is read at the row of the token that the tower pools.
    Without padding that is the last row, which the released code takes.

    Returns:
        Scores, at least 0, in logit units per unit of attention.
    """

    def relevance(attentions, gradients):
        return gradients[-1].abs().mean(1)

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size)
