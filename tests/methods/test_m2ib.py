import pytest
import torch
from plain import assert_scores, pairs, similarity
from torch.distributions import Normal, kl_divergence

import nib
from nib.methods.m2ib import capacity, draw_noise

SETTINGS = dict(n_steps=4, n_noise=3)


def kl(alpha, z):
    return kl_divergence(Normal(torch.sigmoid(alpha) * z, torch.sigmoid(-alpha)), Normal(0.0, 1.0))


def plain_scores(side, target, layer, noise, beta=0.1, lr=1.0, alpha_init=5.0):
    """Fit one pair with Adam written out (Kingma and Ba, 2015, Algorithm 1): the capacity of the last pass."""
    z = side.states(layer)[0]  # (tokens, width)
    alpha = torch.full_like(z, alpha_init)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    for t, copies in enumerate(noise, start=1):
        found = kl(alpha, z).sum(-1)
        alpha.requires_grad_()
        passed = torch.sigmoid(alpha)
        values = [similarity(side.embed((passed * z + (1 - passed) * e)[None], layer), target)[0] for e in copies]
        loss = beta * kl(alpha, z).mean() - sum(values) / len(values)
        (gradient,) = torch.autograd.grad(loss, alpha)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        alpha = alpha.detach() - lr * step
    return found.detach()


def test_equals_a_plain_fit_with_the_same_noise(clip, pixel_values, tokens, subtests):
    for layer in (1, 3):
        with subtests.test(f"layer {layer}"):
            scores = nib.METHODS["m2ib"](clip, pixel_values, **tokens, layer=layer, seed=7, **SETTINGS)
            for index, _, _, image, text in pairs(clip, pixel_values, tokens):
                noises = [draw_noise(side.states(layer), 4, 3, seed=7) for side in (image, text)]
                of_image = plain_scores(image, text.target(), layer, noises[0])
                of_text = plain_scores(text, image.target(), layer, noises[1])
                assert_scores(scores, index, of_image, of_text)


def test_other_parameters_reach_the_fit(clip, pixel_values, tokens):
    other = dict(beta=0.5, lr=0.2, alpha_init=2.0)
    scores = nib.METHODS["m2ib"](clip, pixel_values, **tokens, layer=2, **other, **SETTINGS)
    index, _, _, image, text = next(pairs(clip, pixel_values, tokens))
    noises = [draw_noise(side.states(2), 4, 3, seed=0) for side in (image, text)]
    of_image = plain_scores(image, text.target(), 2, noises[0], **other)
    of_text = plain_scores(text, image.target(), 2, noises[1], **other)
    assert_scores(scores, index, of_image, of_text)


def test_capacity_is_the_divergence_and_finite_at_every_alpha():
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha in (-30.0, -1.0, 0.0, 5.0, 15.0):
        torch.testing.assert_close(capacity(torch.full_like(z, alpha), z), kl(torch.full_like(z, alpha), z))
    for alpha in (-1e4, 40.0, 1e4):  # sigmoid(40) is 1 in float64: log(1 - lambda) would be -inf
        assert capacity(torch.full_like(z, alpha), z).isfinite().all()
    torch.testing.assert_close(capacity(torch.full_like(z, -1e4), z), torch.zeros_like(z))


def test_stays_finite_when_everything_passes(clip, pixel_values, tokens):
    scores = nib.METHODS["m2ib"](clip, pixel_values, **tokens, layer=2, beta=0, lr=200.0, **SETTINGS)
    assert scores.image.isfinite().all()
    assert scores.text.isfinite().all()


def test_noise_is_normal_seeded_and_blind_to_padding():
    short, long = torch.zeros(1, 5, 32), torch.zeros(2, 9, 32, dtype=torch.float64)
    noise = draw_noise(long, 10, 10, seed=3)
    assert noise.shape == (10, 10, 9, 32)
    torch.testing.assert_close(noise[:, :, :5], draw_noise(short, 10, 10, seed=3).double(), rtol=0, atol=0)
    assert not torch.equal(noise, draw_noise(long, 10, 10, seed=4))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert noise.unique().numel() > 0.99 * noise.numel()  # steps and copies differ


def test_seed_changes_the_map(clip, pixel_values, tokens):
    first, same, other = (
        nib.METHODS["m2ib"](clip, pixel_values, **tokens, layer=2, seed=seed, **SETTINGS).image for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_rejects_bad_parameters(clip, pixel_values, tokens, subtests):
    for name, value in (("n_steps", 0), ("n_noise", 0), ("batch_size", 0), ("beta", -1), ("lr", 0)):
        with subtests.test(name), pytest.raises(ValueError, match=f"{name} must be"):
            nib.METHODS["m2ib"](clip, pixel_values, **tokens, layer=2, **{name: value})


def test_one_pass_leaves_alpha_where_it_starts(clip, pixel_values, tokens):
    scores = nib.METHODS["m2ib"](clip, pixel_values, **tokens, layer=2, n_steps=1, n_noise=2)
    z = clip.image.split(pixel_values, 2).hidden_states
    expected = kl(torch.full_like(z, 5.0), z).sum(-1)
    torch.testing.assert_close(scores.image.flatten(1), expected[:, 1:])
