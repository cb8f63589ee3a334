"""Saliency as it is cited: the gradient of the input (Simonyan et al., ICLR workshop 2014)."""

from torch.nn.functional import avg_pool2d

from nib.methods.gradients import explain_inputs
from nib.methods.scores import Scores


def pixel_gradient(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score pixels by the largest absolute gradient of the cosine over the channels, patches by their mean.

    A word has no pixels: its score is the sum over the width of the absolute gradient with respect to its token
    embedding. The other embedding is held fixed. What the released code calls a saliency map is the gradient of an
    attention (`saliency`). Scores are at least 0: cosine per unit of a normalised pixel, or of an embedding.
    """

    def score(pixels, embeddings, pixel_gradients, embedding_gradients):
        return avg_pool2d(pixel_gradients.abs().amax(1), clip.image.patch), embedding_gradients.abs().sum(-1)

    return explain_inputs(clip, pixel_values, input_ids, attention_mask, score, batch_size)
