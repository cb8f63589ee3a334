"""Put Theorem 2 in a table: what becomes of each quantity as the noise goes to zero.

Exports `follow_formula`, `follow_states`, `follow_noise` and `judge_limit`. The first three return columns
`quantity`, `lambda`, `sigma` and `value`.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nib.clip import HookedCLIP
from nib.evaluation import Batch
from studies.theory.information import difference_limit, gaussian_information
from studies.theory.noiseless import gradient_norm, noise_spread, recovered_share
from studies.theory.sides import SIDES, cut_sides

COLUMNS = ["quantity", "lambda", "sigma", "value"]


def follow_formula(eigenvalues: ArrayLike, levels: Sequence[float], sigmas: Sequence[float]) -> pd.DataFrame:
    """Follow I of Gaussian states, and the difference of two, which alone converges.

    Args:
        eigenvalues: (width,), of the covariance.
        levels: values of lambda, rising, in (0, 1].
        sigmas: standard deviations of the noise.

    Returns:
        "I, nats", and for each level but the last "difference to the next λ / its limit", which tends to 1.
    """
    rows = []
    for (place, level), sigma in product(enumerate(levels), sigmas):
        value = gaussian_information(eigenvalues, level, sigma)
        rows.append(("I, nats", level, sigma, float(value)))
        if place + 1 < len(levels):
            above = levels[place + 1]
            difference = gaussian_information(eigenvalues, above, sigma) - value
            share = difference / difference_limit(eigenvalues, above, level)
            rows.append(("difference to the next λ / its limit", level, sigma, float(share)))
    return pd.DataFrame(rows, columns=COLUMNS)


def follow_states(states: ArrayLike, levels: Sequence[float], sigmas: Sequence[float]) -> pd.DataFrame:
    """Follow how many of the states (inputs, width) are told apart when narrowed and noisy, as a share in [0, 1]."""
    cases = product(levels, sigmas)
    rows = [("pictures told apart", level, sigma, recovered_share(states, level, sigma)) for level, sigma in cases]
    return pd.DataFrame(rows, columns=COLUMNS)


def follow_noise(
    clip: HookedCLIP,
    pairs: Batch,
    layer: int,
    levels: Sequence[float],
    sigmas: Sequence[float],
    n_pairs: int | None = None,
) -> pd.DataFrame:
    """Follow how far F(z_tilde) varies between ten draws of the noise, in both towers.

    Returns:
        A row a pair: "spread of F, picture" and the like, in cosine units, and "ratio, picture" and the like, the
        spread divided by sigma times the length of the gradient, which tends to about 1.
    """
    rows = []
    for side, _, split, targets in cut_sides(clip, pairs, [layer], n_pairs):
        for level in levels:
            slope = gradient_norm(split, targets, level)
            for sigma, spread in zip(sigmas, noise_spread(split, targets, level, sigmas, n_draws=10)):
                rows += [(f"spread of F, {side}", level, sigma, value) for value in spread.tolist()]
                rows += [(f"ratio, {side}", level, sigma, value) for value in (spread / (sigma * slope)).tolist()]
    return pd.DataFrame(rows, columns=COLUMNS)


def judge_limit(limit: pd.DataFrame) -> dict[str, float]:
    """Say what the smallest sigmas show.

    Args:
        limit: the mean of each quantity, with columns `quantity`, `lambda`, `sigma` and `mean`.

    Returns:
        Numbers by name: `slowest` and `fastest`, the powers of sigma with which the spread of F vanishes between the
        two smallest sigmas; `least_ratio` and `most_ratio` at the smallest; `coarsest` and `finest`, the ends of the
        sigmas of the formula, and `before` and `after`, I in nats there at the smallest lambda; `least_share` and
        `most_share`, the differences at the finest, divided by their limit; `told`, the smallest share of pictures
        told apart at the smallest sigma.
    """
    wide = limit.pivot(index=["quantity", "lambda"], columns="sigma", values="mean")
    spread, ratio = (wide.loc[[f"{name}, {side}" for side in SIDES]] for name in ("spread of F", "ratio"))
    smaller, larger = sorted(limit.loc[limit["quantity"].str.startswith("ratio"), "sigma"].unique())[:2]
    rates = np.log(spread[larger] / spread[smaller]) / np.log(larger / smaller)
    information = wide.loc["I, nats"].iloc[0].dropna()  # at the smallest lambda, by sigma
    finest, coarsest = information.index.min(), information.index.max()
    shares = wide.loc["difference to the next λ / its limit"][finest]
    return {
        "slowest": rates.min(),
        "fastest": rates.max(),
        "least_ratio": ratio[smaller].min(),
        "most_ratio": ratio[smaller].max(),
        "coarsest": coarsest,
        "finest": finest,
        "before": information[coarsest],
        "after": information[finest],
        "least_share": shares.min(),
        "most_share": shares.max(),
        "told": wide.loc["pictures told apart"][smaller].min(),
    }
