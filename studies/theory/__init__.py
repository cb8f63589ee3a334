"""Put numbers on the statements of the NIB paper: its theorems, its properties, and the limits it names.

`information` and `estimates` are Theorem 1, `noiseless` and `limit` Theorem 2, `path` and `sums` Theorem 3 and
Sensitivity, `invariance` Implementation Invariance. `sides` reads the states, `drawing` draws.
"""

from studies.theory.drawing import draw_gaps, draw_information, draw_limit, draw_profile, find_turn
from studies.theory.estimates import compare_estimates, judge_estimates
from studies.theory.information import (
    difference_limit,
    estimate_covariance,
    gaussian_information,
    monte_carlo_information,
    neighbour_information,
    spectrum,
)
from studies.theory.invariance import compare_writings, fold_norms, reparameterise, split_linears
from studies.theory.limit import follow_formula, follow_noise, follow_states, judge_limit
from studies.theory.noiseless import gradient_norm, noise_spread, recovered_share
from studies.theory.path import gaps, integrate_at, log_quadrature, profile
from studies.theory.sides import SIDES, choose_pairs, cut_side, cut_sides, embed_others, read_states
from studies.theory.sums import explain_parts, measure_parts, tabulate_gaps, tabulate_profile

__all__ = [
    "SIDES",
    "choose_pairs",
    "compare_estimates",
    "compare_writings",
    "cut_side",
    "cut_sides",
    "difference_limit",
    "draw_gaps",
    "draw_information",
    "draw_limit",
    "draw_profile",
    "embed_others",
    "estimate_covariance",
    "explain_parts",
    "find_turn",
    "fold_norms",
    "follow_formula",
    "follow_noise",
    "follow_states",
    "gaps",
    "gaussian_information",
    "gradient_norm",
    "integrate_at",
    "judge_estimates",
    "judge_limit",
    "log_quadrature",
    "measure_parts",
    "monte_carlo_information",
    "neighbour_information",
    "noise_spread",
    "profile",
    "read_states",
    "recovered_share",
    "reparameterise",
    "spectrum",
    "split_linears",
    "tabulate_gaps",
    "tabulate_profile",
]
