from functools import partial

import pytest
import torch
from plain import assert_plain, assert_scores, pairs, similarity

import nib


def plain_relevance(clip, side, target, start_layer):
    """Roll out one step a block; None for the last block without the identity."""
    attentions = []
    embeds = side.embed(side.start(side.embeddings.detach().requires_grad_()), 0, attentions)
    logit = clip.model.logit_scale.exp() * similarity(embeds, target)
    gradients = torch.autograd.grad(logit.sum(), attentions)
    positive = [(a.detach() * g)[0].clamp(min=0).mean(0) for a, g in zip(attentions, gradients)]
    if start_layer is None:
        return positive[-1][side.pooled]
    total = torch.eye(len(positive[0]), dtype=torch.float64)
    for relevance in positive[start_layer:]:
        total += relevance @ total.clone()
    return total[side.pooled]


def test_chefer_equals_the_formula(clip, pixel_values, tokens, subtests):
    for start_layer in (None, 0, 2):
        with subtests.test(f"start layer {start_layer}"):
            scores = nib.METHODS["chefer"](clip, pixel_values, **tokens, start_layer=start_layer)
            assert_plain(clip, pixel_values, tokens, scores, partial(plain_relevance, clip), start_layer)


def test_chefer_rollout_of_the_last_block_adds_the_identity(clip, pixel_values, tokens):
    last = nib.METHODS["chefer"](clip, pixel_values, **tokens)
    rolled = nib.METHODS["chefer"](clip, pixel_values, **tokens, start_layer=3)
    torch.testing.assert_close(rolled.image, last.image)
    torch.testing.assert_close(rolled.image_class, last.image_class + 1)
    added = rolled.text - last.text
    torch.testing.assert_close(added.sum(1), torch.ones(3, dtype=torch.float64))
    assert (added.argmax(1) == tokens["attention_mask"].sum(1) - 1).all()


def test_rejects_a_start_layer_out_of_range(clip, pixel_values, tokens, subtests):
    message = "start_layer must be None or a whole number from 0 to 3"
    for start_layer in (-1, 4, 1.0, True):
        with subtests.test(str(start_layer)), pytest.raises(ValueError, match=message):
            nib.METHODS["chefer"](clip, pixel_values, **tokens, start_layer=start_layer)


def last_attention_gradient(clip, side, target):
    attentions = []
    embeds = side.embed(side.start(side.embeddings.detach().requires_grad_()), 0, attentions)
    logit = clip.model.logit_scale.exp() * similarity(embeds, target)
    (gradient,) = torch.autograd.grad(logit.sum(), attentions[-1])
    return attentions[-1].detach()[0, :, side.pooled], gradient[0, :, side.pooled]  # (heads, tokens)


def test_saliency_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["saliency"](clip, pixel_values, **tokens)
    for index, _, _, image, text in pairs(clip, pixel_values, tokens):
        _, of_image = last_attention_gradient(clip, image, text.target())
        _, of_text = last_attention_gradient(clip, text, image.target())
        assert_scores(scores, index, of_image.abs().mean(0), of_text.abs().mean(0))
    assert scores.image.min() >= 0
    assert scores.text.min() >= 0


def test_fast_ig_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["fast_ig"](clip, pixel_values, **tokens)
    for index, _, _, image, text in pairs(clip, pixel_values, tokens):
        (a, g), (b, h) = (
            last_attention_gradient(clip, side, other.target()) for side, other in ((image, text), (text, image))
        )
        assert_scores(scores, index, (a * g).mean(0), (b * h).mean(0))
    assert scores.image.min() < 0 < scores.image.max()
