"""Put numbers on the statements of the NIB paper: its theorems, its properties, and the limits it names.

`information` and `estimates` are Theorem 1, `noiseless` Theorem 2, `path` Theorem 3 and Sensitivity, `invariance`
Implementation Invariance.
"""

from studies.theory.estimates import compare_estimates
from studies.theory.information import (
    difference_limit,
    estimate_covariance,
    gaussian_information,
    monte_carlo_information,
    neighbour_information,
    spectrum,
)
from studies.theory.invariance import fold_norms, reparameterise, split_linears
from studies.theory.noiseless import gradient_norm, noise_spread, recovered_share
from studies.theory.path import gaps, integrate_at, log_quadrature, profile

__all__ = [
    "compare_estimates",
    "difference_limit",
    "estimate_covariance",
    "fold_norms",
    "gaps",
    "gaussian_information",
    "gradient_norm",
    "integrate_at",
    "log_quadrature",
    "monte_carlo_information",
    "neighbour_information",
    "noise_spread",
    "profile",
    "recovered_share",
    "reparameterise",
    "spectrum",
    "split_linears",
]
