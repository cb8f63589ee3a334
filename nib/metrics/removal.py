"""Remove patches and words by their scores, and follow the similarity.

Removal curves follow Samek et al. (2017) and Petsiuk et al. (RISE, 2018), their symmetric gain Bluecher et al. (2024).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import conv2d, cosine_similarity, pad

from nib.checks import check_choice, check_count, check_seed
from nib.clip import HookedCLIP, run_ready
from nib.methods.pairs import batches, check_scores
from nib.metrics.registry import Case, Metric, Value
from nib.shapes import Embeds, GridScores, PairValues, PixelValues

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


@run_ready
@torch.no_grad()
def removal_curves(
    clip, pixel_values, input_ids, attention_mask, scores, removal=None, n_steps=7, batch_size=64, seed=0, sides=SIDES
) -> RemovalCurves:
    """Remove patches, and words, by their scores in equal steps, and follow the similarity.

    Words are dropped from the caption, so that later ones move up; begin and end stay. At each step all pairs and both
    orders have equally many patches left, and share forward passes.

        curves = removal_curves(clip, *batch.arguments(), scores)
        curves.summarise()["image_srg"]

    Args:
        clip, pixel_values, input_ids, attention_mask, batch_size: see `nib.methods`.
        scores: `Scores` of these pairs.
        removal: of patches, one of `REMOVALS`: "left_out" of the sequence of tokens, "mean_colour" or "blurred" in the
            picture. None for "left_out" where there is a class token, which alone may be left, else "mean_colour".
        n_steps: steps, at least 1: after step j of n the share j / n is gone, rounded to whole patches or words.
        seed: of the order among equal scores; the same for all pairs with as many patches.
        sides: which of "image" and "text".

    Raises:
        ValueError: a parameter out of its range, "left_out" on a tower that would be left without a token, or scores
            that are not finite or not of these pairs.
    """
    check_count("n_steps", n_steps, limit="nodes")
    check_count("batch_size", batch_size)
    check_seed(seed)
    removal = ("left_out" if clip.image.class_tokens else "mean_colour") if removal is None else removal
    if not isinstance(removal, str) or removal not in REMOVALS:
        raise ValueError(f"removal must be one of {sorted(REMOVALS)}, got {removal!r}")
    if removal == "left_out" and not clip.image.class_tokens:
        raise ValueError("removal 'left_out' would leave nothing of a picture without a class token; use 'mean_colour'")
    sides = check_choice("sides", sides, SIDES)
    check_scores(clip, pixel_values, input_ids, attention_mask, scores, on_grid=True)
    curves = []
    for rows, pictures, ids, mask in batches(pixel_values, input_ids, attention_mask, batch_size):
        pictures = pictures.expand(len(ids), -1, -1, -1)
        found = {}
        if "image" in sides:
            steps = _remove_patches(clip, pictures, scores.image[rows], REMOVALS[removal], n_steps, seed)
            found |= _follow("image", steps, clip.text.embed(ids, mask))
        if "text" in sides:
            steps = _remove_words(clip, ids, mask, scores.text[rows], n_steps, seed)
            found |= _follow("text", steps, clip.image.embed(pictures))
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
    return clip.image.embed(torch.where(spread(gone, clip.image.patch, pixel_values), other, pixel_values))


def spread(values: Tensor, side: int, pixel_values: PixelValues) -> Tensor:
    """Repeat values of patches, (batch, grid_h, grid_w), at each of their pixels: (batch, 1, height, width).

    Pixels beyond the last whole patch, which the model does not see, get 0.
    """
    pixels = values.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    height, width = pixel_values.shape[-2:]
    return pad(pixels, (0, width - pixels.shape[-1], 0, height - pixels.shape[-2]))


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
    places = torch.full((2, *words.shape), words.shape[1], device=words.device)
    for row, inside in enumerate(words):
        own = scores[row][inside][None]
        places[0, row, inside], places[1, row, inside] = _rank(own, seed)[0], _rank(-own, seed)[0]
    counts, places = words.sum(1).repeat(2), places.flatten(0, 1)
    twice, positions = input_ids.repeat(2, 1), torch.arange(input_ids.shape[1], device=input_ids.device)
    tokens = (positions <= text.find_end(input_ids)[:, None]).repeat(2, 1)
    for step in range(n_steps + 1):
        gone = places < torch.round(step * counts / n_steps)[:, None]
        kept = tokens & ~gone
        order = (~kept).byte().argsort(dim=1, stable=True)  # what is kept moves to the front
        mask = positions < kept.sum(1, keepdim=True)
        ids = torch.where(mask, twice.gather(1, order), text.padding_id)
        yield text.embed(ids, mask.long())


def _measure(case: Case) -> dict[str, PairValues]:
    sides = SIDES if case.explain else ("image",)  # a mask says nothing of the text
    return removal_curves(case.clip, *case.inputs, case.scores, sides=sides).summarise()


WAYS = {"deletion": Value(False, "cosine"), "insertion": Value(True, "cosine"), "srg": Value(True, "cosine")}
FAITHFULNESS = Metric({f"{side}_{name}": way for side in SIDES for name, way in WAYS.items()}, _measure)
