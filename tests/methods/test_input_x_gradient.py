from plain import assert_scores, pairs
from test_pixel_gradient import each_patch, input_gradients

import nib


def test_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["input_x_gradient"](clip, pixel_values, **tokens)
    for index, pixels, _, image, text in pairs(clip, pixel_values, tokens):
        of_pixels, of_words = input_gradients(clip, pixels, image, text)
        expected = each_patch(pixels[0] * of_pixels, lambda patch: patch.sum())
        assert_scores(scores, index, expected, (text.embeddings[0] * of_words).sum(-1), with_class=False)
