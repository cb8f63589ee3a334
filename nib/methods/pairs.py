"""What the methods share: pairs in chunks, towers cut for each pair, scores put on the grid, and checks."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import wraps

import numpy as np
import torch
from torch import Tensor

from nib.captions import check_begin
from nib.checks import check_count, check_finite, check_normalised, check_seed, check_tensor, shorten
from nib.clip import HookedCLIP, run_ready
from nib.methods.scores import Scores, Sums
from nib.pictures import warn_of_raw
from nib.shapes import Embeds, InputIds, TokenScores
from nib.towers import Split


class NoPairs(ValueError):
    """Ends a method that was called without a pair, after its parameters were checked: see `check_method`."""


def guard(name: str, method: Callable[..., Scores]) -> Callable[..., Scores]:
    """Wrap a method, once: check its inputs, run it with the model ready, and refuse scores that are not finite."""
    if getattr(method, "guarded", None) is method:
        return method

    @wraps(method)
    @run_ready
    def guarded(clip, pixel_values, input_ids, attention_mask=None, **parameters):
        check_seed(parameters.get("seed", 0))
        whole = [name for name in ("seed", "batch_size") if isinstance(parameters.get(name), np.integer)]
        parameters |= {name: int(parameters[name]) for name in whole}
        _check_call(clip, pixel_values, input_ids, attention_mask)
        given = pixel_values, input_ids, attention_mask
        inputs = [None if values is None else values.clone() for values in given]  # a method may write into them
        found = method(clip, *inputs, **parameters)
        check_shapes(pixel_values, input_ids, found, clip.grid(pixel_values), f"{name}: ")
        scores = {field.name: _detach(getattr(found, field.name)) for field in fields(found)}
        if broken := [name for name, values in scores.items() if not _is_finite(values)]:
            raise ValueError(
                f"{name} must give finite scores, got NaN or infinity in {', '.join(broken)}: the model's weights or"
                " config, the input, or a parameter holds numbers that are too large or too small for"
                f" {clip.dtype}; called with {shorten(parameters)}"
            )
        if zero := (scores["similarity"] == 0).nonzero()[:, 0].tolist():
            raise ValueError(
                f"{name} must give similarities of embeddings that have a direction, got 0 in rows {zero[:10]}: the"
                " model's weights are 0, too small or too large, or a method of your own does not say it"
            )
        return Scores(**scores)

    guarded.guarded = guarded
    return guarded


def _check_call(clip: HookedCLIP, pixel_values, input_ids, attention_mask) -> None:
    """Raise an error unless the model can run on these inputs; warn of pixels that look unnormalised."""
    check_inputs(pixel_values, input_ids, attention_mask)
    if pixel_values.shape[1] != clip.image.channels or min(pixel_values.shape[2:]) < clip.image.patch:
        least = f"{clip.image.channels} channels and sides of at least {clip.image.patch}"
        raise ValueError(f"pixel_values must have {least}, got {tuple(pixel_values.shape)}")
    check_normalised("pixel_values", pixel_values)
    warn_of_raw(clip, pixel_values, stacklevel=6)
    check_ids(clip, input_ids)
    check_pairs(pixel_values, input_ids, attention_mask, 1)
    real, pooled = clip.text.locate(input_ids, attention_mask)
    if hidden := (~real.gather(1, pooled[:, None])).nonzero()[:, 0].tolist():
        raise ValueError(
            "attention_mask must be 1 at the token that is pooled (padding goes to the right), and hides it in rows"
            f" {hidden[:10]}"
        )
    if early := (clip.text.find_end(input_ids) < clip.text.begin_tokens).nonzero()[:, 0].tolist():
        raise ValueError(
            "input_ids must have their end token behind the begin token (padding goes to the right), not so in"
            f" rows {early[:10]}"
        )
    check_begin(clip, input_ids)


def _detach(values: Tensor | Sums | None) -> Tensor | Sums | None:
    if isinstance(values, Sums):
        return Sums(*map(_detach, values))
    return None if values is None else values.detach()


def _is_finite(values: Tensor | Sums | None) -> bool:
    return all(map(_is_finite, values)) if isinstance(values, Sums) else values is None or bool(values.isfinite().all())


def check_inputs(pixel_values, input_ids, attention_mask) -> None:
    """Raise an error that names the argument which is no batch of pictures, of token ids, or no mask of these."""
    check_tensor("pixel_values", pixel_values, 4)
    check_tensor("input_ids", input_ids, 2)
    floats = pixel_values.is_floating_point() and pixel_values.dtype.itemsize > 1  # torch cannot compute with 8 bits
    if not floats or input_ids.dtype not in (torch.int32, torch.int64):
        found = f"{pixel_values.dtype} and {input_ids.dtype}"
        raise ValueError(f"pixel_values must be floats and input_ids must be whole numbers (int32, int64), got {found}")
    if broken := (~pixel_values.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist():
        raise ValueError(f"pixel_values must be finite, got NaN or infinity in rows {broken[:10]}")
    if attention_mask is not None:
        check_tensor("attention_mask", attention_mask, 2)
        if not ((attention_mask == 0) | (attention_mask == 1)).all():
            raise ValueError(
                f"attention_mask must be 1 at tokens and 0 at padding, got {shorten(attention_mask.tolist())}"
            )


def check_ids(clip: HookedCLIP, input_ids: InputIds, what: str = "input_ids") -> None:
    """Raise an error unless these are rows of token ids that the model knows, not more in a row than its context."""
    check_tensor(what, input_ids, 2)
    if input_ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{what} must be whole numbers (int32, int64), got {input_ids.dtype}")
    if not 1 <= input_ids.shape[1] <= clip.context_length:
        raise ValueError(f"{what} must be 1 to {clip.context_length} in a row, got {input_ids.shape[1]}")
    if input_ids.numel() and not 0 <= input_ids.min() <= input_ids.max() < clip.text.vocabulary:
        found = f"[{int(input_ids.min())}, {int(input_ids.max())}]"
        raise ValueError(f"{what} must be in [0, {clip.text.vocabulary}), got {found}")


def check_scores(clip, pixel_values, input_ids, attention_mask, scores: Scores, on_grid: bool = False) -> None:
    """Raise an error unless these are pairs, and the scores are theirs, of the model's grid where asked, and finite."""
    check_inputs(pixel_values, input_ids, attention_mask)
    check_normalised("pixel_values", pixel_values)
    warn_of_raw(clip, pixel_values)
    check_shapes(pixel_values, input_ids, scores, clip.grid(pixel_values) if on_grid else None)
    check_pairs(pixel_values, input_ids, attention_mask, 1)
    for values in (scores.image_map, scores.text):  # NaN would stretch to a map of ones
        check_finite("scores", values)


def check_shapes(pixel_values, input_ids, scores: Scores, grid: tuple[int, int] | None, who: str = "") -> None:
    """Raise an error unless the scores are of as many pairs and tokens, and on this grid where one is given."""
    if not isinstance(scores, Scores):
        raise TypeError(f"{who}scores must be what a method gives, nib.Scores, got {type(scores).__name__}")
    for name in ("image", "text", "image_map"):
        check_tensor(f"{who}scores.{name}", values := getattr(scores, name))
        if not values.is_floating_point():
            raise ValueError(f"{who}scores.{name} must be floats, got {values.dtype}")
    pairs, shape, finest = len(input_ids), tuple(scores.image.shape), scores.image_map.shape
    if (
        len(pixel_values) not in (1, pairs)
        or (shape[0], finest[0], len(shape), len(finest)) != (pairs, pairs, 3, 3)
        or scores.text.shape != input_ids.shape
        or shape[1:] != (grid or shape[1:])
    ):
        raise ValueError(
            f"{who}scores must be of these pairs{f' and of the grid {grid}' if grid else ''}: {shape} and"
            f" {tuple(scores.text.shape)} do not fit pictures {tuple(pixel_values.shape)} and captions"
            f" {tuple(input_ids.shape)}"
        )


def check_pairs(pixel_values, input_ids, attention_mask, batch_size: int) -> None:
    """Check what all methods share, or raise a ValueError; without any pair, raise `NoPairs`."""
    check_count("batch_size", batch_size, limit="samples")
    pictures, captions = len(pixel_values), len(input_ids)
    if not captions:
        raise NoPairs("input_ids must hold at least one caption, got none")
    if pictures not in (1, captions):
        raise ValueError(f"pixel_values must have 1 or {captions} rows, one a caption, got {pictures}")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        found, expected = tuple(attention_mask.shape), tuple(input_ids.shape)
        raise ValueError(f"attention_mask must have the shape of input_ids, {expected}, got {found}")
    if attention_mask is not None and not attention_mask.any(1).all():
        rows = (~attention_mask.any(1)).nonzero()[:, 0].tolist()
        raise ValueError(f"attention_mask must leave a token of each caption, and leaves none of rows {rows[:10]}")


def batches(pixel_values, input_ids, attention_mask, batch_size: int) -> Iterator[tuple]:
    """Yield the rows of some pairs at a time, a slice, and their inputs; a picture that serves all captions is in each.

    What is computed so depends on one pair alone: chunks bound memory, and change the result only by rounding.
    """
    for first in range(0, len(input_ids), batch_size):
        rows = slice(first, first + batch_size)
        pictures = pixel_values if len(pixel_values) == 1 else pixel_values[rows]
        yield rows, pictures, input_ids[rows], None if attention_mask is None else attention_mask[rows]


def explain_in_batches(
    explain: Callable[..., Scores], pixel_values, input_ids, attention_mask, batch_size: int
) -> Scores:
    """Check the inputs, call `explain(pixel_values, input_ids, attention_mask)` on `batches`, and join the scores."""
    check_pairs(pixel_values, input_ids, attention_mask, batch_size)
    parts = batches(pixel_values, input_ids, attention_mask, batch_size)
    return Scores.join([explain(*inputs) for _, *inputs in parts])


@torch.no_grad()
def embed_pairs(clip, pixel_values, input_ids, attention_mask=None, batch_size: int = 64) -> tuple[Embeds, Embeds]:
    """Embed pictures and captions, `batch_size` at once; one picture that serves all captions is repeated."""
    masks = [None] * len(input_ids) if attention_mask is None else attention_mask.split(batch_size)
    image = torch.cat([clip.image.embed(part) for part in pixel_values.split(batch_size)])
    text = torch.cat([clip.text.embed(*part) for part in zip(input_ids.split(batch_size), masks)])
    return image.expand(len(text), -1), text


def split_towers(
    clip, pixel_values, input_ids, attention_mask, image_layer: int, text_layer: int
) -> tuple[Split, Split]:
    """Cut both towers, with one row a pair; a picture that serves all captions is run once and repeated."""
    image = clip.image.split(pixel_values, image_layer)
    text = clip.text.split(input_ids, text_layer, attention_mask)
    if len(image) != len(text):
        image = image[torch.zeros(len(text), dtype=torch.long, device=input_ids.device)]
    return image, text


def find_patches(image: Split) -> Tensor:
    """Return which tokens of pictures are patches, not the class token: (batch, tokens) boolean."""
    _, tokens, _ = image.hidden_states.shape
    places = torch.arange(tokens, device=image.hidden_states.device)
    return (places >= image.tower.class_tokens).expand(len(image), -1)


def average(states: Tensor, places: Tensor) -> Tensor:
    """Average states over the tokens in `places`, (batch, tokens) boolean: (batch, 1, width)."""
    places = places[..., None]
    return torch.where(places, states, 0.0).sum(1, keepdim=True) / places.sum(1, keepdim=True).clamp(min=1)


def stretch(scores: TokenScores, among: Tensor) -> tuple[TokenScores, Tensor]:
    """Stretch each row to [0, 1] over the tokens in `among`; all ones where those are equal, and which rows are so."""
    low = torch.where(among, scores, torch.inf).amin(1, keepdim=True)
    high = torch.where(among, scores, -torch.inf).amax(1, keepdim=True)
    return torch.where(high > low, (scores - low) / (high - low), 1.0), (high <= low)[:, 0]


def to_scores(clip, pixel_values, real: Tensor, similarity, image: Tensor, text: Tensor, image_pixels=None) -> Scores:
    """Put scores of tokens on the grid and zero those of padding.

    Args:
        real: (batch, tokens) boolean, those that are no padding: `Split.real`.
        image: (batch, tokens), as of the tower, or (batch, grid_h, grid_w), the patches alone.
        text: (batch, tokens).
        image_pixels: (batch, height, width), the map at pixels, of a method that has one.
    """
    image, image_class = (image, None) if image.ndim == 3 else clip.image.to_grid(image, clip.grid(pixel_values))
    text, similarity = torch.where(real, text, 0.0), similarity.detach()
    return Scores(image, text, similarity, image_class=image_class, image_pixels=image_pixels)
