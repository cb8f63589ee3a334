"""From pictures and sentences to `Attribution`s: the front door of `nib`.

Exports `attribute`, `Attribution` and `check_method`.
"""

import html
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.heatmaps import to_heatmap
from nib.inputs import Caption, Picture, read_pictures, to_picture, to_tokens
from nib.methods import METHODS, ONE_LATER, Scores
from nib.methods.nib import PAPER, resolve_path
from nib.methods.pairs import NoPairs
from nib.methods.scores import SUMS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass
class Attribution:
    """Signed scores of the patches of one picture and the words of one caption.

    For NIB they are in cosine units: positive scores raise the similarity, negative ones lower it.

    Attributes:
        image_scores: (grid_h, grid_w).
        image_pixel_scores: (height, width), the map at pixels where the method has one, else None; shown and stretched
            in place of `image_scores`.
        image_class_score: score of the class token, which is not on the map; None without one.
        tokens, token_scores: all tokens, begin and end included, and (tokens,) scores.
        words, word_scores: words, and (words,) sums over each word's tokens; begin and end left out.
        begin_score, end_score: of the tokens before and after the words; None where the family has none.
        padding_score: sum over the padding, of a model that sees its padding (SigLIP), else None.
        similarity: cosine of the two embeddings.
        image_difference, text_difference: what all scores of a modality should add up to: F(z) - F(lambda_min z)
            (Theorem 3 of the NIB paper). These and the gaps are None for methods without such a sum.
        image_gap, text_gap: sum of all scores less that difference.
        image_gap_from_zero, text_gap_from_zero: sum of all scores less F(z) - F(baseline); where the path begins at
            lambda_min > 0 the scores leave out what the stretch below it explains.
        picture: (height, width, 3) uint8, what the model saw.
        text: the caption.
        method, parameters: what computed it.
    """

    image_scores: np.ndarray
    image_class_score: float | None
    image_pixel_scores: np.ndarray | None
    tokens: list[str]
    token_scores: np.ndarray
    words: list[str]
    word_scores: np.ndarray
    begin_score: float | None
    end_score: float | None
    padding_score: float | None
    similarity: float
    image_difference: float | None
    text_difference: float | None
    image_gap: float | None
    text_gap: float | None
    image_gap_from_zero: float | None
    text_gap_from_zero: float | None
    picture: np.ndarray = field(repr=False)
    text: str
    method: str
    parameters: dict[str, Any]

    @property
    def image_map(self) -> np.ndarray:
        """The finest map that there is: (height, width) at pixels, else (grid_h, grid_w)."""
        return self.image_scores if self.image_pixel_scores is None else self.image_pixel_scores

    def heatmap(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the map as (height, width) in [0, 1], by default at the size of the picture."""
        scores = torch.as_tensor(self.image_map)[None]
        return to_heatmap(scores, size or self.picture.shape[:2])[0].numpy()

    def plot(self) -> "Figure":
        """Show the picture, the signed map and the signed words; zero is neutral.

        For NIB the caption says what the scores of each side add up to, and how far they miss F(z) - F(lambda_min z)
        and F(z) - F(0).
        """
        from nib.plotting import plot_attribution  # here, so that numbers alone do not wait for matplotlib

        title = f'{self.method}: "{self.text}"   similarity {self.similarity:.3f}'
        if self.image_gap is not None:
            title += "".join(f"\n{self._describe_sum(number, side)}" for number, side in enumerate(("image", "text")))
            if self.padding_score is not None:
                title += f"\nthe padding, which this model sees, holds {self.padding_score:+.3f} of the text's sum"
        return plot_attribution(self.picture, self.image_map, self.words, self.word_scores, title)

    def _describe_sum(self, number: int, side: str) -> str:
        difference, gap = getattr(self, f"{side}_difference"), getattr(self, f"{side}_gap")
        from_zero = getattr(self, f"{side}_gap_from_zero")
        total = difference + gap
        start = self.parameters["lambda_min"]
        baseline = self.parameters["baseline"]
        start, baseline = (value[number] if isinstance(value, (tuple, list)) else value for value in (start, baseline))
        is_zero = isinstance(baseline, str) and baseline == "zero"
        words = f"{side} scores add up to {total:+.3f}; "
        if start:
            point = f"{start:g} z" if is_zero else f"the path at {start:g}"
            words += f"F(z) - F({point}) is {difference:+.3f}, gap {gap:+.3f}; "
        return words + f"F(z) - F({'0' if is_zero else 'baseline'}) is {total - from_zero:+.3f}, gap {from_zero:+.3f}"

    def to_frame(self) -> "pd.DataFrame":
        """Return all scores as a table, one row a patch, token and word: part, name, row, column, score."""
        import pandas as pd  # here, so that `import nib` does not wait for it

        rows, columns = np.indices(self.image_scores.shape)
        places = dict(row=rows.ravel(), column=columns.ravel())
        parts = [pd.DataFrame({"part": "patch", "name": "", **places, "score": self.image_scores.ravel()})]
        if self.image_class_score is not None:
            parts.append(pd.DataFrame({"part": ["class token"], "score": [self.image_class_score]}))
        parts.append(pd.DataFrame({"part": "token", "name": self.tokens, "score": self.token_scores}))
        parts.append(pd.DataFrame({"part": "word", "name": self.words, "score": self.word_scores}))
        if self.padding_score is not None:
            parts.append(pd.DataFrame({"part": ["padding"], "score": [self.padding_score]}))
        return pd.concat(parts, ignore_index=True)[["part", "name", "row", "column", "score"]]

    def _repr_html_(self) -> str:
        """Show the caption with its words coloured by their scores, and the largest patches."""
        largest = float(np.abs(self.word_scores).max()) or 1.0
        words = []
        for word, score in zip(self.words, self.word_scores):
            red, strength = score > 0, abs(score) / largest
            colour = f"rgba({178 if red else 33}, {24 if red else 102}, {43 if red else 172}, {0.6 * strength:.2f})"
            words.append(f'<span style="background: {colour}" title="{score:+.4f}">{html.escape(word)}</span>')
        rows, columns = np.unravel_index(np.abs(self.image_scores).ravel().argsort()[::-1][:3], self.image_scores.shape)
        patches = ", ".join(f"({i}, {j}) {self.image_scores[i, j]:+.3f}" for i, j in zip(rows, columns))
        head = f"<b>{html.escape(self.method)}</b>, similarity {self.similarity:.3f}: {' '.join(words)}"
        return f"<p>{head}<br>strongest patches (row, column): {patches}; <code>.plot()</code> draws all</p>"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture as plain numbers, strings and lists, ready for JSON."""
        values = {name: value for name, value in vars(self).items() if name != "picture"}
        return {name: _to_plain(value) for name, value in values.items()}


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_to_plain(inner) for inner in value)
    return value.tolist() if isinstance(value, (np.ndarray, torch.Tensor)) else value


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
    batch_size = int(batch_size)
    function, parameters = check_method(clip, method, {"batch_size": batch_size, **parameters})
    images, texts = (_to_list(values) for values in (images, texts))
    single = not _is_list(images) and not _is_list(texts)
    pictures = images if _is_list(images) else [images]
    captions = texts if _is_list(texts) else [texts] * len(pictures)
    shares_picture = not _is_list(images) and len(captions) > 1
    if not pictures or not captions or (len(pictures) != len(captions) and not shares_picture):
        raise ValueError(
            f"images and texts must be lists of the same length, at least 1; got {len(pictures)} and {len(captions)}"
        )
    tokens = to_tokens(clip, captions, truncate)
    read = read_pictures(clip, pictures)  # all of them first: a bad one in the last batch is found before any work
    batches = [slice(None)] if shares_picture else _batch(read, batch_size)
    results = []
    for rows in tqdm(batches, desc=method, unit="batch", delay=3, disable=not progress or len(batches) == 1):
        own = read if shares_picture else read[rows]
        pixel_values = torch.cat([row.to(clip.device, clip.dtype) for row in own])
        input_ids, attention_mask, words = (part[rows] for part in tokens)
        longest = input_ids.shape[1] if clip.text.sees_padding else int(attention_mask.sum(1).max())
        with clip.lock:  # methods switch the kind of attention, and hook the model
            scores = function(clip, pixel_values, input_ids[:, :longest], attention_mask[:, :longest], **parameters)
        seen = [to_picture(clip, row) for row in pixel_values.split(1)]
        seen *= len(words) if shares_picture else 1
        for index, caption in enumerate(captions[rows]):
            of_pair = _to_attribution(clip, scores, index, seen[index], caption, words[index], method, parameters)
            results.append(of_pair)
    return results[0] if single else results


def _batch(pictures: list, batch_size: int) -> list[slice]:
    """Cut a list into runs of at most `batch_size` pictures of one shape."""
    starts = [0]
    for row, picture in enumerate(pictures):
        if picture.shape != pictures[starts[-1]].shape or row - starts[-1] == batch_size:
            starts.append(row)
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(pictures)])]


def _to_list(values):
    """Return a list of what is several: a tuple, an iterator, an array of objects or strings, a column of a table."""
    if isinstance(values, np.ndarray):
        return values.tolist() if values.dtype.kind in "UO" and values.ndim == 1 else values
    one = (str, Path, Image.Image, torch.Tensor, bytes, Mapping)
    is_one = isinstance(values, one) or not isinstance(values, Iterable)
    return values if is_one else list(values)


def _is_list(values) -> bool:
    return isinstance(values, list)


def _to_attribution(clip, scores: Scores, index, picture, caption, words, method, parameters) -> Attribution:
    tokens, word_ids, names = words

    def number(values):
        return None if values is None else float(values[index])

    token_scores, padding = scores.text[index].double().cpu().tensor_split([len(tokens)])
    token_scores = token_scores.numpy()
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
        begin_score=float(token_scores[0]) if clip.text.begin_tokens else None,
        end_score=float(token_scores[-1]),
        padding_score=float(padding.sum()) if clip.text.sees_padding else None,
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
    parameters = {name: value.item() if isinstance(value, np.generic) else value for name, value in parameters.items()}
    if "layer" in parameters:
        layers = clip.layers(parameters["layer"], later=method in ONE_LATER)
        parameters["layer"] = layers[0] if layers[0] == layers[1] else layers
    if method == "nib":
        path = {name: parameters.pop(name) for name in PAPER}
        parameters |= resolve_path(parameters.pop("preset"), **path)
    _try_parameters(clip, inspect.unwrap(METHODS[method]), parameters)
    return METHODS[method], parameters


def _try_parameters(clip: HookedCLIP, function: Callable[..., Scores], parameters: dict) -> None:
    """Call a method without a pair, so that it checks its parameters before any picture is opened."""
    side, where = clip.image.patch, dict(device=clip.device)
    nothing = torch.zeros(0, clip.image.channels, side, side, dtype=clip.dtype, **where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it will say so when it runs
            function(clip, nothing, torch.zeros(0, 3, dtype=torch.long, **where), None, **parameters)
    except NoPairs:
        pass
