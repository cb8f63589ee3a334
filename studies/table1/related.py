"""Run what the paper's related work names and its Table 1 leaves out, in the same form.

Exports `RELATED`: LIME, integrated gradients and AGI; and COCOA's target explained by NIB.
"""

from functools import partial

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import IntegratedGradients, Lime

from studies.table1.systems import (
    CELLS,
    Explanation,
    System,
    explain_by_cocoa,
    method,
    number_cells,
    of_map,
    similarity_with,
    sum_cells,
)


def _integrated_gradients(clip, pair, examples, seed):
    """Integrate the pixel gradient from the mean colour, 32 Gauss-Legendre nodes."""
    target, inputs = similarity_with(clip, pair), pair.pixel_values
    scores = IntegratedGradients(target).attribute(inputs, n_steps=32).detach().sum(1)
    difference = target(inputs) - target(0 * inputs)
    cells = sum_cells(scores)
    return Explanation([of_map(cells)], [(float(scores.sum()), float(difference))], clip.model, cells)


def _lime(clip, pair, examples, seed, n_samples=200):
    """Fit a linear model to the similarity of pictures with cells of mean colour."""
    target, inputs = similarity_with(clip, pair), pair.pixel_values
    cells = number_cells(*inputs.shape[-2:])[None, None].to(inputs.device)
    lime = Lime(lambda x: target(x).detach(), interpretable_model=SkLearnRidge(alpha=0.01))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        options = dict(feature_mask=cells, n_samples=n_samples, perturbations_per_eval=50, return_input_shape=False)
        scores = lime.attribute(inputs, **options).view(CELLS, CELLS)
        difference = target(inputs) - target(0 * inputs)
    return Explanation([of_map(scores)], [(float(scores.sum()), float(difference))], clip.model, scores)


RELATED = {"LIME": System(_lime), "Integrated gradients": System(_integrated_gradients)}
RELATED |= {"COCOA by NIB": System(partial(explain_by_cocoa, by_nib=True)), "AGI": System(method("agi", n_steps=5))}
