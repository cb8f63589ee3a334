"""From pictures and sentences to `Attribution`s: the front door of `nib`."""

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from numbers import Integral, Real

import numpy as np
import torch
from tqdm import tqdm

from nib.checks import check_count, check_seed
from nib.clip import HookedCLIP, check_clip
from nib.inputs import Caption, Picture, read_pictures, to_list, to_picture, to_tokens
from nib.methods import METHODS, ONE_LATER, TOGETHER, Scores
from nib.methods.nib import PAPER, resolve_path
from nib.methods.pairs import NoPairs, guard
from nib.methods.scores import Sums
from nib.result import Attribution


def attribute(
    clip: HookedCLIP,
    images: Picture | Sequence[Picture],
    texts: Caption | Sequence[Caption],
    method: str = "nib",
    *,
    truncate: bool = False,
    batch_size: int = 64,
    progress: bool = True,
    **parameters,
) -> Attribution | list[Attribution]:
    """Explain the similarity of pictures and captions, patch by patch and word by word.

        result = nib.attribute(clip, "photo.jpg", "a dog on grass", layer=9)

    Args:
        images: a picture (PIL image, path, array, or tensor of pixel values; see `nib.inputs.to_pixel_values`), or a
            list of them.
        texts: a caption or a list of them. Two lists are pairs and must be equally long; one of either serves all of
            the other. One picture with many captions costs much less than as many pairs.
        method: a key of `nib.METHODS`.
        truncate: cut captions longer than the model's context instead of raising.
        batch_size: pairs at once, and rows of hidden states at once within a method.
        progress: show a bar when the work takes more than a few seconds.
        parameters: of the method, such as `layer` and `n_steps`; or `preset`, a key of `nib.PRESETS`, which sets
            those of NIB that are not given.

    Returns:
        One `Attribution` for one picture and one caption, else a list.

    Raises:
        KeyError: unknown method.
        TypeError: unknown parameter, or something that is no picture or caption.
        ValueError: lists of unequal or zero length, or bad input; raised before any work.
    """
    check_count("batch_size", batch_size, limit="samples")
    function, parameters = check_method(clip, method, {"batch_size": int(batch_size), **parameters})
    images, texts = to_list("images", images), to_list("texts", texts)
    single = not isinstance(images, list) and not isinstance(texts, list)
    pictures = images if isinstance(images, list) else [images]
    captions = texts if isinstance(texts, list) else [texts] * len(pictures)
    shares_picture = not isinstance(images, list) and len(captions) > 1
    if not pictures or not captions or (len(pictures) != len(captions) and not shares_picture):
        found = f"{len(pictures)} and {len(captions)}"
        raise ValueError(f"images and texts must be lists of the same length, at least 1; got {found}")
    tokens = to_tokens(clip, captions, truncate)
    read = read_pictures(clip, pictures)  # all of them first: a bad one in the last batch is found before any work
    batches = [slice(None)] if shares_picture else _batch(read, len(read) if method in TOGETHER else batch_size)
    if method in TOGETHER and len(batches) > 1:
        sizes = sorted({tuple(picture.shape[-2:]) for picture in read})
        raise ValueError(f"images must have one size for {method}, whose maps depend on all of them, got {sizes}")
    results = []
    for rows in tqdm(batches, desc=method, unit="batch", delay=3, disable=not progress or len(batches) == 1):
        pixel_values = torch.cat([row.to(clip.device, clip.dtype) for row in read[rows]])
        input_ids, attention_mask, described = (part[rows] for part in tokens)
        longest = input_ids.shape[1] if clip.text.sees_padding else int(attention_mask.sum(1).max())
        scores = function(clip, pixel_values, input_ids[:, :longest], attention_mask[:, :longest], **parameters)
        seen = [to_picture(clip, row) for row in pixel_values.split(1)]
        seen *= len(described) if shares_picture else 1
        for index, caption in enumerate(captions[rows]):
            kept = {name: _keep(value) for name, value in parameters.items()}
            results.append(_to_attribution(clip, scores, index, seen[index], caption, described[index], method, kept))
    return results[0] if single else results


def _batch(pictures: list, batch_size: int) -> list[slice]:
    """Cut a list into runs of at most `batch_size` pictures of one shape."""
    starts = [0]
    for row, picture in enumerate(pictures):
        if picture.shape != pictures[starts[-1]].shape or row - starts[-1] == batch_size:
            starts.append(row)
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(pictures)])]


def _to_attribution(clip, scores: Scores, index, picture, caption, described, method, parameters) -> Attribution:
    (tokens, word_ids, words), pixels, (height, width) = described, scores.image_pixels, picture.shape[:2]

    def number(values):
        return None if values is None else float(values[index])

    token_scores, padding = scores.text[index].double().cpu().tensor_split([len(tokens)])
    token_scores = token_scores.numpy()
    word_scores = np.zeros(len(words))
    for word, score in zip(word_ids, token_scores):
        if word is not None:
            word_scores[word] += score
    return Attribution(
        image_scores=scores.image[index].double().cpu().numpy(),
        image_class_score=number(scores.image_class),
        image_pixel_scores=None if pixels is None else pixels[index, :height, :width].float().cpu().numpy(),
        tokens=tokens,
        token_scores=token_scores,
        words=words,
        word_scores=word_scores,
        begin_score=float(token_scores[0]) if clip.text.begin_tokens else None,
        end_score=float(token_scores[-1]),
        padding_score=float(padding.sum()) if clip.text.sees_padding else None,
        similarity=number(scores.similarity),
        image=None if scores.image_sums is None else Sums(*map(number, scores.image_sums)),
        text=None if scores.text_sums is None else Sums(*map(number, scores.text_sums)),
        picture=picture,
        caption=caption if isinstance(caption, str) else " ".join(words),
        method=method,
        parameters=parameters,
    )


def _keep(value):
    """Return a value that stays what it is when the caller fills a tensor of it anew."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_keep, value))
    return copy.deepcopy(value) if isinstance(value, (torch.Tensor, np.ndarray)) else value


def check_method(clip: HookedCLIP, method: str, parameters: dict) -> tuple[Callable[..., Scores], dict]:
    """Find the method, check its parameters as `attribute` says, and return it with all of them, defaults filled in."""
    check_clip(clip)
    if not isinstance(method, str) or method not in METHODS:
        raise KeyError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    if not callable(METHODS[method]):
        raise TypeError(f"METHODS[{method!r}] must be a function, got {type(METHODS[method]).__name__}")
    signature = inspect.signature(METHODS[method])
    known = {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    if taken := sorted({"id", "method", "protocol", "metric", "value"} & set(parameters)):
        raise ValueError(f"a parameter must not be called like a column of the results, got {taken[0]}")
    # `batch_size` is our own default; a method without it has nothing to bound.
    if unknown := sorted(set(parameters) - {*known, "batch_size"}):
        raise TypeError(f"{method} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    parameters = {name: _to_number(parameters.get(name, p.default)) for name, p in known.items()}
    check_seed(parameters.get("seed", 0))
    if "layer" in parameters:
        layers = clip.layers(parameters["layer"], later=method in ONE_LATER)
        parameters["layer"] = layers[0] if layers[0] == layers[1] else layers
    if method == "nib":
        path = {name: parameters.pop(name) for name in PAPER}
        parameters |= resolve_path(parameters.pop("preset"), **path)
    inner = inspect.unwrap(METHODS[method])
    if getattr(inner, "__module__", "").partition(".")[0] == "nib":  # of your own not every one can take no pair
        _try_parameters(clip, inner, parameters)
    return guard(method, METHODS[method]), parameters  # one of your own may have none


def _to_number(value):
    """Return a number of numpy, or a fraction, as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    return float(value) if isinstance(value, Real) and not isinstance(value, (Integral, float)) else value


def _try_parameters(clip: HookedCLIP, function: Callable[..., Scores], parameters: dict) -> None:
    """Call a method without a pair, so that it checks its parameters before any picture is opened."""
    side = clip.image.patch
    no_pictures = torch.zeros(0, clip.image.channels, side, side, dtype=clip.dtype, device=clip.device)
    no_ids = torch.zeros(0, 3, dtype=torch.long, device=clip.device)
    with warnings.catch_warnings(action="ignore"), suppress(NoPairs):  # it will warn when it runs
        function(clip, no_pictures, no_ids, None, **parameters)
