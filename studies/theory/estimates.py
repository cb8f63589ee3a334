"""Set the formula of Theorem 1 beside estimates that do not use it.

Exports `compare_estimates` and `judge_estimates`, what it says in a few numbers.
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


def judge_estimates(information: pd.DataFrame) -> dict[str, float]:
    """Say how far the estimates of Theorem 1 lie from the formula, and on which side of it.

    Args:
        information: what `compare_estimates` gives, with a column `position` for the states it was given.

    Returns:
        Numbers by name, over all positions, sigmas and lambdas above 0:
        `cases`, how many; `worst`, the largest distance of drawn Gaussian states from the formula, in standard errors;
        `bias` and `largest_bias`, the mean and the largest distance in nats of the neighbour estimate for Gaussian
        states; `below`, the share of cases in which the estimate for the real states is at or below the formula within
        its interval; `least` and `most`, the estimate for the real states as a share of the formula, where that is
        above 1 nat.
    """
    keys = ["position", "sigma", "lambda", "of", "estimate"]
    wide = information[information["lambda"] > 0].set_index(keys).unstack(["of", "estimate"])
    mean, low = wide["mean"], wide["low"]
    whole, small = mean["whole state"], mean["components"]
    error = (whole["Gaussian states"] - low["whole state"]["Gaussian states"]) / 1.96  # the interval's half width
    bias = small["Gaussian states"] - small["formula"]
    share = (small["real states"] / small["formula"])[small["formula"] > 1]
    return {
        "cases": len(wide),
        "worst": ((whole["Gaussian states"] - whole["formula"]) / error).abs().max(),
        "bias": bias.mean(),
        "largest_bias": bias.abs().max(),
        "below": (low["components"]["real states"] <= small["formula"]).mean(),
        "least": share.min(),
        "most": share.max(),
    }
