"""Theorem 2: without noise F(z_tilde) is F(lambda z), reached at the rate of its gradient."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from studies.theory import gradient_norm, noise_spread, recovered_share


@pytest.fixture
def splits(clip, pixel_values, tokens):
    """Both towers, cut before block 2."""
    return {
        "image": clip.image.split(pixel_values, 2),
        "text": clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"]),
    }


def jacobian(split, targets, lambda_):
    """The gradient of F at lambda z, by torch's own function: (batch, tokens, width)."""
    z = lambda_ * split.hidden_states
    rows = torch.autograd.functional.jacobian(lambda states: cosine_similarity(split(states), targets), z)
    return torch.stack([rows[pair, pair] for pair in range(len(z))])


def draw_noise(split, n_draws, seed):
    """Draw noise as `noise_spread` does, the same for every pair."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_draws, 1, *split.hidden_states.shape[1:], generator=generator).double()


def test_the_gradient_is_the_one_of_torch(splits, targets, subtests):
    for side, split in splits.items():
        for lambda_ in [0.5, 1.0]:
            with subtests.test(f"{side}, {lambda_}"):
                expected = jacobian(split, targets, lambda_).flatten(1).norm(dim=1)
                assert_close(gradient_norm(split, targets, lambda_), expected, rtol=1e-10, atol=0)


def test_the_spread_is_that_of_the_gradient_along_the_noise(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            noise = draw_noise(split, 6, seed=0)
            along = (noise * jacobian(split, targets, 0.7)).sum((2, 3))  # (draws, batch)
            spreads = noise_spread(split, targets, 0.7, [1e-5, 1e-6], n_draws=6)
            assert_close(spreads[0] / 1e-5, along.std(0), rtol=1e-3, atol=0)
            assert_close(spreads[0] / spreads[1], torch.full((3,), 10.0, dtype=torch.float64), rtol=1e-3, atol=0)


def test_the_spread_is_the_standard_deviation_over_draws(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            noise = draw_noise(split, 4, seed=2)
            values = [cosine_similarity(split(0.5 * split.hidden_states + 0.3 * draw), targets) for draw in noise]
            assert_close(noise_spread(split, targets, 0.5, [0.3], n_draws=4, seed=2)[0], torch.stack(values).std(0))


def test_without_noise_nothing_is_random(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            assert (noise_spread(split, targets, 0.5, [0.0]) == 0).all()


def test_states_are_recovered_without_noise_for_every_lambda_above_zero():
    states = np.random.default_rng(0).standard_normal((50, 8))
    assert recovered_share(states, 1e-3, 0.0) == 1
    assert recovered_share(states, 1.0, 1e-6) == 1
    assert recovered_share(states, 0.0, 0.0) == pytest.approx(1 / 50)
    assert recovered_share(states, 0.1, 10.0) < 0.3


def test_two_states_are_told_apart_as_often_as_the_normal_distribution_says():
    states = np.repeat([[-1.0], [1.0]], 1, axis=0)
    shares = [recovered_share(states, 0.5, 0.5, seed=seed) for seed in range(1000)]
    assert np.mean(shares) == pytest.approx(0.8413, abs=0.03)  # P(noise < 1 standard deviation)


def test_what_is_out_of_range_is_refused(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            with pytest.raises(ValueError, match="n_draws must be a whole number of at least 2, got 1"):
                noise_spread(split, targets, 1.0, [0.1], n_draws=1)
            with pytest.raises(ValueError, match=r"sigmas must be at least 0, got \[0.1, -1\]"):
                noise_spread(split, targets, 1.0, [0.1, -1])
