"""Input times gradient (Shrikumar et al., 2016; FastIG as it is cited: Hesse et al., NeurIPS 2021)."""

from torch.nn.functional import avg_pool2d

from nib.methods.gradients import explain_inputs
from nib.methods.scores import Scores


def input_x_gradient(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score patches by the sum of pixel * gradient of the cosine, words by that of their embeddings.

    Patches sum over their pixels and channels, words over the width of the token embedding, before positions are added.
    The other embedding is held fixed. For a network without biases this is integrated gradients from zero in one pass;
    CLIP has biases. What the released code calls FastIG is attention times its gradient (`fast_ig`). Scores are signed,
    in cosine units to first order, against the mean colour and a zero embedding.
    """
    patch = clip.image.patch

    def score(pixels, embeddings, pixel_gradients, embedding_gradients):
        patches = avg_pool2d((pixels * pixel_gradients).sum(1), patch) * patch**2
        return patches, (embeddings * embedding_gradients).sum(-1)

    return explain_inputs(clip, pixel_values, input_ids, attention_mask, score, batch_size)
