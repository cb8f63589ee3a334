"""Run SigLIP's attention pooling head with its attention in the open.

Exports `run_open`. PyTorch's `MultiheadAttention` hands out its probabilities as a copy, through which nothing can be
differentiated; here they are part of the graph. It is exact.
"""

from torch import Tensor, nn
from torch.nn.functional import linear

from nib.shapes import Embeds, HiddenStates


def run_open(head: nn.Module, states: HiddenStates) -> tuple[Embeds, Tensor]:
    """Pool normed states, (rows, tokens, width), with a learned query.

    Returns:
        The embeddings, (rows, embed), and the attention of the query, (rows, heads, 1, tokens).
    """
    attention = head.attention
    parts = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3))
    inputs = (head.probe.expand(len(states), -1, -1), states, states)
    query, key, value = (
        linear(x, *part).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x, part in zip(inputs, parts)
    )  # (rows, heads, 1 or tokens, size)
    probabilities = (query @ key.mT / key.shape[-1] ** 0.5).softmax(-1)
    pooled = attention.out_proj((probabilities @ value).transpose(1, 2).flatten(2))  # (rows, 1, width)
    pooled = pooled + head.mlp(head.layernorm(pooled))
    return pooled[:, 0], probabilities
