"""Look along the path from nothing to z (Theorem 3 and Sensitivity of the NIB paper).

F(z) - F(0) is the integral over lambda of dF(lambda z)/dlambda, which the scores divide among tokens.
Exports `profile`, what is integrated; `log_quadrature`, nodes that suit it; `gaps`, how far quadratures miss
the integral; and `integrate_at`, scores by any quadrature.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.integrate import integrate, place_nodes
from nib.shapes import Embeds, Nodes, PairValues, Targets, TargetScores
from nib.towers import Split


def profile(
    split: Split, targets: Embeds, lambdas: Sequence[float] | Nodes, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Return F(lambda z) and its slope dF/dlambda along the path.

    Args:
        split: the tower, cut, with the batch of inputs in it.
        targets: (batch, embed), the other modality's embeddings.
        lambdas: points of the path, 0 among them if wanted.
        batch_size: rows of hidden states at once.

    Returns:
        F in [-1, 1] and the slope, each (lambdas, batch).
    """
    values, slopes = [], []
    for first in range(0, len(split), batch_size):
        part, goals = split[first : first + batch_size], targets[first : first + batch_size]
        points = [_value_and_slope(part, goals, float(point)) for point in lambdas]
        values.append(torch.stack([value for value, _ in points]))
        slopes.append(torch.stack([slope for _, slope in points]))
    return torch.cat(values, 1), torch.cat(slopes, 1)


def _value_and_slope(split: Split, targets: Embeds, point: float) -> tuple[PairValues, PairValues]:
    z = split.hidden_states
    scale = torch.full((len(z), 1, 1), point, dtype=z.dtype, device=z.device, requires_grad=True)
    with torch.enable_grad():
        similarity = cosine_similarity(split(scale * z), targets, dim=-1)
    (slope,) = torch.autograd.grad(similarity.sum(), scale)
    return similarity.detach(), slope.flatten()


def log_quadrature(n_steps: int, start: float = 1e-5, end: float = 1.0) -> tuple[Nodes, Nodes]:
    """Place Gauss-Legendre nodes in log lambda.

    Layer norms make F change by ratios of lambda, so that its slope over log lambda is even and few
    nodes meet it. What lies below `start` is missed.

    Args:
        n_steps: number of nodes, at least 1.
        start, end: the stretch of the path, 0 < start < end <= 1.

    Returns:
        Nodes in ascending order and their weights for an integral over lambda, float64, each (n_steps,).

    Raises:
        ValueError: a stretch that is none, or too few nodes.
    """
    if not 0 < start < end <= 1:
        raise ValueError(f"start and end must satisfy 0 < start < end <= 1, got {start} and {end}")
    places, weights = place_nodes("gausslegendre", n_steps)
    length = np.log(end / start)
    nodes = start * torch.exp(length * places)
    return nodes, length * weights * nodes


def gaps(
    split: Split, targets: Embeds, paths: Mapping[Hashable, tuple[Nodes, Nodes]], batch_size: int = 64
) -> dict[Hashable, PairValues]:
    """Return the completeness gap of each of several quadratures (Sensitivity, App. E).

    Quadratures share many nodes; each is visited once.

    Args:
        split, targets, batch_size: see `profile`.
        paths: name -> nodes and weights.

    Returns:
        name -> (batch,): the sum of all scores less F(z) - F(0), signed, in cosine units.
    """
    nodes = np.concatenate([[0.0, 1.0], *(nodes for nodes, _ in paths.values())])
    unique, places = np.unique(nodes.round(14), return_inverse=True)  # where two meet, they differ by rounding
    values, slopes = profile(split, targets, unique, batch_size)
    explained = values[places[1]] - values[places[0]]
    found, first = {}, 2
    for name, (_, weights) in paths.items():
        found[name] = weights.to(slopes) @ slopes[places[first : first + len(weights)]] - explained
        first += len(weights)
    return found


def integrate_at(split: Split, targets: Targets, nodes: Nodes, weights: Nodes, batch_size: int = 64) -> TargetScores:
    """Attribute as `nib.integrate.integrate` does, with nodes and weights of one's own.

    Args:
        split: the tower, cut, with the batch of inputs in it.
        targets: (batch, targets, embed), the other modality's embeddings.
        nodes: (steps,), above 0.
        weights: (steps,), for an integral over lambda.
        batch_size: rows of hidden states at once.

    Returns:
        Scores (batch, targets, tokens), summed over the width, signed, in cosine units.

    Raises:
        ValueError: a node that is not above 0.
    """
    if not (nodes > 0).all():
        raise ValueError(f"nodes must be above 0, got {nodes.min().item()}")
    scores = 0.0
    for node, weight in zip(nodes.tolist(), weights.tolist()):
        here = replace(split, hidden_states=node * split.hidden_states)
        # One right Riemann step from lambda z is lambda z times the gradient at lambda z.
        scores = scores + weight / node * integrate(here, targets, n_steps=1, batch_size=batch_size)[0]
    return scores
