"""Follow the bottleneck to the limit of no noise (Theorem 2 of the NIB paper).

As sigma -> 0, z_tilde = lambda * z + eps becomes lambda * z. Exports `noise_spread`, how far F(z_tilde) still
varies between draws, `gradient_norm`, the rate at which that vanishes, and `recovered_share`, what is
left of the state.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.checks import check_count
from nib.shapes import Embeds, PairValues
from nib.towers import Split
from studies.theory.information import add_noise


def noise_spread(
    split: Split, targets: Embeds, lambda_: float, sigmas: Sequence[float], n_draws: int = 20, seed: int = 0
) -> Tensor:
    """Return the standard deviation of F(lambda z + eps) over draws of the noise.

    For small sigma it is sigma times the length of the gradient of F at lambda z (`gradient_norm`).
    All inputs and all sigmas share the draws, scaled, so that the rate shows without chance.

    Args:
        split: the tower, cut, with the batch of inputs in it.
        targets: (batch, embed), the other modality's embeddings.
        lambda_: in [0, 1].
        sigmas: standard deviations of the noise, each at least 0.
        n_draws: at least 2, all in one batch.
        seed: of the noise.

    Returns:
        (sigmas, batch), in cosine units; 0 at sigma 0.

    Raises:
        ValueError: a value out of its range.
    """
    check_count("n_draws", n_draws, 2)
    if min(sigmas) < 0:
        raise ValueError(f"sigmas must be at least 0, got {list(sigmas)}")
    z = split.hidden_states
    noise = torch.randn(n_draws, 1, *z.shape[1:], generator=torch.Generator().manual_seed(seed)).to(z)
    spreads = []
    with torch.no_grad():
        for sigma in sigmas:
            states = (lambda_ * z + sigma * noise).flatten(0, 1)  # (draws * batch, tokens, width)
            embeds = split(states).unflatten(0, (n_draws, -1))
            values = cosine_similarity(embeds, targets[None], dim=-1)  # (draws, batch)
            spreads.append((values - values[0]).std(0))  # less the first, so that equal values give 0
    return torch.stack(spreads)


def gradient_norm(split: Split, targets: Embeds, lambda_: float) -> PairValues:
    """Return the length of the gradient of F with respect to all hidden states, at lambda z: (batch,)."""
    states = (lambda_ * split.hidden_states).requires_grad_()
    with torch.enable_grad():
        similarity = cosine_similarity(split(states), targets, dim=-1)
    (gradient,) = torch.autograd.grad(similarity.sum(), states)
    return gradient.flatten(1).norm(dim=1)


def recovered_share(states: ArrayLike, lambda_: float, sigma: float, seed: int = 0) -> float:
    """Say how often a narrowed state still tells which of the states it was.

    A share of 1 means that narrowing has taken nothing away that tells these inputs apart.

    Args:
        states: (inputs, width).
        lambda_: in [0, 1].
        sigma: standard deviation of the noise, at least 0.
        seed: of the noise.

    Returns:
        The share of inputs for which lambda z is the state nearest to z_tilde, in [0, 1].
    """
    states = np.asarray(states, float)
    distances = cdist(add_noise(states, lambda_, sigma, seed), lambda_ * states)
    nearest = distances == distances.min(1, keepdims=True)
    return float((nearest.diagonal() / nearest.sum(1)).mean())  # where several are nearest, one is guessed
