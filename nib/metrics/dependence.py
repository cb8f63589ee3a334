"""Measure what a map depends on: the prompt, what the model has learned, and noise.

Randomisation follows Adebayo et al. (2018); infidelity and sensitivity are captum's (Yeh et al., 2019).
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from nib.checks import check_count, check_finite, check_number, check_seed, to_real
from nib.clip import HookedCLIP, run_ready
from nib.methods.pairs import check_scores
from nib.metrics.registry import Case, Metric, Value
from nib.metrics.removal import spread
from nib.shapes import GridScores, PairValues, PixelValues


def absent_prompt(right: GridScores, wrong: GridScores) -> dict[str, PairValues]:
    """Compare the maps of a picture under a prompt for what is there, and under one for what is not.

        absent_prompt(of_dog.image, of_cat.image)["absent_peak"]

    Args:
        right, wrong: (batch, grid_h, grid_w), in the same unit.

    Returns:
        (batch,) each: `absent_peak` and `absent_mass`, 1 where the largest score, and the sum of the positive ones, is
        larger under the right prompt, 1/2 where they are equal: their means are the probability to tell the two apart,
        0.5 by chance. `absent_agreement`, the rank correlation of the two maps in [-1, 1]: 1 for a map that does not
        depend on the prompt; NaN where one is constant.
    """
    right, wrong = (to_real("maps", scores).detach() for scores in (right, wrong))
    if right.shape != wrong.shape or right.ndim != 3 or not right.numel():
        raise ValueError(f"maps must be (batch, ., .) and alike, got {tuple(right.shape)} and {tuple(wrong.shape)}")
    check_finite("maps", torch.stack([right, wrong]))
    right, wrong = right.flatten(1).double(), wrong.flatten(1).double()

    def larger(of_right, of_wrong):
        return (of_right > of_wrong).double() + 0.5 * (of_right == of_wrong).double()

    return {
        "absent_peak": larger(right.amax(1), wrong.amax(1)),
        "absent_mass": larger(right.clamp(min=0).sum(1), wrong.clamp(min=0).sum(1)),
        "absent_agreement": _correlate(right, wrong),
    }


def _correlate(first: Tensor, second: Tensor) -> PairValues:
    """Return the rank correlation of each row, (batch,); NaN where one is constant."""
    values = []
    for one, other in zip(first.cpu().numpy(), second.cpu().numpy()):
        constant = min(np.ptp(one), np.ptp(other)) == 0
        values.append(float("nan") if constant else spearmanr(one, other).statistic)
    return torch.tensor(values, dtype=torch.float64)


@run_ready
def randomisation(clip: HookedCLIP, explain: Callable, n_late: int = 3, seed: int = 0) -> dict[str, PairValues]:
    """Correlate the picture's map with that of the model after parts of it were re-drawn.

    The values of each weight are shuffled, which keeps their distribution, in a copy of the model: first those of the
    image tower's projection (a pooling head with it), then also of its last `n_late` blocks, then of all its blocks. A
    map that stays the same does not depend on what the model has learned.

        randomisation(clip, lambda other: nib.METHODS["nib"](other, *batch.arguments()))

    Args:
        explain: from a model to `Scores`.
        n_late: blocks re-drawn at the second stage, at least 1.
        seed: of the shuffles.

    Returns:
        (batch,) each, rank correlations in [-1, 1]: `randomised_projection`, `randomised_late`, `randomised_all`.
    """
    check_count("n_late", n_late)
    if not callable(explain):
        raise TypeError(f"explain must be a function from a model to scores, got {type(explain).__name__}")

    def draw(model: HookedCLIP) -> Tensor:
        image = to_real("maps of explain", getattr(explain(model), "image", None)).detach()
        check_finite("maps of explain", image)
        return image.flatten(1).double()

    before = draw(clip)
    other = HookedCLIP(copy.deepcopy(clip.model), clip.tokenizer, clip.image_processor)
    check_seed(seed)
    blocks, generator, found = list(other.image.blocks), torch.Generator().manual_seed(seed), {}
    stages = {"projection": [other.image.projection], "late": blocks[-n_late:], "all": blocks[:-n_late]}
    for name, modules in stages.items():
        for parameter in nn.ModuleList(modules).parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        after = draw(other)
        if after.shape != before.shape:
            wanted = tuple(before.shape)
            raise ValueError(f"maps of explain must keep their shape, {wanted}, got {tuple(after.shape)}")
        found[f"randomised_{name}"] = _correlate(before, after)
    return found


@run_ready
@torch.no_grad()
def infidelity(clip, pixel_values, input_ids, attention_mask, scores, n_samples=32, share=0.2, seed=0) -> PairValues:
    """Return captum's infidelity of the picture's map: how badly it predicts what painted patches cost.

    E[(I . A - (F(x) - F(x - I)))^2] over draws of patches that are painted in the mean colour, each with probability
    `share`; I . A is the sum of their scores, scaled so that the error is least (captum's `normalize`). The first four
    arguments are those of `nib.methods`.

        infidelity(clip, pixel_values, input_ids, attention_mask, scores)

    Returns:
        (batch,), at least 0, in squared cosine units, lower is better.
    """
    from captum.metrics import infidelity as measure  # takes a second, which `import nib` should not

    check_count("n_samples", n_samples, limit="samples")
    check_seed(seed)
    if check_number("share", share, 0, open_end=True) >= 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    check_scores(clip, pixel_values, input_ids, attention_mask, scores, on_grid=True)
    side, values = clip.image.patch, []
    for row, target in enumerate(clip.text.embed(input_ids, attention_mask)):
        picture = pixel_values[row if len(pixel_values) > 1 else 0][None]
        generator = torch.Generator().manual_seed(seed)

        def perturb(inputs, generator=generator):
            gone = torch.rand(len(inputs), *scores.image.shape[1:], generator=generator) < share
            pixels = spread(gone.to(inputs), side, inputs)
            return pixels.expand_as(inputs), inputs * (1 - pixels)  # the mask, which the map is multiplied with

        def similarity(x, target=target):
            return cosine_similarity(clip.image.embed(x), target[None])

        pixels = spread(scores.image[row][None], side, picture)
        attribution = (pixels / (side**2 * picture.shape[1])).expand_as(picture).to(picture)
        options = dict(n_perturb_samples=n_samples, normalize=True)
        values.append(measure(similarity, perturb, picture, attribution, **options))
    return torch.cat(values)


def max_sensitivity(pixel_values: PixelValues, explain: Callable, radius=0.02, n_samples=4, seed=0) -> PairValues:
    """Return captum's largest relative change of a map under noise in the picture.

        max_sensitivity(pixel_values, lambda x: nib.METHODS["nib"](clip, x, input_ids).image)

    Args:
        explain: from pictures of this batch to maps, (batch, grid_h, grid_w).
        radius: of the noise in each pixel, uniform, more than 0.
        n_samples: noisy pictures, at least 1.

    Returns:
        (batch,), at least 0, lower is better: max over the draws of |A(x + noise) - A(x)| / |A(x)|.
    """
    from captum.metrics import sensitivity_max  # takes a second, which `import nib` should not

    check_count("n_samples", n_samples, limit="samples")
    check_seed(seed)
    radius = check_number("radius", radius, 0, open_end=True)
    if not callable(explain):
        raise TypeError(f"explain must be a function from pictures to maps, got {type(explain).__name__}")
    check_finite("pixel_values", pixel_values := to_real("pixel_values", pixel_values))
    if not pixel_values.is_floating_point() or pixel_values.ndim != 4 or not len(pixel_values):
        found = f"{pixel_values.dtype} {tuple(pixel_values.shape)}"
        raise ValueError(f"pixel_values must be floats (batch, channels, height, width), got {found}")

    def perturb(inputs):  # the same draws for every picture, so that none depends on the others of its batch
        draws = len(inputs) // len(pixel_values), *inputs.shape[1:]
        noise = torch.rand(draws, generator=torch.Generator().manual_seed(seed)).to(inputs)
        return inputs + radius * (2 * noise.repeat(len(pixel_values), 1, 1, 1) - 1)

    def explain_one(inputs):  # captum wraps what it was given, not what is perturbed: all draws of a picture in a row
        inputs = inputs[0] if isinstance(inputs, tuple) else inputs
        draws = inputs.unflatten(0, (len(pixel_values), -1)).unbind(1)
        with torch.enable_grad():
            maps = [to_real("maps of explain", explain(draw)) for draw in draws]
        if wrong := [tuple(one.shape) for one in maps if one.ndim != 3 or len(one) != len(pixel_values)]:
            raise ValueError(f"maps of explain must be ({len(pixel_values)}, grid_h, grid_w), got {wrong[0]}")
        return (torch.stack(maps, 1).flatten(0, 1),)

    found = sensitivity_max(explain_one, pixel_values, perturb, n_perturb_samples=n_samples).detach()
    check_finite("maps of explain", found)
    return found


def _measure_absent(case: Case) -> dict[str, PairValues]:
    return absent_prompt(case.scores.image, case.explain(text=case.absent).image) if case.explain else {}


def _measure_randomised(case: Case) -> dict[str, PairValues]:
    return randomisation(case.clip, case.explain) if case.explain else {}


def _measure_infidelity(case: Case) -> dict[str, PairValues]:
    return {"infidelity": infidelity(case.clip, *case.inputs, case.scores)}


def _measure_sensitivity(case: Case) -> dict[str, PairValues]:
    if not case.explain:
        return {}
    return {"max_sensitivity": max_sensitivity(case.inputs[0], lambda x: case.explain(pixel_values=x).image)}


HIGH, LOW = Value(True, "share"), Value(False, "correlation")
ABSENT = {"absent_peak": HIGH, "absent_mass": HIGH, "absent_agreement": LOW}
RANDOMISED = {f"randomised_{stage}": LOW for stage in ("projection", "late", "all")}
DEPENDENCE = {
    "infidelity": Metric({"infidelity": Value(False, "squared cosine")}, _measure_infidelity),
    "absent_prompt": Metric(ABSENT, _measure_absent, needs="absent"),
    "randomisation": Metric(RANDOMISED, _measure_randomised),
    "max_sensitivity": Metric({"max_sensitivity": Value(False, "relative change")}, _measure_sensitivity),
}
