"""Attention times gradient: what the paper's tables call "FastIG"."""

from nib.methods.attention import explain_attention
from nib.methods.scores import Scores


def fast_ig(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score tokens by the last attention that they get, times the gradient of the logit there.

    The score of token j is the mean over heads of A[pooled, j] * d logit / d A[pooled, j], A the attention
    probabilities of the last block: see `nib.methods.attention`. The method that is cited under this name (Hesse et
    al., 2021) is input times gradient: `input_x_gradient`. Scores are signed, in logit units.
    """

    def relevance(attentions, gradients):
        return (attentions[-1] * gradients[-1]).mean(1)

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size)
