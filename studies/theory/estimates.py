"""Set the formula of Theorem 1 beside estimates that do not use it.

Exports `compare_estimates`.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA

from studies.theory.information import (
    estimate_covariance,
    gaussian_information,
    monte_carlo_information,
    neighbour_information,
    spectrum,
)


def compare_estimates(
    states: ArrayLike, lambdas: Sequence[float], sigmas: Sequence[float], n_dimensions: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Estimate I(z; z_tilde) of the states of one token position in several ways.

    Of the whole state: the formula with the shrunk covariance, and Gaussian states drawn with it. Of the
    first principal components, where neighbours can be counted: the formula with their sample covariance,
    Gaussian states drawn with it, and the real states. The formula is exact for Gaussian states and a bound for
    the real ones.

    Args:
        states: (inputs, width), at least 2 inputs.
        lambdas: in [0, 1].
        sigmas: standard deviations of the noise, more than 0.
        n_dimensions: of the projection, at most the width.
        seed: of all draws.

    Returns:
        Columns `of` ("whole state" or "components"), `estimate` ("formula", "Gaussian states" or "real states"),
        `sigma`, `lambda`, and in nats `mean` with its 95 % interval `low`, `high` (of the estimate, the states given).
    """
    covariance = estimate_covariance(states)
    few = PCA(n_dimensions, svd_solver="full").fit_transform(np.asarray(states, float))
    small = np.atleast_2d(np.cov(few.T))
    twins = np.random.default_rng(seed).multivariate_normal(np.zeros(n_dimensions), small, len(few))
    rows = []
    for case, (sigma, lambda_) in enumerate(product(sigmas, lambdas)):
        own = seed + case  # each case draws anew
        found = {
            ("whole state", "formula"): (float(gaussian_information(spectrum(covariance), lambda_, sigma)), 0.0),
            ("whole state", "Gaussian states"): monte_carlo_information(covariance, lambda_, sigma, len(few), own),
            ("components", "formula"): (float(gaussian_information(spectrum(small), lambda_, sigma)), 0.0),
            ("components", "Gaussian states"): neighbour_information(twins, lambda_, sigma, seed=own),
            ("components", "real states"): neighbour_information(few, lambda_, sigma, seed=own),
        }
        for (of, estimate), (mean, error) in found.items():
            interval = {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}
            rows.append({"of": of, "estimate": estimate, "sigma": sigma, "lambda": lambda_, **interval})
    return pd.DataFrame(rows)
