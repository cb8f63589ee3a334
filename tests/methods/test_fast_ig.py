from plain import assert_scores, pairs
from test_saliency import last_attention_gradient

import nib


def test_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["fast_ig"](clip, pixel_values, **tokens)
    for index, _, _, image, text in pairs(clip, pixel_values, tokens):
        (a, g), (b, h) = (
            last_attention_gradient(clip, side, other.target()) for side, other in ((image, text), (text, image))
        )
        assert_scores(scores, index, (a * g).mean(0), (b * h).mean(0))
    assert scores.image.min() < 0 < scores.image.max()
