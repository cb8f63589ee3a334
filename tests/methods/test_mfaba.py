import pytest
import torch
from plain import assert_plain, pairs, similarity

import nib


def plain_steps(side, target, n_steps, step_size):
    path, gradients = [side.embeddings.detach()], []
    for _ in range(n_steps):
        x = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(similarity(side.embed(side.start(x)), target).sum(), x)
        gradients.append(gradient)
        path.append(path[-1] - step_size * torch.sign(gradient))
    return -sum(((new - old) * g).sum(-1)[0] for old, new, g in zip(path, path[1:], gradients))


def test_equals_the_formula(clip, pixel_values, tokens, subtests):
    for n_steps, step_size in ((10, 0.01), (3, 0.05)):
        with subtests.test(f"{n_steps} steps of {step_size}"):
            scores = nib.METHODS["mfaba"](clip, pixel_values, **tokens, n_steps=n_steps, step_size=step_size)
            assert_plain(clip, pixel_values, tokens, scores, plain_steps, n_steps, step_size)


def test_scores_add_up_to_what_small_steps_take_away(clip, pixel_values, tokens):
    scores = nib.METHODS["mfaba"](clip, pixel_values, **tokens, n_steps=2, step_size=1e-6)
    _, _, _, image, text = next(pairs(clip, pixel_values, tokens))
    x = image.embeddings.clone()
    before = similarity(image.embed(image.start(x)), text.target())
    for _ in range(2):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(similarity(image.embed(image.start(x)), text.target()).sum(), x)
        x = x - 1e-6 * gradient.sign()
    after = similarity(image.embed(image.start(x)), text.target())
    total = scores.image[0].sum() + scores.image_class[0]
    torch.testing.assert_close(total, (before - after)[0], rtol=1e-3, atol=0)


def test_rejects_bad_parameters(clip, pixel_values, tokens, subtests):
    for name, value in (("n_steps", 0), ("step_size", 0.0)):
        with subtests.test(name), pytest.raises(ValueError, match=f"{name} must be"):
            nib.METHODS["mfaba"](clip, pixel_values, **tokens, **{name: value})
