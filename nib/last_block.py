"""Run CLIP's last block for the pooled token alone: the only one whose output is used.

It is exact, and saves nearly the whole block: of the other tokens only their layer norm is computed.
"""

import torch
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from nib.checks import is_changed
from nib.shapes import HiddenStates

KINDS = ("sdpa", "eager", "nib_open")  # of attention, whose masks it reads; the last is `open_attention`'s


def fits(block: nn.Module) -> bool:
    """Say whether `run_pooled` is the same as the block: CLIP's own, and nothing hooked."""
    if type(block) is not CLIPEncoderLayer or block.self_attn.config._attn_implementation not in KINDS:
        return False
    attention = block.self_attn
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    return all(type(linear) is nn.Linear for linear in linears) and not any(map(is_changed, block.modules()))


def run_pooled(
    block: nn.Module,
    hidden_states: HiddenStates,
    pool_index: Tensor,
    attention_mask: Tensor | None = None,
    is_causal: bool = False,
    **kwargs,
) -> Tensor:
    """Return what the block makes of the token at `pool_index`, (rows,), of each row of what enters it: (rows, width).

    Keys and values are linear in the normed states x. So each head's query meets x through W_k' q, q'(W_k x + b_k)
    being that and a constant which the softmax ignores; and W_v is applied once to the average of x, the weights of
    which add up to 1. The mask, (rows or 1, 1, tokens, tokens), is boolean or added to the logits; without one, a
    token sees no later ones where `is_causal`.
    """
    attention = block.self_attn
    heads, rows = attention.num_heads, torch.arange(len(hidden_states), device=hidden_states.device)
    x = block.layer_norm1(hidden_states)
    query = attention.q_proj(x[rows, pool_index]).unflatten(1, (heads, -1)) * attention.scale  # (rows, heads, size)
    keys, values = (linear.weight.unflatten(0, (heads, -1)) for linear in (attention.k_proj, attention.v_proj))
    logits = torch.einsum("rhs,hsw->rhw", query, keys) @ x.mT  # (rows, heads, tokens)
    if attention_mask is not None:
        seen = attention_mask.expand(len(x), -1, -1, -1)[rows, :, pool_index]  # (rows, 1, tokens)
        logits = logits.masked_fill(~seen, -torch.inf) if seen.dtype == torch.bool else logits + seen
    elif is_causal:
        later = torch.arange(x.shape[1], device=x.device) > pool_index[:, None]
        logits = logits.masked_fill(later[:, None], -torch.inf)
    mixed = logits.softmax(-1) @ x  # (rows, heads, width)
    mixed = torch.einsum("rhw,hsw->rhs", mixed, values).flatten(1) + attention.v_proj.bias
    state = hidden_states[rows, pool_index] + attention.out_proj(mixed)
    return state + block.mlp(block.layer_norm2(state))
