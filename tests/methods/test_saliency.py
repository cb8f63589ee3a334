import torch
from plain import assert_scores, pairs, similarity

import nib


def last_attention_gradient(clip, side, target):
    attentions = []
    embeds = side.embed(side.start(side.embeddings.detach().requires_grad_()), 0, attentions)
    logit = clip.model.logit_scale.exp() * similarity(embeds, target)
    (gradient,) = torch.autograd.grad(logit.sum(), attentions[-1])
    return attentions[-1].detach()[0, :, side.pooled], gradient[0, :, side.pooled]  # (heads, tokens)


def test_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["saliency"](clip, pixel_values, **tokens)
    for index, _, _, image, text in pairs(clip, pixel_values, tokens):
        _, of_image = last_attention_gradient(clip, image, text.target())
        _, of_text = last_attention_gradient(clip, text, image.target())
        assert_scores(scores, index, of_image.abs().mean(0), of_text.abs().mean(0))
    assert scores.image.min() >= 0
    assert scores.text.min() >= 0
