"""Measure whether a map says what the similarity rests on: remove by it, randomise the model, name what is not there.

Exports `removal_curves`, `RemovalCurves`, `randomisation`, `absent_prompt`, `infidelity`, `max_sensitivity` and
`HIGHER_IS_BETTER`. Removal curves follow Samek et al. (2017) and Petsiuk et al. (RISE, 2018), their symmetric gain
Bluecher et al. (2024), randomisation Adebayo et al. (2018); the last two are captum's (Yeh et al., 2019).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import conv2d, cosine_similarity, pad

from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, Embeds, GridScores, InputIds, PairValues, PixelValues

HIGHER_IS_BETTER = {
    "image_deletion": False,
    "image_insertion": True,
    "image_srg": True,
    "text_deletion": False,
    "text_insertion": True,
    "text_srg": True,
    "absent_peak": True,
    "absent_mass": True,
    "absent_agreement": False,
    "randomised_projection": False,
    "randomised_late": False,
    "randomised_all": False,
    "infidelity": False,
    "max_sensitivity": False,
}
SIDES = ("image", "text")


@dataclass
class RemovalCurves:
    """Similarity after each step of removal, (batch, n_steps + 1) each, from nothing removed to all.

    `most_first` removes the highest scores first, `least_first` the lowest. Read backwards, `least_first` puts the
    highest back first on an empty input.
    """

    image_most_first: Tensor | None = None
    image_least_first: Tensor | None = None
    text_most_first: Tensor | None = None
    text_least_first: Tensor | None = None

    def summarise(self) -> dict[str, PairValues]:
        """Return (batch,) each, in cosine units: `deletion`, `insertion` and `srg`, insertion less deletion, a side."""
        values = {}
        for side in SIDES:
            most, least = getattr(self, f"{side}_most_first"), getattr(self, f"{side}_least_first")
            if most is not None:
                values |= {f"{side}_deletion": most.mean(1), f"{side}_insertion": least.mean(1)}
                values[f"{side}_srg"] = least.mean(1) - most.mean(1)
        return values


@torch.no_grad()
def removal_curves(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None,
    scores: Scores,
    removal: str | None = None,
    n_steps: int = 7,
    batch_size: int = 64,
    seed: int = 0,
    sides: Sequence[str] = SIDES,
) -> RemovalCurves:
    """Remove patches, and words, by their scores in equal steps, and follow the similarity.

    Words are dropped from the caption, so that later ones move up; begin and end stay. At each step all pairs and both
    orders have equally many patches left, and share forward passes.

        curves = removal_curves(clip, *batch.arguments(), scores)
        curves.summarise()["image_srg"]

    Args:
        removal: of patches, one of `REMOVALS`: "left_out" of the sequence of tokens, "mean_colour" or "blurred" in the
            picture. None for "left_out" where there is a class token, which alone may be left, else "mean_colour".
        n_steps: steps, at least 1: after step j of n the share j / n is gone, rounded to whole patches or words.
        seed: of the order among equal scores; the same for all pairs with as many patches.
        sides: which of "image" and "text".

    Raises:
        ValueError: a parameter out of its range, or "left_out" on a tower that would be left without a token.
    """
    check_count("n_steps", n_steps)
    check_count("batch_size", batch_size)
    removal = removal or ("left_out" if clip.image.class_tokens else "mean_colour")
    if removal not in REMOVALS:
        raise ValueError(f"removal must be one of {sorted(REMOVALS)}, got {removal!r}")
    if removal == "left_out" and not clip.image.class_tokens:
        raise ValueError("removal 'left_out' would leave nothing of a picture without a class token; use 'mean_colour'")
    if not sides or not set(sides) <= set(SIDES):
        raise ValueError(f"sides must be some of {list(SIDES)}, got {sides!r}")
    curves = []
    for first in range(0, len(input_ids), batch_size):
        rows = slice(first, first + batch_size)
        mask = None if attention_mask is None else attention_mask[rows]
        pictures = (pixel_values if len(pixel_values) > 1 else pixel_values.expand(len(input_ids), -1, -1, -1))[rows]
        found = {}
        if "image" in sides:
            targets = clip.text.embed(input_ids[rows], mask)
            image = scores.image[rows]
            found |= _follow("image", _remove_patches(clip, pictures, image, REMOVALS[removal], n_steps, seed), targets)
        if "text" in sides:
            targets = clip.image.embed(pictures)
            steps = _remove_words(clip, input_ids[rows], mask, scores.text[rows], n_steps, seed)
            found |= _follow("text", steps, targets)
        curves.append(found)
    return RemovalCurves(**{name: torch.cat([part[name] for part in curves]) for name in curves[0]})


def _follow(side: str, steps: Iterator[Embeds], targets: Embeds) -> dict[str, Tensor]:
    """Compare the embeddings of each step, most first and then least first, with the targets."""
    curves = torch.stack([cosine_similarity(embeds, targets.repeat(2, 1)) for embeds in steps], 1)  # (2 * batch, steps)
    return {f"{side}_most_first": curves[: len(targets)], f"{side}_least_first": curves[len(targets) :]}


def _rank(scores: Tensor, seed: int) -> Tensor:
    """Return the place of each item in descending order of its score, (batch, items); ties in a drawn order."""
    shuffled = torch.randperm(scores.shape[1], generator=torch.Generator().manual_seed(seed)).to(scores.device)
    order = shuffled[scores[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return order.argsort(dim=1)


def _remove_patches(clip, pictures, scores: GridScores, remove: Callable, n_steps: int, seed: int) -> Iterator[Embeds]:
    grid, flat = scores.shape[1:], scores.flatten(1)
    places = torch.cat([_rank(flat, seed), _rank(-flat, seed)])  # most first, then least first
    twice = pictures.repeat(2, 1, 1, 1)
    for step in range(n_steps + 1):
        gone = places < round(step * flat.shape[1] / n_steps)
        yield remove(clip, twice, gone.unflatten(1, grid)) if step else clip.image.embed(pictures).repeat(2, 1)


def paint_out(clip: HookedCLIP, pixel_values: PixelValues, gone: Tensor) -> Embeds:
    """Embed pictures with some patches, (batch, grid_h, grid_w) boolean, in the mean colour."""
    return _replace(clip, pixel_values, gone, torch.zeros_like(pixel_values))


def blur_out(clip: HookedCLIP, pixel_values: PixelValues, gone: Tensor) -> Embeds:
    """Embed pictures with some patches taken from a picture that is blurred by a Gaussian of half a patch."""
    sigma = clip.image.patch / 2
    offsets = torch.arange(-2 * clip.image.patch, 2 * clip.image.patch + 1, device=pixel_values.device)
    weights = torch.exp(-(offsets.to(pixel_values) ** 2) / (2 * sigma**2))
    weights, reach, channels = weights / weights.sum(), len(offsets) // 2, pixel_values.shape[1]
    blurred = pad(pixel_values, (reach,) * 4, mode="replicate")
    blurred = conv2d(blurred, weights.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    blurred = conv2d(blurred, weights.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    return _replace(clip, pixel_values, gone, blurred)


def _replace(clip: HookedCLIP, pixel_values: PixelValues, gone: Tensor, other: PixelValues) -> Embeds:
    side = clip.image.patch
    pixels = gone.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    changed = pixel_values.clone()  # pixels beyond the last whole patch stay: the model does not see them
    height, width = pixels.shape[-2:]
    part = changed[:, :, :height, :width]
    changed[:, :, :height, :width] = torch.where(pixels, other[:, :, :height, :width], part)
    return clip.image.embed(changed)


def leave_out(clip: HookedCLIP, pixel_values: PixelValues, gone: Tensor) -> Embeds:
    """Embed pictures without some patches, equally many of each: no token of the tower sees them."""
    split = clip.image.split(pixel_values, 0)
    z = split.hidden_states  # (batch, 1 + patches, width), positions already added
    kept = clip.image.from_grid(~gone, True)
    shorter = z[kept].view(len(z), -1, z.shape[-1])
    return replace(split, hidden_states=shorter)(shorter)


REMOVALS = {"left_out": leave_out, "mean_colour": paint_out, "blurred": blur_out}


def _remove_words(clip, input_ids, attention_mask, scores: Tensor, n_steps: int, seed: int) -> Iterator[Embeds]:
    text, words = clip.text, clip.text.words(input_ids, attention_mask)
    ends = text.find_end(input_ids)
    places = torch.full((2, *words.shape), words.shape[1], device=words.device)
    for row, inside in enumerate(words):
        own = scores[row][inside][None]
        places[0, row, inside], places[1, row, inside] = _rank(own, seed)[0], _rank(-own, seed)[0]
    counts, places = words.sum(1).repeat(2), places.flatten(0, 1)
    twice, positions = input_ids.repeat(2, 1), torch.arange(input_ids.shape[1], device=input_ids.device)
    tokens = (positions <= ends[:, None]).repeat(2, 1)
    for step in range(n_steps + 1):
        gone = places < torch.round(step * counts / n_steps)[:, None]
        kept = tokens & ~gone
        order = torch.where(kept, positions, positions + len(positions)).argsort(
            dim=1
        )  # what is kept moves to the front
        mask = positions < kept.sum(1, keepdim=True)
        ids = torch.where(mask, twice.gather(1, order), text.padding_id)
        yield text.embed(ids, mask.long())


def absent_prompt(right: GridScores, wrong: GridScores) -> dict[str, PairValues]:
    """Compare the maps of a picture under a prompt for what is there, and under one for what is not.

    Args:
        right, wrong: (batch, grid_h, grid_w), in the same unit.

    Returns:
        (batch,) each: `absent_peak` and `absent_mass`, 1 where the largest score, and the sum of the positive ones, is
        larger under the right prompt, 1/2 where they are equal: their means are the probability to tell the two apart,
        0.5 by chance. `absent_agreement`, the rank correlation of the two maps in [-1, 1]: 1 for a map that does not
        depend on the prompt; NaN where one is constant.
    """
    if right.shape != wrong.shape or right.ndim != 3:
        raise ValueError(f"maps must be (batch, ., .) and alike, got {tuple(right.shape)} and {tuple(wrong.shape)}")
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
        constant = min(one.std(), other.std()) == 0
        values.append(float("nan") if constant else spearmanr(one, other).statistic)
    return torch.tensor(values, dtype=torch.float64)


def randomisation(
    clip: HookedCLIP, explain: Callable[[HookedCLIP], Scores], n_late: int = 3, seed: int = 0
) -> dict[str, PairValues]:
    """Correlate the picture's map with that of the model after parts of it were re-drawn.

    The values of each weight are shuffled, which keeps their distribution, in a copy of the model: first those of the
    image tower's projection (a pooling head with it), then also of its last `n_late` blocks, then of all its blocks. A
    map that stays the same does not depend on what the model has learned.

        randomisation(clip, lambda other: nib.METHODS["nib"](other, *batch.arguments()))

    Args:
        explain: from a model to scores.
        n_late: blocks re-drawn at the second stage, at least 1.
        seed: of the shuffles.

    Returns:
        (batch,) each, rank correlations in [-1, 1]: `randomised_projection`, `randomised_late`, `randomised_all`.
    """
    check_count("n_late", n_late)
    before = explain(clip).image.flatten(1).double()
    other = HookedCLIP(copy.deepcopy(clip.model), clip.tokenizer, clip.image_processor)
    blocks, generator, found = list(other.image.blocks), torch.Generator().manual_seed(seed), {}
    stages = {"projection": [other.image.projection], "late": blocks[-n_late:], "all": blocks[:-n_late]}
    for name, modules in stages.items():
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        found[f"randomised_{name}"] = _correlate(before, explain(other).image.flatten(1).double())
    return found


def infidelity(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None,
    scores: Scores,
    n_samples: int = 32,
    share: float = 0.2,
    seed: int = 0,
) -> PairValues:
    """Return captum's infidelity of the picture's map: how badly it predicts what painted patches cost.

    E[(I . A - (F(x) - F(x - I)))^2] over draws of patches that are painted in the mean colour, each with probability
    `share`; I . A is the sum of their scores, scaled so that the error is least (captum's `normalize`).

    Returns:
        (batch,), at least 0, in squared cosine units, lower is better.
    """
    from captum.metrics import infidelity as measure  # takes a second, which `import nib` should not

    check_count("n_samples", n_samples)
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    side, values = clip.image.patch, []
    with torch.no_grad():
        targets = clip.text.embed(input_ids, attention_mask)
    for row, target in enumerate(targets):
        picture = pixel_values[row if len(pixel_values) > 1 else 0][None]
        grid, generator = scores.image.shape[1:], torch.Generator().manual_seed(seed)

        def perturb(inputs, generator=generator, grid=grid):
            gone = torch.rand(len(inputs), *grid, generator=generator) < share
            pixels = gone.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None].to(inputs)
            pixels = pad(pixels, (0, inputs.shape[-1] - pixels.shape[-1], 0, inputs.shape[-2] - pixels.shape[-2]))
            return pixels.expand_as(inputs), inputs * (1 - pixels)  # the mask, which the map is multiplied with

        def similarity(x, target=target):
            with torch.no_grad():
                return cosine_similarity(clip.image.embed(x), target[None])

        spread = scores.image[row][None, None].repeat_interleave(side, 2).repeat_interleave(side, 3)
        height, width = picture.shape[-2:]
        spread = pad(spread, (0, width - spread.shape[-1], 0, height - spread.shape[-2]))
        attribution = (spread / (side**2 * picture.shape[1])).expand_as(picture).to(picture)
        with torch.no_grad():
            options = dict(n_perturb_samples=n_samples, normalize=True)
            values.append(measure(similarity, perturb, picture, attribution, **options))
    return torch.cat(values)


def max_sensitivity(
    pixel_values: PixelValues,
    explain: Callable[[PixelValues], GridScores],
    radius: float = 0.02,
    n_samples: int = 4,
    seed: int = 0,
) -> PairValues:
    """Return captum's largest relative change of a map under noise in the picture.

    Args:
        pixel_values: (batch, channels, height, width).
        explain: from pictures of this batch to maps, (batch, grid_h, grid_w).
        radius: of the noise in each pixel, uniform, more than 0.
        n_samples: noisy pictures, at least 1.

    Returns:
        (batch,), at least 0, lower is better: max over the draws of |A(x + noise) - A(x)| / |A(x)|.
    """
    from captum.metrics import sensitivity_max  # takes a second, which `import nib` should not

    check_count("n_samples", n_samples)
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius must be more than 0 and finite, got {radius}")
    generator = torch.Generator().manual_seed(seed)

    def perturb(inputs):
        inputs = inputs[0] if isinstance(inputs, tuple) else inputs
        noise = torch.rand(inputs.shape, generator=generator).to(inputs)
        return inputs + radius * (2 * noise - 1)

    def explain_one(inputs):  # captum wraps what it was given, and puts all draws of a picture one after another
        inputs = inputs[0] if isinstance(inputs, tuple) else inputs
        draws = inputs.unflatten(0, (len(pixel_values), -1)).unbind(1)
        with torch.enable_grad():
            return (torch.stack([explain(draw) for draw in draws], 1).flatten(0, 1),)

    options = dict(perturb_func=perturb, n_perturb_samples=n_samples)
    return sensitivity_max(explain_one, pixel_values, **options).detach()
