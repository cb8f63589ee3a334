"""Write the same function differently (Implementation Invariance of the NIB paper, App. E).

Exports `fold_norms` and `split_linears`, under which maps stay, and `reparameterise`, under which they
need not: the property speaks of what follows z, not of z. `compare_writings` puts them side by side.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from nib.clip import HookedCLIP
from nib.evaluation import Batch
from nib.integrate import integrate
from nib.shapes import Embeds
from nib.towers import Split
from studies.theory.sides import cut_side


def fold_norms(clip: HookedCLIP) -> HookedCLIP:
    """Move the scale of each layer norm of the blocks, and of the one before the projection, into the linears after it.

    W (s * x + b) = (W diag(s)) (x + b / s): the scale becomes 1, the bias b / s.

    Returns:
        Another model that computes the same embeddings; the given one stays as it is.

    Raises:
        ValueError: a scale is 0, so that it cannot be undone.
    """
    changed = HookedCLIP(copy.deepcopy(clip.model), clip.tokenizer, clip.image_processor)
    for tower in (changed.image, changed.text):
        for block in tower.blocks:
            attention = block.self_attn
            _fold(block.layer_norm1, attention.q_proj, attention.k_proj, attention.v_proj)
            _fold(block.layer_norm2, block.mlp.fc1)
        _fold(tower.norm, tower.projection)
    return changed


@torch.no_grad()
def _fold(norm: nn.LayerNorm, *linears: nn.Linear) -> None:
    if (norm.weight == 0).any():
        raise ValueError("every scale of a layer norm must differ from 0 to be folded")
    for linear in linears:
        linear.weight.mul_(norm.weight)  # (out, in) * (in,)
    norm.bias.div_(norm.weight)
    norm.weight.fill_(1)


@torch.no_grad()
def split_linears(clip: HookedCLIP) -> HookedCLIP:
    """Write each linear layer of the blocks as two, by a QR decomposition of its weight.

    Returns:
        Another model that computes the same embeddings; the given one stays as it is.
    """
    changed = HookedCLIP(copy.deepcopy(clip.model), clip.tokenizer, clip.image_processor)
    for tower in (changed.image, changed.text):
        for block in tower.blocks:
            for parent, name in (
                *((block.self_attn, name) for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
                (block.mlp, "fc1"),
                (block.mlp, "fc2"),
            ):
                setattr(parent, name, _halve(getattr(parent, name)))
    return HookedCLIP(changed.model, clip.tokenizer, clip.image_processor)


def _halve(linear: nn.Linear) -> nn.Sequential:
    left, right = torch.linalg.qr(linear.weight)  # (out, rank), (rank, in)
    first = nn.Linear(right.shape[1], right.shape[0], bias=False).to(right)
    second = nn.Linear(left.shape[1], left.shape[0]).to(left)
    for parameter, value in ((first.weight, right), (second.weight, left), (second.bias, linear.bias)):
        parameter.copy_(value)
    return nn.Sequential(first, second)


class _Undo(nn.Module):
    """Take a scale and an offset off the hidden states before a module that follows the cut."""

    def __init__(self, module: nn.Module, scale: float, offset: torch.Tensor):
        super().__init__()
        self.module, self.scale, self.offset = module, scale, offset

    def forward(self, hidden_states, *args, **kwargs):
        return self.module((hidden_states - self.offset) / self.scale, *args, **kwargs)


def reparameterise(split: Split, scale: float = 1.0, offset: torch.Tensor | float = 0.0) -> Split:
    """Write z as scale * z + offset, and let the suffix undo it.

    The embedding is the same function of the input. A scale leaves the map as it is; an offset moves
    the end of the path at lambda = 0, which becomes another state, and so the map.

    Args:
        split: the tower, cut before any of its blocks.
        scale: other than 0.
        offset: a number, (width,) or (tokens, width).

    Raises:
        ValueError: the scale is 0, or no block follows the cut.
    """
    if scale == 0 or split.layer >= len(split.tower.blocks):
        raise ValueError(
            f"scale must differ from 0 and a block follow the cut, got {scale} and layer {split.layer}"
            f" of {len(split.tower.blocks)}"
        )
    offset = torch.as_tensor(offset).to(split.hidden_states)
    blocks = list(split.tower.blocks)
    blocks[split.layer] = _Undo(blocks[split.layer], scale, offset)
    tower = replace(split.tower, blocks=nn.ModuleList(blocks))
    return replace(split, hidden_states=scale * split.hidden_states + offset, tower=tower)


def compare_writings(clip: HookedCLIP, pairs: Batch, others: Mapping[str, Embeds], layer: int) -> pd.DataFrame:
    """Compare the scores of a model with those of the same model written differently, and of z written differently.

    Args:
        clip: in float64, so that rounding is small.
        others: side -> the other side's embeddings (batch, embed), see `embed_others`; as many pairs are taken.
        layer: blocks run before the cut.

    Returns:
        Columns `side`, `written`, `change of the embedding` and `change of the scores`: the norm of the difference
        relative to the norm; rounding where nothing has changed.
    """
    models = {"layer norms folded": fold_norms(clip), "linear layers split": split_linears(clip)}
    rows = []
    for side, targets in others.items():
        targets, n_pairs = targets[:, None].to(clip.dtype), len(targets)
        split = cut_side(clip, pairs, side, layer)[:n_pairs]
        written = {name: cut_side(model, pairs, side, layer)[:n_pairs] for name, model in models.items()}
        written["2 z"] = reparameterise(split, 2.0)
        written["z - mean"] = reparameterise(split, offset=-split.hidden_states.mean((0, 1)))
        scores, embeds = integrate(split, targets)[0], split(split.hidden_states)
        for name, other in written.items():
            moved = _relative(other(other.hidden_states), embeds)
            rows.append((side, name, moved, _relative(integrate(other, targets)[0], scores)))
    return pd.DataFrame(rows, columns=["side", "written", "change of the embedding", "change of the scores"])


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of a difference, relative to that of what is expected."""
    return float((found - expected).norm() / expected.norm())
