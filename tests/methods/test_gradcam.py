import pytest
import torch
from plain import assert_plain, similarity

import nib


def plain_map(side, target, layer, pool):
    z = side.states(layer).requires_grad_()
    (gradient,) = torch.autograd.grad(similarity(side.embed(z, layer), target).sum(), z)
    gradient, z = gradient[0], z.detach()[0]  # (tokens, width)
    if pool:
        gradient = gradient[0 if side.is_text else 1 :].mean(0, keepdim=True).expand_as(z)
    return torch.stack([torch.dot(g, a).relu() for g, a in zip(gradient, z)])


def test_equals_the_formula(clip, pixel_values, tokens, subtests):
    for layer, pool in ((1, False), (1, True), (3, False), (3, True)):
        with subtests.test(f"layer {layer}{', pooled' if pool else ''}"):
            scores = nib.METHODS["gradcam"](clip, pixel_values, **tokens, layer=layer, pool_gradients=pool)
            assert_plain(clip, pixel_values, tokens, scores, plain_map, layer, pool)


def test_after_the_last_block_only_the_pooled_token_counts(clip, pixel_values, tokens):
    scores = nib.METHODS["gradcam"](clip, pixel_values, **tokens, layer=4)
    assert not scores.image.any()
    assert scores.image.isfinite().all()
    with pytest.raises(ValueError, match="layer must be a whole number from 0 to 4"):
        nib.METHODS["gradcam"](clip, pixel_values, **tokens, layer=5)
