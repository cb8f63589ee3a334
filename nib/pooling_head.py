"""Run SigLIP's attention pooling head with its attention in the open, exactly.

PyTorch's `MultiheadAttention` hands out its probabilities as a copy, through which nothing can be differentiated; here
they are part of the graph.
"""

from torch import Tensor, nn
from torch.nn.functional import linear

from nib.shapes import Embeds, HiddenStates


def run_open(head: nn.Module, states: HiddenStates) -> tuple[Embeds, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Pool normed states, (rows, tokens, width), with a learned query.

    Returns:
        The embeddings, (rows, embed); the attention of the query, (rows, heads, 1, tokens); and with all heads joined
        the query (rows, 1, width), keys and values (rows, tokens, width), and what the attention gives before its
        out-projection (rows, 1, width).
    """
    attention = head.attention
    parts = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3))
    inputs = (head.probe.expand(len(states), -1, -1), states, states)
    joined = [linear(x, *part) for x, part in zip(inputs, parts)]
    query, key, value = (x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in joined)
    probabilities = (query @ key.mT / key.shape[-1] ** 0.5).softmax(-1)  # (rows, heads, 1, tokens)
    output = (probabilities @ value).transpose(1, 2).flatten(2)  # (rows, 1, width)
    return finish(head, output)[:, 0], probabilities, (*joined, output)


def finish(head: nn.Module, outputs: Tensor) -> Tensor:
    """Turn what the attention gives, or single values, (..., width), into embeddings, (..., embed)."""
    pooled = head.attention.out_proj(outputs)
    return pooled + head.mlp(head.layernorm(pooled))
