"""Attention times gradient: what the paper's tables call "FastIG"."""

from nib.clip import HookedCLIP
from nib.methods.attention import explain_attention
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, InputIds, PixelValues


def fast_ig(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Scores:
    """Score tokens by the last attention that they get, times the gradient of the logit there.

    The score of token j is the mean over heads of A[pooled, j] * d logit / d A[pooled, j], A the
    attention probabilities of the last block. The logit is exp(logit_scale) times the cosine; the
    other embedding is held fixed. The method that is cited under this name (Hesse et al., 2021) is
    input times gradient: `input_x_gradient`.

    Differs from the released code: the text is read at the row of the token that the tower pools.
    Without padding that is the last row, which the released code takes.

    Returns:
        Signed scores in logit units: positive ones raise the similarity.
    """

    def relevance(attentions, gradients):
        return (attentions[-1] * gradients[-1]).mean(1)

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size)
