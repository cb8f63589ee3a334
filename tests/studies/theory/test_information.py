"""Theorem 1: the formula meets closed forms, and two estimators that do not use it agree."""

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.feature_selection import mutual_info_regression

from studies.theory import (
    compare_estimates,
    difference_limit,
    estimate_covariance,
    gaussian_information,
    judge_estimates,
    monte_carlo_information,
    neighbour_information,
    spectrum,
)
from studies.theory.information import add_noise

LAMBDAS = np.linspace(0, 1, 11)


def draw_covariance(width=6, rank=None, seed=0):
    factor = np.random.default_rng(seed).standard_normal((width, rank or width))
    return factor @ factor.T


def draw_states(covariance, n=2000, seed=0):
    return np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), covariance, n)


def test_the_formula_of_known_states(subtests):
    for sigma in [0.1, 1.0, 3.0]:
        with subtests.test(str(sigma)):
            expected = 5 / 2 * np.log(1 + LAMBDAS**2 * 4.0 / sigma**2)
            np.testing.assert_allclose(gaussian_information(np.full(5, 4.0), LAMBDAS, sigma), expected, rtol=1e-13)

    direction = np.random.default_rng(1).standard_normal(7)
    eigenvalues = spectrum(np.outer(direction, direction))
    expected = 0.5 * np.log(1 + LAMBDAS**2 * (direction @ direction) / 0.25)
    np.testing.assert_allclose(gaussian_information(eigenvalues, LAMBDAS, 0.5), expected, atol=1e-12)

    covariance = draw_covariance()
    expected = 0.5 * np.linalg.slogdet(np.eye(6) + covariance / 0.49)[1]
    assert gaussian_information(spectrum(covariance), 1.0, 0.7) == pytest.approx(expected, rel=1e-12)

    information = gaussian_information(spectrum(draw_covariance()), LAMBDAS, 0.3)
    assert information[0] == 0
    assert (np.diff(information) > 0).all()

    eigenvalues = spectrum(estimate_covariance(np.full((10, 4), 3.0)))
    assert gaussian_information(eigenvalues, 1.0, 1e-3) == 0
    assert difference_limit(eigenvalues, 1.0, 0.5) == 0


def test_without_noise_it_diverges_and_differences_count_the_rank(subtests):
    for rank in [1, 3, 6]:
        with subtests.test(str(rank)):
            eigenvalues = spectrum(draw_covariance(rank=rank))
            sigmas = [1e-2, 1e-4, 1e-6]
            information = np.array([gaussian_information(eigenvalues, [0.25, 0.5, 1.0], sigma) for sigma in sigmas])
            growth = np.diff(information, axis=0)  # a hundred times less noise, log 100 more for each dimension
            np.testing.assert_allclose(growth[1], rank * np.log(100), rtol=1e-3)
            limits = [difference_limit(eigenvalues, 0.5, 0.25), difference_limit(eigenvalues, 1.0, 0.5)]
            np.testing.assert_allclose(limits, rank * np.log(2), rtol=1e-12)
            misses = np.abs(np.diff(information, axis=1) - limits).max(1)
            assert misses[0] > misses[1]
            assert misses[2] < 1e-6


def test_the_covariance_is_shrunk_as_by_ledoit_and_wolf():
    states = draw_states(draw_covariance(), n=20)
    centred = states - states.mean(0)
    sample = centred.T @ centred / 20
    target = np.trace(sample) / 6 * np.eye(6)
    distance = ((sample - target) ** 2).sum()
    noise = sum(((np.outer(row, row) - sample) ** 2).sum() for row in centred) / 20**2
    expected = sample + min(1, noise / distance) * (target - sample)
    np.testing.assert_allclose(estimate_covariance(states), expected, rtol=1e-10)


def test_eigenvalues_come_largest_first_and_never_below_zero():
    eigenvalues = spectrum(draw_covariance(rank=2))
    assert (np.diff(eigenvalues) <= 0).all()
    assert (eigenvalues > 0).sum() == 2
    assert (eigenvalues >= 0).all()
    assert eigenvalues.sum() == pytest.approx(np.trace(draw_covariance(rank=2)))


def test_drawn_gaussian_states_agree(subtests):
    for lambda_ in [0.1, 1.0]:
        for sigma in [0.1, 1.0, 5.0]:
            with subtests.test(f"{lambda_}, {sigma}"):
                covariance = draw_covariance(rank=4)
                estimate, error = monte_carlo_information(covariance, lambda_, sigma)
                expected = gaussian_information(spectrum(covariance), lambda_, sigma)
                assert estimate == pytest.approx(expected, abs=4 * error)
                assert error < 0.1

    assert monte_carlo_information(draw_covariance(), 0.0, 0.5) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_neighbours_agree_on_gaussian_states(subtests):
    for width in [1, 2, 3]:
        for lambda_ in [0.2, 1.0]:
            with subtests.test(f"{width}, {lambda_}"):
                covariance = draw_covariance(width)
                found = [
                    neighbour_information(draw_states(covariance, seed=seed), lambda_, 0.5, seed=seed)
                    for seed in range(8)
                ]
                estimates, errors = np.transpose(found)
                expected = gaussian_information(spectrum(covariance), lambda_, 0.5)
                assert estimates.mean() == pytest.approx(expected, abs=0.05)
                assert estimates.std(ddof=1) == pytest.approx(
                    errors.mean(), rel=0.8
                )  # the standard error is of the right size


def test_neighbours_and_scikit_learn_agree():
    states = draw_states(np.array([[2.0]]), n=4000)
    noisy = add_noise(states, 0.8, 0.5)
    estimate, error = neighbour_information(states, 0.8, 0.5)
    assert estimate == pytest.approx(mutual_info_regression(states, noisy[:, 0], random_state=0)[0], abs=4 * error)


def test_states_that_are_not_gaussian_carry_less(subtests):
    states = np.random.default_rng(3).choice([-1.0, 1.0], (4000, 1))

    def entropy(value, sigma):
        density = (norm.pdf(value, 1, sigma) + norm.pdf(value, -1, sigma)) / 2
        return -density * np.log(density) if density > 0 else 0.0

    for sigma in [0.2, 0.5, 1.0]:
        with subtests.test(str(sigma)):
            exact = quad(entropy, -12, 12, (sigma,), limit=500, points=[-1, 1])[0] - norm(scale=sigma).entropy()
            estimate, error = neighbour_information(states, 1.0, sigma)
            assert estimate == pytest.approx(exact, abs=4 * error)
            assert exact < gaussian_information([1.0], 1.0, sigma)


def test_the_table_of_estimates_bounds_the_real_states_by_the_formula():
    states = np.random.default_rng(4).choice([-1.0, 1.0], (1000, 5)) * [4.0, 3.0, 0.1, 0.1, 0.1]
    table = compare_estimates(states, [0.0, 1.0], [1.0], n_dimensions=2)
    rows = table.set_index(["of", "estimate", "lambda"])["mean"]
    assert len(table) == 10
    expected = gaussian_information(spectrum(estimate_covariance(states)), 1.0, 1.0)
    assert rows["whole state", "formula", 1.0] == expected
    assert rows["whole state", "Gaussian states", 1.0] == pytest.approx(expected, abs=0.25)
    assert rows["components", "Gaussian states", 1.0] == pytest.approx(rows["components", "formula", 1.0], abs=0.15)
    assert rows["components", "real states", 1.0] < rows["components", "formula", 1.0] - 0.2
    assert rows["components", "real states", 0.0] == pytest.approx(0, abs=0.15)
    assert ((table["low"] <= table["mean"]) & (table["mean"] <= table["high"])).all()


def test_the_noise_is_not_the_draw_of_the_states():
    states = np.random.default_rng(0).standard_normal((500, 1))
    noise = add_noise(states, 0.0, 1.0, seed=0)
    assert abs(np.corrcoef(states[:, 0], noise[:, 0])[0, 1]) < 0.15
    np.testing.assert_allclose(add_noise(states, 0.3, 2.0), 0.3 * states + 2 * noise)


def test_what_is_out_of_range_is_refused(subtests):
    cases = [
        (lambda: gaussian_information([1.0], 1.1, 1.0), r"lambda must be in \[0, 1\], got 1.1"),
        (lambda: gaussian_information([1.0], [0.5, float("nan")], 1.0), "lambda must be in"),
        (lambda: gaussian_information([1.0], 0.5, 0.0), "sigma must be more than 0, got 0"),
        (lambda: gaussian_information([-1.0], 0.5, 1.0), "eigenvalues must be at least 0, got -1"),
        (lambda: difference_limit([1.0], 0.5, 0.0), "both lambdas must be above 0, got 0.5 and 0"),
        (lambda: estimate_covariance(np.ones((1, 3))), r"at least 2 inputs, got shape \(1, 3\)"),
        (lambda: estimate_covariance([[1.0], [float("nan")]]), "states must be finite"),
        (lambda: monte_carlo_information(np.eye(2), 0.5, 1.0, n_samples=1), "n_samples must be a whole number of at"),
        (lambda: neighbour_information(np.ones((3, 1)), 0.5, 1.0), "more than n_neighbours = 3 rows, got 3"),
    ]
    for call, message in cases:
        with subtests.test(message), pytest.raises(ValueError, match=message):
            call()


def test_the_judgement_is_of_known_distances():
    whole = {"formula": 2.0, "Gaussian states": 2.3}
    rows = []
    for position, real in (("a", 1.2), ("b", 1.7)):
        small = {"formula": 1.5, "Gaussian states": 1.4, "real states": real}
        for of, means in (("whole state", whole), ("components", small)):
            case = {"position": position, "of": of, "sigma": 1.0, "lambda": 1.0}
            rows += [case | {"estimate": name, "mean": mean, "low": mean - 0.196} for name, mean in means.items()]
    rows += [row | {"lambda": 0.0, "mean": 99.0} for row in rows]  # lambda 0 says nothing
    found = judge_estimates(pd.DataFrame(rows))
    expected = {"cases": 2, "worst": 3.0, "bias": -0.1, "largest_bias": 0.1, "below": 0.5, "least": 0.8}
    assert found == pytest.approx(expected | {"most": 1.7 / 1.5})
