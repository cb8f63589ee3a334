"""Explain a picture by its contrast between a corpus and a foil set (COCOA).

Exports `similarity`, `of_pixels` and `of_tokens`. Source: Lin, Chen, Kim and Lee, *Contrastive Corpus
Attribution for Explaining Representations*, ICLR 2023. The quantity explained is the contrastive corpus similarity

    G(x) = mean over c of cos(f(x), f(c)) - mean over v of cos(f(x), f(v)),

with c in a corpus that the user chooses and v in a foil set. Any attribution method may explain G. Here integrated
gradients do, of the pixels as in the paper, and of the hidden states, which is NIB on the same target.

Left out: the paper's other attribution methods (gradient SHAP, RISE, random-patch perturbation), and its choice
of a foil set of 1500 examples.
"""

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.shapes import Embeds, PairValues, PixelValues


def similarity(embeds: Embeds, corpus: Embeds, foils: Embeds) -> PairValues:
    """Return the contrastive corpus similarity of each embedding.

    Args:
        embeds: (batch, embed).
        corpus: (n, embed), of examples that show what is asked for; of pictures or of texts.
        foils: (m, embed), of examples that need not.

    Returns:
        (batch,), in [-2, 2]; positive where an embedding is nearer to the corpus.

    Example:
        similarity(clip.image.embed(pixel_values), clip.image.embed(cats), clip.image.embed(anything))
    """

    def mean_cosine(others: Embeds) -> PairValues:
        return cosine_similarity(embeds[:, None], others[None], dim=-1).mean(1)

    return mean_cosine(corpus) - mean_cosine(foils)


def of_pixels(
    embed: Callable, pixel_values: PixelValues, corpus: Embeds, foils: Embeds, n_steps: int = 32
) -> tuple[Tensor, PairValues]:
    """Explain G by integrated gradients of the pixels, from the mean colour.

    Args:
        embed: from pixel values to embeddings, such as `clip.image.embed`.
        pixel_values: (batch, channels, height, width), normalised.
        n_steps: nodes of the Gauss-Legendre rule.

    Returns:
        Scores (batch, height, width), summed over the channels, and G(x) - G(mean colour), (batch,), which they add
        up to when there are enough nodes.
    """
    return _integrate(lambda x: similarity(embed(x), corpus, foils), pixel_values, "gausslegendre", n_steps, 1)


def of_tokens(
    split: Callable, hidden_states: Tensor, corpus: Embeds, foils: Embeds, n_steps: int = 10
) -> tuple[Tensor, PairValues]:
    """Explain G by NIB: the path integral of the hidden states from zero, Equation 10 of the NIB paper.

    Args:
        split: the rest of the tower, such as `clip.image.split(pixel_values, 9)`.
        hidden_states: (batch, tokens, width), what enters it.
        n_steps: nodes of the right Riemann sum.

    Returns:
        Scores (batch, tokens) and G(z) - G(0), (batch,).
    """
    return _integrate(lambda z: similarity(split(z), corpus, foils), hidden_states, "riemann_right", n_steps, -1)


def _integrate(target: Callable, inputs: Tensor, rule: str, n_steps: int, over: int) -> tuple[Tensor, PairValues]:
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    integral = IntegratedGradients(target, multiply_by_inputs=True)
    scores = integral.attribute(inputs, 0 * inputs, n_steps=n_steps, method=rule)
    with torch.no_grad():
        difference = target(inputs) - target(0 * inputs)
    return scores.sum(over).detach(), difference
