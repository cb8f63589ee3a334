import torch
from plain import Side, assert_scores, pairs, similarity

import nib


def input_gradients(clip, pixels, image, text):
    """Gradients of the cosine at the pixels (channels, height, width) and the token embeddings."""
    pixels = pixels.clone().requires_grad_()
    side = Side(clip, pixels)
    value = similarity(side.embed(side.start(side.embeddings)), text.target())
    (of_pixels,) = torch.autograd.grad(value.sum(), pixels)
    x = text.embeddings.clone().requires_grad_()
    (of_words,) = torch.autograd.grad(similarity(text.embed(text.start(x)), image.target()).sum(), x)
    return of_pixels[0], of_words[0]


def each_patch(pixels, function, size=12):
    """Apply `function` to each patch of (..., height, width): (grid_h, grid_w)."""
    rows, columns = pixels.shape[-2] // size, pixels.shape[-1] // size
    cut = [
        [pixels[..., size * i : size * (i + 1), size * j : size * (j + 1)] for j in range(columns)] for i in range(rows)
    ]
    return torch.stack([torch.stack([function(patch) for patch in row]) for row in cut])


def test_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["pixel_gradient"](clip, pixel_values, **tokens)
    for index, pixels, _, image, text in pairs(clip, pixel_values, tokens):
        of_pixels, of_words = input_gradients(clip, pixels, image, text)
        expected = each_patch(of_pixels, lambda patch: patch.abs().max(0).values.mean())
        assert_scores(scores, index, expected, of_words.abs().sum(-1), with_class=False)
