"""Put numbers on the statements of the NIB paper: its theorems, its properties, and the limits it names.

`information` and `estimates` are Theorem 1, `noiseless` Theorem 2, `path` Theorem 3 and Sensitivity, `invariance`
Implementation Invariance, `removal` the link between a score and the similarity.
"""

from nib.theory.estimates import compare_estimates
from nib.theory.information import (
    difference_limit,
    estimate_covariance,
    gaussian_information,
    monte_carlo_information,
    neighbour_information,
    spectrum,
)
from nib.theory.invariance import fold_norms, reparameterise, split_linears
from nib.theory.noiseless import gradient_norm, noise_spread, recovered_share
from nib.theory.path import gaps, integrate_at, log_quadrature, profile
from nib.theory.removal import drops_without_states

__all__ = [
    "compare_estimates",
    "difference_limit",
    "drops_without_states",
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
