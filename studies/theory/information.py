"""Measure what a narrowed state still says about the state (Theorem 1 of the NIB paper).

The bottleneck is z_tilde = lambda * z + eps, eps ~ N(0, sigma^2 I) (Eq. 3, 4); I is the mutual
information of z and z_tilde, in nats. Exports the formula for Gaussian states (`estimate_covariance`,
`spectrum`, `gaussian_information`, `difference_limit`) and two estimates that do not use it
(`monte_carlo_information`, `neighbour_information`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, gammaln
from scipy.stats import multivariate_normal, norm
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from nib.checks import check_count


def estimate_covariance(states: ArrayLike) -> NDArray:
    """Estimate the covariance of the states of one token position over many inputs, with shrinkage.

    Ledoit and Wolf (2004) pull the sample covariance a little towards a multiple of the identity. The
    smallest eigenvalues, on which I depends most when sigma is small, are then not those of chance.
    A rank below the width is filled up by this.

    Args:
        states: (inputs, width), at least 2 inputs, finite.

    Returns:
        (width, width), float64, symmetric; zeros where all inputs have the same state.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    states = _check_states(states)
    return LedoitWolf().fit(states).covariance_


def spectrum(covariance: ArrayLike) -> NDArray:
    """Return the eigenvalues of a covariance, largest first; those within rounding of zero are zero."""
    eigenvalues = np.linalg.eigvalsh(np.asarray(covariance, float))[::-1]
    rounding = abs(eigenvalues).max() * len(eigenvalues) * np.finfo(float).eps  # the tolerance of np.linalg.matrix_rank
    return np.where(eigenvalues > rounding, eigenvalues, 0.0)


def gaussian_information(eigenvalues: ArrayLike, lambdas: ArrayLike, sigma: float) -> NDArray:
    """Return I(z; z_tilde) = 1/2 log det(I + lambda^2 Sigma / sigma^2) for Gaussian z (Theorem 1).

    It rises with lambda and is 0 at 0. For states of another distribution with the same covariance
    it is an upper bound.

    Args:
        eigenvalues: (width,), of the covariance Sigma of z, at least 0.
        lambdas: any shape, in [0, 1].
        sigma: standard deviation of the noise, more than 0.

    Returns:
        Nats, in the shape of `lambdas`, float64, at least 0.

    Raises:
        ValueError: a value out of its range.
    """
    lambdas, eigenvalues = _check_lambdas(lambdas), np.asarray(eigenvalues, float)
    _check_sigma(sigma)
    if (eigenvalues < 0).any():
        raise ValueError(f"eigenvalues must be at least 0, got {eigenvalues.min()}")
    return 0.5 * np.log1p((lambdas[..., None] / sigma) ** 2 * eigenvalues).sum(-1)


def difference_limit(eigenvalues: ArrayLike, larger: float, smaller: float) -> float:
    """Return what I(larger) - I(smaller) tends to as sigma -> 0: rank(Sigma) log(larger / smaller) (Theorem 2).

    Each of the two grows without a bound; their difference says nothing of the states but their rank.

    Args:
        eigenvalues: (width,), of the covariance; those above 0 count.
        larger, smaller: two values of lambda, in (0, 1].

    Returns:
        Nats; positive where `larger` is the larger one.

    Raises:
        ValueError: a lambda outside (0, 1].
    """
    if min(larger, smaller) <= 0:
        raise ValueError(f"both lambdas must be above 0, got {larger} and {smaller}")
    _check_lambdas([larger, smaller])
    return float((np.asarray(eigenvalues) > 0).sum() * np.log(larger / smaller))


def monte_carlo_information(
    covariance: ArrayLike, lambda_: float, sigma: float, n_samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Estimate I of Gaussian states by drawing them: the mean of log p(z_tilde given z) - log p(z_tilde).

    Args:
        covariance: (width, width), of the states.
        lambda_: in [0, 1].
        sigma: standard deviation of the noise, more than 0.
        n_samples: at least 2.
        seed: of states and noise.

    Returns:
        The estimate in nats and its standard error.

    Raises:
        ValueError: a value out of its range.
    """
    check_count("n_samples", n_samples, 2)
    lambda_, covariance = float(_check_lambdas(lambda_)), np.asarray(covariance, float)
    _check_sigma(sigma)
    width = len(covariance)
    generator = np.random.default_rng(seed)
    z = generator.multivariate_normal(np.zeros(width), covariance, n_samples)
    noise = sigma * generator.standard_normal((n_samples, width))
    noisy = multivariate_normal(np.zeros(width), lambda_**2 * covariance + sigma**2 * np.eye(width))
    terms = norm(scale=sigma).logpdf(noise).sum(1) - noisy.logpdf(lambda_ * z + noise)
    return float(terms.mean()), float(terms.std(ddof=1) / np.sqrt(n_samples))


def neighbour_information(
    states: ArrayLike, lambda_: float, sigma: float, n_neighbours: int = 3, seed: int = 0
) -> tuple[float, float]:
    """Estimate I of states of any distribution from the distances between their noisy copies.

    I is the entropy of z_tilde less that of the noise, which is known. The first is estimated from
    the distance of each copy to its k-th neighbour (Kozachenko and Leonenko, 1987), without any
    assumption on the distribution. That works in few dimensions only: project the states first.

    Args:
        states: (inputs, dimensions), more inputs than neighbours, finite.
        lambda_: in [0, 1].
        sigma: standard deviation of the noise, more than 0.
        n_neighbours: k, at least 1.
        seed: of the noise.

    Returns:
        The estimate in nats and its standard error. Of 2000 Gaussian states in 3 dimensions it is 0.03
        too low on average; it can lie a little below 0.

    Raises:
        ValueError: a value out of its range.
    """
    states, lambda_ = _check_states(states), float(_check_lambdas(lambda_))
    _check_sigma(sigma)
    check_count("n_neighbours", n_neighbours)
    inputs, dimensions = states.shape
    if inputs <= n_neighbours:
        raise ValueError(f"states must have more than n_neighbours = {n_neighbours} rows, got {inputs}")
    noisy = add_noise(states, lambda_, sigma, seed)
    distances, _ = NearestNeighbors(n_neighbors=n_neighbours).fit(noisy).kneighbors()  # of other points only
    log_ball = dimensions / 2 * np.log(np.pi) - gammaln(dimensions / 2 + 1)  # volume of the unit ball
    terms = dimensions * np.log(distances[:, -1]) + log_ball + digamma(inputs) - digamma(n_neighbours)
    noise_entropy = dimensions / 2 * np.log(2 * np.pi * np.e * sigma**2)
    return float(terms.mean() - noise_entropy), float(terms.std(ddof=1) / np.sqrt(inputs))


def add_noise(states: ArrayLike, lambda_: float, sigma: float, seed: int = 0) -> NDArray:
    """Draw z_tilde = lambda z + eps (Eq. 3, 4) from a stream of its own, apart from any draw of z with that seed."""
    states = np.asarray(states, float)
    return lambda_ * states + sigma * np.random.default_rng([seed, 1]).standard_normal(states.shape)


def _check_states(states: ArrayLike) -> NDArray:
    states = np.asarray(states, float)
    if states.ndim != 2 or len(states) < 2 or not np.isfinite(states).all():
        raise ValueError(f"states must be finite, (inputs, width) with at least 2 inputs, got shape {states.shape}")
    return states


def _check_lambdas(lambdas: ArrayLike) -> NDArray:
    lambdas = np.asarray(lambdas, float)
    if not ((lambdas >= 0) & (lambdas <= 1)).all():
        raise ValueError(f"lambda must be in [0, 1], got {lambdas}")
    return lambdas


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < np.inf:
        raise ValueError(f"sigma must be more than 0, got {sigma}")
