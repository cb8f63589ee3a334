"""Place the nodes and weights of the path integral on [lambda_min, 1].

Exports `RULES` and `quadrature`. The names are those of `captum.attr.IntegratedGradients`.
"""

import numpy as np
import torch

from nib.checks import check_count
from nib.shapes import Nodes


def _riemann_right(n):
    return np.arange(1, n + 1) / n, np.full(n, 1 / n)


def _riemann_left(n):
    return np.arange(n) / n, np.full(n, 1 / n)


def _riemann_middle(n):
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def _riemann_trapezoid(n):
    weights = np.full(n, 1 / (n - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, n), weights


def _gausslegendre(n):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


RULES = {
    "riemann_right": _riemann_right,
    "riemann_left": _riemann_left,
    "riemann_middle": _riemann_middle,
    "riemann_trapezoid": _riemann_trapezoid,
    "gausslegendre": _gausslegendre,
}


def quadrature(rule: str = "riemann_right", n_steps: int = 10, lambda_min: float = 0.0) -> tuple[Nodes, Nodes]:
    """Give the nodes and weights of a rule.

    The paper integrates Eq. 10 by a right Riemann sum of 10 steps on [0, 1], the default.
    Weights sum to 1 - lambda_min for every rule. captum's trapezoid weights sum to
    (n - 1)/n instead, so its trapezoid attributions are (n - 1)/n times ours.

    Args:
        rule: one of `RULES`.
        n_steps: number of nodes, at least 1 (2 for the trapezoid).
        lambda_min: where the path starts, in [0, 1).

    Returns:
        Nodes in ascending order and their weights, float64, each (n_steps,).

    Raises:
        ValueError: unknown rule, too few steps, or lambda_min outside [0, 1).
    """
    if rule not in RULES:
        raise ValueError(f"quadrature must be one of {sorted(RULES)}, got {rule!r}")
    fewest = 2 if rule == "riemann_trapezoid" else 1
    check_count("n_steps", n_steps, fewest)
    if not 0 <= lambda_min < 1:
        raise ValueError(f"lambda_min must be in [0, 1), got {lambda_min}")
    nodes, weights = RULES[rule](n_steps)
    length = 1 - lambda_min
    return torch.from_numpy(lambda_min + length * nodes), torch.from_numpy(length * weights)
