"""Theorem 2 in a table: rows are those of the functions, and the judgement is that of known powers."""

import numpy as np
import pandas as pd
import pytest

from nib.evaluation import Batch
from studies.theory import (
    follow_formula,
    follow_noise,
    follow_states,
    gradient_norm,
    judge_limit,
    noise_spread,
    recovered_share,
)


def test_the_formula_diverges_and_its_differences_do_not():
    found = follow_formula([2.0, 1.0, 0.0], [0.1, 0.5, 1.0], [1e-6, 1.0])
    assert found["quantity"].value_counts().to_dict() == {"I, nats": 6, "difference to the next λ / its limit": 4}
    wide = found.pivot(index=["quantity", "lambda"], columns="sigma", values="value")
    shares = wide.loc["difference to the next λ / its limit"]
    np.testing.assert_allclose(shares[1e-6], 1, atol=1e-8)
    assert (shares[1.0] < 0.99).all()
    assert wide.loc[("I, nats", 1.0), 1.0] == pytest.approx(0.5 * np.log(3 * 2))


def test_states_are_told_apart_as_they_are_alone():
    states = np.random.default_rng(0).standard_normal((20, 4))
    found = follow_states(states, [0.5, 1.0], [1.0, 0.1])
    assert found["value"].tolist() == [recovered_share(states, *case) for case in found[["lambda", "sigma"]].values]


def test_spreads_are_those_of_each_side(clip, pixel_values, tokens):
    pairs = Batch(["a", "b", "c"], pixel_values, tokens["input_ids"], tokens["attention_mask"], None)
    found = follow_noise(clip, pairs, 2, [0.5], [0.1, 0.01], n_pairs=2).set_index(["quantity", "sigma"])["value"]
    split = clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])[:2]
    targets = clip.image.embed(pixel_values)[:2]
    spread, slope = noise_spread(split, targets, 0.5, [0.1, 0.01], n_draws=10), gradient_norm(split, targets, 0.5)
    np.testing.assert_allclose(found["spread of F, words", 0.01], spread[1].numpy(), rtol=1e-9)
    np.testing.assert_allclose(found["ratio, words", 0.01], (spread[1] / (0.01 * slope)).numpy(), rtol=1e-9)
    assert len(found) == 2 * 2 * 2 * 2  # sides, sigmas, quantities, pairs


def test_the_judgement_is_of_the_smallest_noise():
    rows = [("I, nats", 0.1, sigma, -np.log(sigma)) for sigma in (1e-5, 1.0)]
    rows += [("I, nats", 1.0, sigma, 9 - np.log(sigma)) for sigma in (1e-5, 1.0)]
    rows += [("difference to the next λ / its limit", 0.1, sigma, 1 - sigma) for sigma in (1e-5, 1.0)]
    for sigma in (1.0, 0.1, 0.01):
        rows += [("pictures told apart", level, sigma, level - sigma / 10) for level in (0.5, 1.0)]
        rows += [("spread of F, picture", 1.0, sigma, sigma), ("spread of F, words", 1.0, sigma, sigma**2)]
        rows += [("ratio, picture", 1.0, sigma, 1 + sigma), ("ratio, words", 1.0, sigma, 1 - sigma)]
    found = judge_limit(pd.DataFrame(rows, columns=["quantity", "lambda", "sigma", "mean"]))
    assert found == pytest.approx(
        {
            "slowest": 1.0,
            "fastest": 2.0,
            "least_ratio": 0.99,
            "most_ratio": 1.01,
            "coarsest": 1.0,
            "finest": 1e-5,
            "before": 0.0,
            "after": 5 * np.log(10),
            "least_share": 1 - 1e-5,
            "most_share": 1 - 1e-5,
            "told": 0.499,
        }
    )
