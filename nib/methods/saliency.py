"""Attention saliency: what the paper's tables call "Saliency Map"."""

from nib.methods.attention import explain_attention
from nib.methods.scores import Scores


def saliency(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score tokens by how strongly the logit depends on the last attention that they get.

    The score of token j is the mean over heads of abs(d logit / d A[pooled, j]), A the attention probabilities of the
    last block: see `nib.methods.attention`. The method that is cited under this name, the gradient of the pixels
    (Simonyan et al., 2014), is `pixel_gradient`. Scores are at least 0, in logit units per unit of attention.
    """

    def relevance(attentions, gradients):
        return gradients[-1].abs().mean(1)

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size)
