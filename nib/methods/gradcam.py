"""Grad-CAM on the hidden states of a block (Selvaraju et al., ICCV 2017)."""

from nib.checks import check_flag
from nib.methods.gradients import similarity_gradients
from nib.methods.pairs import average, cut, find_patches, over_pairs, to_scores
from nib.methods.scores import Scores


def gradcam(
    clip, pixel_values, input_ids, attention_mask=None, *, layer=None, pool_gradients=False, batch_size=64, seed=0
) -> Scores:
    """Score tokens by relu(sum over the width of gradient * activation) of their hidden states.

    The gradient is that of the cosine, the other embedding held fixed. As cited (Eq. 1 and 2 of Selvaraju et al.) the
    gradient is first averaged over positions, so that each channel has one weight: `pool_gradients=True`, which the
    released code does not do. The positions averaged over are the patches, and for text the tokens of the caption; the
    class token is no place on a map. Scores are at least 0, in cosine units to first order.
    """
    check_flag("pool_gradients", pool_gradients)
    layers = clip.layers(layer, later=1)

    def explain(pixel_values, input_ids, attention_mask):
        image, text = cut(clip, pixel_values, input_ids, attention_mask, *layers)
        states = image.hidden_states, text.hidden_states
        similarity, *gradients = similarity_gradients(image, text, *states)
        if pool_gradients:
            places = find_patches(image), text.real
            gradients = [average(*of_tower) for of_tower in zip(gradients, places)]
        image_scores, text_scores = ((g * z).sum(-1).clamp(min=0) for g, z in zip(gradients, states))
        return to_scores(clip, pixel_values, text.real, similarity, image_scores, text_scores)

    return over_pairs(explain, pixel_values, input_ids, attention_mask, batch_size)
