"""Each rule has captum's nodes, weights that cover the path, and the exactness that its name promises."""

import numpy as np
import pytest
import torch
from captum.attr._utils.approximation_methods import approximation_parameters

from nib.quadrature import RULES, quadrature

DEGREES = {"riemann_right": 0, "riemann_left": 0, "riemann_middle": 1, "riemann_trapezoid": 1, "gausslegendre": 9}


def integrate_power(rule, degree, lambda_min):
    nodes, weights = quadrature(rule, 5, lambda_min)
    exact = (1 - lambda_min ** (degree + 1)) / (degree + 1)
    return (weights * nodes**degree).sum().item(), exact


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [2, 10])
@pytest.mark.parametrize("lambda_min", [0.0, 0.3])
def test_rule_covers_the_path(rule, n_steps, lambda_min):
    nodes, weights = quadrature(rule, n_steps, lambda_min)
    assert nodes.dtype == weights.dtype == torch.float64
    assert nodes.shape == weights.shape == (n_steps,)
    assert weights.sum().item() == pytest.approx(1 - lambda_min, abs=1e-14)
    assert (nodes.diff() > 0).all()
    assert nodes.min() >= lambda_min
    assert nodes.max() <= 1


@pytest.mark.parametrize("rule", DEGREES)
@pytest.mark.parametrize("lambda_min", [0.0, 0.3])
def test_rule_is_exact_up_to_its_degree_and_no_further(rule, lambda_min):
    for degree in range(DEGREES[rule] + 1):
        value, exact = integrate_power(rule, degree, lambda_min)
        assert value == pytest.approx(exact, abs=1e-13)
    value, exact = integrate_power(rule, DEGREES[rule] + 1, lambda_min)
    assert abs(value - exact) > 1e-8


def test_default_is_the_right_riemann_sum_of_ten_steps():
    nodes, weights = quadrature()
    np.testing.assert_allclose(nodes, np.arange(1, 11) / 10, atol=1e-15)
    np.testing.assert_allclose(weights, np.full(10, 0.1), atol=1e-15)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [2, 10])
def test_captum_places_the_same_nodes(rule, n_steps):
    nodes, weights = quadrature(rule, n_steps)
    step_sizes, alphas = approximation_parameters(rule)
    scale = n_steps / (n_steps - 1) if rule == "riemann_trapezoid" else 1  # captum's trapezoid covers (n - 1)/n
    np.testing.assert_allclose(nodes, alphas(n_steps), atol=1e-7)  # captum's Riemann nodes are float32
    np.testing.assert_allclose(weights, np.multiply(step_sizes(n_steps), scale), atol=1e-14)


def test_unknown_rule_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"gausslegendre.*riemann_right.*got 'simpson'"):
        quadrature("simpson")


@pytest.mark.parametrize(
    ("rule", "n_steps", "fewest"),
    [
        ("riemann_right", 0, 1),
        ("gausslegendre", -3, 1),
        ("riemann_left", 2.5, 1),
        ("riemann_left", True, 1),
        ("riemann_trapezoid", 1, 2),
    ],
)
def test_too_few_steps(rule, n_steps, fewest):
    with pytest.raises(ValueError, match=f"n_steps must be a whole number of at least {fewest}, got {n_steps}"):
        quadrature(rule, n_steps)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "riemann_trapezoid"])
def test_one_step_is_enough(rule):
    assert quadrature(rule, 1)[1].tolist() == [1.0]


@pytest.mark.parametrize("lambda_min", [1.0, -0.1, float("nan")])
def test_path_must_start_below_one(lambda_min):
    with pytest.raises(ValueError, match=r"lambda_min must be in \[0, 1\), got"):
        quadrature(lambda_min=lambda_min)
