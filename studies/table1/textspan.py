"""Take an image embedding apart into what each head writes from each patch, and name heads by texts (TEXTSPAN).

Exports `decompose`, `Parts`, `heat_map` and `text_span`. Source: Gandelsman, Efros and Steinhardt, *Interpreting CLIP's
Image Representation via Text-Based Decomposition*, ICLR 2024. The class token's residual stream is a sum, and the final
norm is linear once its standard deviation is taken as it is, so the embedding is exactly

    sum over layers, heads and tokens of attention contributions + sum over layers of MLPs + input + bias.

What a head does through later blocks counts for those. Left out: mean-ablation, the pool of 3498 sentences.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nib.clip import HookedCLIP
from nib.shapes import Embeds, GridScores, PixelValues


@dataclass
class Parts:
    """The direct contributions to a batch of image embeddings; they sum to them.

    Attributes:
        attention: (batch, layers, heads, tokens, embed), what each head writes from each token, class token first.
        mlps: (batch, layers, embed).
        rest: (batch, embed), the class token's input and all biases.
        grid: rows and columns of patches.
    """

    attention: Tensor
    mlps: Tensor
    rest: Embeds
    grid: tuple[int, int]

    def total(self) -> Embeds:
        """Return the sum of all parts, (batch, embed): the image embedding, not normalised."""
        return self.attention.sum((1, 2, 3)) + self.mlps.sum(1) + self.rest


@torch.no_grad()
def decompose(clip: HookedCLIP, pixel_values: PixelValues) -> Parts:
    """Take the embeddings of a batch apart.

    Raises:
        ValueError: a model without a class token.

    Example:
        decompose(clip, pixel_values).total()  # equals clip.image.embed(pixel_values)
    """
    vision = getattr(clip.model, "vision_model", None)
    if not hasattr(getattr(vision, "embeddings", None), "class_embedding"):
        raise ValueError(f"TEXTSPAN takes a class token apart: {type(clip.model).__name__} has none")
    # Asking the model for its hidden states would leave hooks on it.
    states = [clip.image.split(pixel_values, at).hidden_states for at in range(len(vision.encoder.layers) + 1)]
    attention, mlps, biases = [], [], []
    for block, before in zip(vision.encoder.layers, states):
        written, bias = _attention(block.self_attn, block.layer_norm1(before))
        middle = before[:, 0] + written.sum((1, 2)) + bias
        attention.append(written)
        mlps.append(block.mlp(block.layer_norm2(middle)))
        biases.append(bias)
    norm = vision.post_layernorm
    scale = (states[-1][:, 0].var(-1, unbiased=False) + norm.eps).sqrt()  # (batch,)

    def project(part: Tensor) -> Tensor:
        """Apply norm and projection, which are linear once the deviation is fixed; without the norm's bias."""
        centred = part - part.mean(-1, keepdim=True)
        return clip.model.visual_projection(centred / scale.view(-1, *[1] * (part.ndim - 1)) * norm.weight)

    rest = project(states[0][:, 0] + sum(biases)) + clip.model.visual_projection(norm.bias)
    return Parts(project(torch.stack(attention, 1)), project(torch.stack(mlps, 1)), rest, clip.grid(pixel_values))


def _attention(module, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each head writes from each token, (batch, heads, tokens, width), and the bias."""
    heads = module.num_heads

    def split_heads(values):
        return values.unflatten(-1, (heads, -1)).transpose(1, 2)  # (batch, heads, tokens, width / heads)

    query, key = split_heads(module.q_proj(states[:, :1])), split_heads(module.k_proj(states))
    value = split_heads(module.v_proj(states))
    weights = (query @ key.mT / value.shape[-1] ** 0.5).softmax(-1)[:, :, 0]  # (batch, heads, tokens)
    out = module.out_proj.weight.unflatten(1, (heads, -1))  # (width, heads, width / heads)
    return torch.einsum("bht,bhtd,whd->bhtw", weights, value, out), module.out_proj.bias


def heat_map(parts: Parts, text_embeds: Embeds) -> GridScores:
    """Return how much each patch writes in the direction of a text, (batch, grid_h, grid_w), in cosine units."""
    directions = normalize(text_embeds, dim=-1) / parts.total().norm(dim=-1, keepdim=True)
    return torch.einsum("blhte,be->bt", parts.attention, directions)[:, 1:].unflatten(1, parts.grid)


def text_span(outputs: Tensor, texts: Embeds, n_texts: int) -> list[tuple[int, float]]:
    """Choose the texts that explain most of the variance of a head's output, greedily.

    Args:
        outputs: (pictures, embed), what one head writes in each picture.
        texts: (pool, embed), candidates. Each is first projected onto the span of the outputs.
        n_texts: how many to choose, at most the rank of the outputs.

    Returns:
        For each text chosen its index and the share of the variance that it explains beside those before, in [0, 1].
    """
    outputs = outputs - outputs.mean(0)
    _, strengths, span = torch.linalg.svd(outputs, full_matrices=False)
    span = span[strengths / strengths[0] > 1e-6]
    texts, total, chosen = texts @ span.T @ span, outputs.square().sum(), []
    for _ in range(min(n_texts, len(span), len(texts))):
        directions = texts / texts.norm(dim=-1, keepdim=True).clamp(min=1e-6)  # those used up stay near zero
        explained = (directions @ outputs.T).square().sum(1)
        best = int(explained.argmax())
        chosen.append((best, float(explained[best] / total)))
        direction = directions[best]
        outputs = outputs - outputs @ direction[:, None] * direction
        texts = texts - texts @ direction[:, None] * direction
    return chosen
