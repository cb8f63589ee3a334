"""From pictures and sentences to `Attribution`s: the front door of `nib`.

Exports `attribute` and `check_method`.
"""

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tqdm import tqdm

from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.inputs import Caption, Picture, read_pictures, to_picture, to_tokens
from nib.methods import METHODS, Scores
from nib.methods.nib import PAPER, resolve_path
from nib.methods.scores import SUMS
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

    Args:
        images: a picture (PIL image, path, array, or tensor of pixel values; see
            `nib.inputs.to_pixel_values`), or a list of them.
        texts: a caption or a list of them. Two lists are pairs and must be equally long; one
            picture with many captions, or one caption with many pictures, is repeated. One
            picture with many captions costs much less than as many pairs.
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
    check_count("batch_size", batch_size)
    function, parameters = check_method(clip, method, {"batch_size": batch_size, **parameters})
    single = not _is_list(images) and not _is_list(texts)
    pictures = list(images) if _is_list(images) else [images]
    captions = list(texts) if _is_list(texts) else [texts] * len(pictures)
    shares_picture = not _is_list(images) and len(captions) > 1
    if not pictures or not captions or (len(pictures) != len(captions) and not shares_picture):
        raise ValueError(
            f"images and texts must be lists of the same length, at least 1; got {len(pictures)} and {len(captions)}"
        )
    tokens = to_tokens(clip, captions, truncate)
    step = len(captions) if shares_picture else batch_size
    starts = range(0, len(captions), step)
    read = read_pictures(clip, pictures)  # all of them first: a bad one in the last batch is found before any work
    results = []
    for first in tqdm(starts, desc=method, unit="batch", delay=3, disable=not progress or len(starts) == 1):
        rows = slice(first, first + step)
        own = read if shares_picture else read[rows]
        pixel_values = torch.cat([row.to(clip.device, clip.dtype) for row in own])
        input_ids, attention_mask, words = (part[rows] for part in tokens)
        longest = int(attention_mask.sum(1).max())
        scores = function(clip, pixel_values, input_ids[:, :longest], attention_mask[:, :longest], **parameters)
        seen = [to_picture(clip, row) for row in pixel_values.split(1)]
        seen *= len(words) if shares_picture else 1
        for index, caption in enumerate(captions[rows]):
            results.append(_to_attribution(scores, index, seen[index], caption, words[index], method, parameters))
    return results[0] if single else results


def _is_list(values) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _to_attribution(scores: Scores, index, picture, caption, words, method, parameters) -> Attribution:
    tokens, word_ids, names = words

    def number(values):
        return None if values is None else float(values[index])

    token_scores = scores.text[index, : len(tokens)].double().cpu().numpy()
    word_scores = np.zeros(len(names))
    for word, score in zip(word_ids, token_scores):
        if word is not None:
            word_scores[word] += score
    return Attribution(
        image_scores=scores.image[index].double().cpu().numpy(),
        image_class_score=number(scores.image_class),
        image_pixel_scores=None if scores.image_pixels is None else scores.image_pixels[index].float().cpu().numpy(),
        tokens=tokens,
        token_scores=token_scores,
        words=names,
        word_scores=word_scores,
        similarity=number(scores.similarity),
        **{name: number(getattr(scores, name)) for name in SUMS},
        picture=picture,
        text=caption if isinstance(caption, str) else " ".join(names),
        method=method,
        parameters=parameters,
    )


def check_method(clip: HookedCLIP, method: str, parameters: dict) -> tuple[Callable[..., Scores], dict]:
    """Find the method, make sure that it knows every parameter, and fill in its preset and its defaults.

    Raises:
        KeyError: unknown method.
        TypeError: unknown parameter.
        ValueError: an unknown preset, or a layer that one of the towers does not have.
    """
    if method not in METHODS:
        raise KeyError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    signature = inspect.signature(METHODS[method])
    known = {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    unknown = sorted(set(parameters) - set(known))
    if "batch_size" in unknown:  # our own default; a method without it has nothing to bound
        unknown.remove("batch_size")
        parameters = {name: value for name, value in parameters.items() if name != "batch_size"}
    if unknown:
        raise TypeError(f"{method} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    defaults = {name: p.default for name, p in known.items()}
    parameters = {**defaults, **parameters}
    if "layer" in parameters:
        layers = clip.layers(parameters["layer"])
        parameters["layer"] = layers[0] if layers[0] == layers[1] else layers
    if method == "nib":
        path = {name: parameters.pop(name) for name in PAPER}
        parameters |= resolve_path(parameters.pop("preset"), **path)
    return METHODS[method], parameters
