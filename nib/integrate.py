"""Integrate the gradient of the similarity along the narrowing path (Eq. 10 of the NIB paper).

At the limit of a noiseless bottleneck (Theorem 2) the state lambda * z runs from nothing to z, and

    A_i = integral over lambda of z_i * (dF/dz_i)(lambda z),    F(z) = cos(suffix(z), target),

adds up to F(z) - F(lambda_min z) (Theorem 3). That is integrated gradients of a hidden layer with a zero baseline.
From another baseline b the path is b + lambda (z - b), and z - b takes the place of z.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from numbers import Real

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.checks import check_count
from nib.shapes import Embeds, HiddenStates, Nodes, Targets, TargetScores
from nib.towers import Split

_cosine = partial(cosine_similarity, dim=-1)


def _riemann(shift):
    return lambda n: ((np.arange(n) + shift) / n, np.full(n, 1 / n))


def _riemann_trapezoid(n):
    weights = np.full(n, 1 / (n - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, n), weights


@lru_cache
def _gausslegendre(n):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


# From a number of nodes to nodes and weights on [0, 1]; named as in `captum.attr.IntegratedGradients`.
RULES = {
    "riemann_right": _riemann(1),
    "riemann_left": _riemann(0),
    "riemann_middle": _riemann(0.5),
    "riemann_trapezoid": _riemann_trapezoid,
    "gausslegendre": _gausslegendre,
}


def place_nodes(quadrature: str = "riemann_right", n_steps: int = 10, lambda_min: float = 0.0) -> tuple[Nodes, Nodes]:
    """Return the nodes of a rule, ascending, and their weights, which sum to 1 - lambda_min: float64, (n_steps,) each.

    The default is the paper's. captum's trapezoid weights sum to (n - 1)/n instead, and so do its attributions.

    Args:
        quadrature: one of `RULES`.
        n_steps: number of nodes, at least 1 (2 for the trapezoid), at most `nib.limits.nodes` or `legendre`.
        lambda_min: where the path starts, in [0, 1).
    """
    if not isinstance(quadrature, str) or quadrature not in RULES:
        raise ValueError(f"quadrature must be one of {sorted(RULES)}, got {quadrature!r}")
    limit = "legendre" if quadrature == "gausslegendre" else "nodes"
    check_count("n_steps", n_steps, 2 if quadrature == "riemann_trapezoid" else 1, limit)
    if not isinstance(lambda_min, Real) or isinstance(lambda_min, bool) or not 0 <= lambda_min < 1:
        raise ValueError(f"lambda_min must be in [0, 1), got {lambda_min!r}")
    nodes, weights, lambda_min = *map(torch.from_numpy, RULES[quadrature](int(n_steps))), float(lambda_min)
    return lambda_min + (1 - lambda_min) * nodes, (1 - lambda_min) * weights


def warn_of_zero(quadrature: str, n_steps: int, lambda_min: float, stacklevel: int = 3) -> None:
    """Check a path; warn where a node lies at 0, at which the gradient has no meaning for the map."""
    nodes, weights = place_nodes(quadrature, n_steps, lambda_min)
    if nodes[0] == 0 and weights[0] > 0:
        warnings.warn(
            f"{quadrature} has a node at lambda = 0, where layer norms make the gradient hundreds of times too large:"
            " the sum will be far off; start at lambda_min > 0, or take another quadrature",
            stacklevel=stacklevel,
        )


def integrate(
    split: Split,
    targets: Targets,
    n_steps: int = 10,
    quadrature: str = "riemann_right",
    lambda_min: float = 0.0,
    batch_size: int = 64,
    baseline: HiddenStates | None = None,
    compare: Callable[[Embeds, Targets], Tensor] = _cosine,
) -> tuple[TargetScores, Tensor]:
    """Attribute the similarity of each input to each of its targets; a forward pass serves all targets of its input.

    Args:
        targets: (batch, targets, embed), the other modality's embeddings.
        n_steps, quadrature, lambda_min: see `place_nodes`.
        batch_size: rows of hidden states at once; bounds memory and changes the result only by rounding.
        baseline: (batch, tokens, width), where the path begins; zero if None.
        compare: F, from embeddings (steps, batch, 1, embed) and targets (1, batch, targets, embed) to one number each:
            the cosine, or `dot`.

    Returns:
        Scores (batch, targets, tokens), summed over the width, signed, in cosine units; and
        F(b + lambda_min (z - b)), (batch, targets), where the path starts.
    """
    check_count("batch_size", batch_size)
    batch_size, lambda_min = int(batch_size), float(lambda_min)
    nodes, weights = (values.to(targets) for values in place_nodes(quadrature, n_steps, lambda_min))
    scores, starts = [], []
    for first in range(0, len(split), batch_size):
        rows = slice(first, first + batch_size)
        part, goals = split[rows], targets[rows]
        base = None if baseline is None else baseline[rows]
        folded = max(1, batch_size // len(part))  # steps in one batch
        chunks = zip(nodes.split(folded), weights.split(folded))
        scores.append(sum(_integrate_steps(part, goals, base, *chunk, compare) for chunk in chunks))
        starts.append(anchor(part, goals, base, compare, lambda_min))
    return torch.cat(scores), torch.cat(starts)


@torch.no_grad()
def anchor(
    split: Split,
    targets: Targets,
    baseline: HiddenStates | None = None,
    compare: Callable[[Embeds, Targets], Tensor] = _cosine,
    lambda_min: float = 0.0,
) -> Tensor:
    """Return F where the path starts, by default at the baseline, where nothing of an input is left: (batch, targets).

    At 0 all tokens are alike and stay so in every block, whatever attends to whatever: no mask and no pooled token
    makes a difference, so one row serves the batch.
    """
    start = _place(split.hidden_states, baseline, lambda_min) if lambda_min else baseline
    if start is not None:
        return _similarity(split, start, targets, compare)[0]
    embeds = split[:1](torch.zeros_like(split.hidden_states[:1]))  # (1, embed)
    return compare(embeds[None], targets)


def dot(embeds: Embeds, targets: Targets) -> Tensor:
    """Multiply embeddings with targets: linear in both, so that what adds up in an embedding adds up in F."""
    return (embeds * targets).sum(-1)


def _place(z, baseline, node):
    """Return the point of the path at a node, or at several nodes (steps, 1, 1, 1)."""
    return node * z if baseline is None else baseline + node * (z - baseline)


def _integrate_steps(split, targets, baseline, nodes, weights, compare) -> TargetScores:
    """Weigh and sum the gradients at some nodes of the path, all in one batch."""
    path = _place(split.hidden_states, baseline, nodes.view(-1, 1, 1, 1))  # (steps, batch, tokens, width)
    path = path.flatten(0, 1).requires_grad_()
    z = split.hidden_states if baseline is None else split.hidden_states - baseline
    with torch.enable_grad():
        similarity = _similarity(split, path, targets, compare)  # (steps, batch, targets)
    columns = similarity.sum((0, 1)).unbind()
    scores = []
    for column in columns:
        (gradient,) = torch.autograd.grad(column, path, retain_graph=column is not columns[-1])
        gradient = gradient.unflatten(0, (len(nodes), len(z)))  # (steps, batch, tokens, width)
        scores.append(torch.einsum("s,sbtw,btw->bt", weights, gradient, z))
    return torch.stack(scores, 1)


def _similarity(split, hidden_states, targets, compare):
    """Compare (steps * batch) states with the targets of their inputs: (steps, batch, targets)."""
    embeds = split(hidden_states).unflatten(0, (-1, len(split)))  # (steps, batch, embed)
    return compare(embeds[:, :, None], targets[None])
