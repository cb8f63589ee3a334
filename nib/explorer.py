"""Show an attribution as one interactive page of HTML: `explorer.html` with the picture and the numbers put in."""

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nib.interaction import Interactions
from nib.result import Attribution

LONGEST_SIDE = 672  # pixels of the longer side in the page
HEIGHT = 560  # pixels of the page in a notebook


def make_page(result: Attribution, interactions: Interactions | None = None, others: Sequence[Attribution] = ()) -> str:
    """Return the page that `Attribution.to_html` describes."""
    _check_arrays(result)
    if isinstance(others, type(result)):
        raise TypeError("others must be a list of Attributions, got one: pass [other]")
    if isinstance(others, str) or not isinstance(others, Iterable):
        raise TypeError(f"others must be a list of Attributions, got {type(others).__name__}")
    shown = [result, *others]
    for number, other in enumerate(shown[1:]):
        if not isinstance(other, type(result)):
            raise TypeError(f"others must be a list of Attributions, got {type(other).__name__}")
        _check_arrays(other)
        _check_same(result, other, f"others[{number}]", other.image_scores.shape)
    if interactions is not None:
        if not isinstance(interactions, Interactions):
            raise TypeError(f"interactions must be a nib.Interactions, got {type(interactions).__name__}")
        _check_same(result, interactions, "interactions", interactions.scores.shape[1:])
    values = {
        "items": [_describe(item, label) for item, label in zip(shown, _label(shown))],
        "words": result.words,
        "grid": result.image_scores.shape,
        "between": None if interactions is None else _round(interactions.scores.reshape(len(result.words), -1)),
    }
    rows, columns = result.image_scores.shape
    parts = {
        "title": html.escape(f"{result.method}: {result.caption}"),
        "caption": html.escape(result.caption),
        "alt": html.escape(f"The picture that the model saw, under a map of {rows} by {columns} patches"),
        "picture": _encode(result.picture),
        "ratio": f"{result.picture.shape[1]} / {result.picture.shape[0]}",
        "static": _summarise(result),
        "data": _to_json(values),
    }
    template = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)  # one pass: captions may hold braces


def embed_page(result: Attribution) -> str:
    """Return the page in a frame for a notebook, and the words as plain HTML for viewers that strip frames."""
    static = f'<div class="nib-static">{_summarise(result)}</div>'
    try:
        page = html.escape(make_page(result))
    except ValueError:  # a score is NaN: a notebook's cell shall show what there is
        return static
    frame = f'style="width: 100%; height: {HEIGHT}px; border: 0" sandbox="allow-scripts" title="nib explorer"'
    # where the frame is stripped the rule does not match, and the words are shown
    rule = "<style>.nib-page:has(iframe) > .nib-static { display: none }</style>"
    return f'<div class="nib-page">{rule}{static}<iframe {frame} srcdoc="{page}"></iframe></div>'


def _summarise(result: Attribution) -> str:
    """Return the caption with its words coloured by their scores, and the largest patches, as plain HTML."""
    largest = float(np.abs(result.word_scores).max(initial=0)) or 1.0
    words = []
    for word, score in zip(result.words, result.word_scores):
        red, strength = score > 0, abs(score) / largest
        colour = f"rgba({178 if red else 33}, {24 if red else 102}, {43 if red else 172}, {0.6 * strength:.2f})"
        words.append(f'<span style="background: {colour}" title="{score:+.4f}">{html.escape(word)}</span>')
    scores = result.image_scores
    rows, columns = np.unravel_index(np.abs(scores).ravel().argsort()[::-1][:3], scores.shape)
    patches = ", ".join(f"({i}, {j}) {scores[i, j]:+.3f}" for i, j in zip(rows, columns))
    head = f"<b>{html.escape(result.method)}</b>, similarity {result.similarity:.3f}: {' '.join(words)}"
    return f"<p>{head}<br>strongest patches (row, column): {patches}; <code>.plot()</code> draws all</p>"


def _check_arrays(result: Attribution) -> None:
    for name, kind in (("picture", "u"), ("image_scores", "f"), ("word_scores", "f")):
        if not isinstance(values := getattr(result, name), np.ndarray) or values.dtype.kind != kind:
            raise TypeError(f"{name} must be the array that nib.attribute gives, got {type(values).__name__}")


def _check_same(result: Attribution, other, name: str, grid: tuple[int, ...]) -> None:
    if (other.caption, other.words) != (result.caption, result.words):
        raise ValueError(f"{name} must be of the same caption, {result.caption!r}, got {other.caption!r}")
    if grid != result.image_scores.shape:
        raise ValueError(f"{name} must have the same grid of patches, {result.image_scores.shape}, got {grid}")
    if not np.array_equal(other.picture, result.picture):
        raise ValueError(f"{name} must be of the same picture: the pixels differ")


def _describe(item: Attribution, label: str) -> dict:
    if len(item.words) != len(item.word_scores):
        raise ValueError(f"words and scores must be equally many, got {len(item.words)} and {len(item.word_scores)}")
    return {
        "label": label,
        "method": item.method,
        "similarity": _round(item.similarity),
        "unit": item.unit,
        "patches": _round(item.image_scores.ravel()),
        "word_scores": _round(item.word_scores),
    }


def _label(shown: list[Attribution]) -> list[str]:
    """Say of each what differs: its method, and the parameters that those which have them do not share."""
    settings = [{"method": item.method} | item.parameters for item in shown]
    names = dict.fromkeys(name for one in settings for name in one if name != "batch_size")
    differ = [name for name in names if len({str(one[name]) for one in settings if name in one}) > 1]
    return [", ".join(f"{name} {str(one[name])[:40]}" for name in differ if name in one) for one in settings]


def _round(scores) -> float | list:
    """Return plain numbers of seven digits, all that float32 has; a ValueError refuses NaN and infinity."""
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite to be shown, got NaN or infinity")
    rounded = [float(f"{value:.7g}") for value in np.ravel(scores)]
    return np.reshape(rounded, np.shape(scores)).tolist()


def _to_json(values: dict) -> str:
    """Write JSON that no text in it can end: `<` would close the script, and JavaScript ends lines at U+2028."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _encode(picture: np.ndarray) -> str:
    """Return a picture as the address of a JPEG that holds its own bytes."""
    image, file = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(file, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
