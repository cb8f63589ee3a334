"""Draw signed scores over pictures and words, and save a figure with the numbers in it.

Scores are drawn in a red-blue scale that colour-blind readers can tell apart, with symmetric limits: zero is neutral
and lets the grey picture through.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from nib.checks import LARGEST, check_count, check_number, name_place, shorten, to_floats
from nib.files import check_file, name_index, to_path, write_csv, write_whole
from nib.heatmaps import upsample

COLOURS = "RdBu_r"
SMALLEST = 1e-37  # of the largest score of a map: matplotlib draws in float32
DOTS = 300  # an inch, of files
WIDTH = 7.1  # of a printed page with two columns, in inches
PRINT = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "figure.titlesize": 8,
    "figure.facecolor": "white",  # a dark style would leave white letters on it
    "axes.facecolor": "white",
} | dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "black")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of this size in inches that notebooks show once, when it is a cell's result."""
    figure = plt.figure(figsize=(width, height), layout="constrained", dpi=85, facecolor="white")
    plt.close(figure)
    return figure


def symmetric_limit(scores: np.ndarray) -> float:
    """Return the largest absolute score, or 1 where all are zero; a ValueError refuses none, NaN and infinity."""
    scores = to_floats("scores that are drawn", scores)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores that are drawn must be a finite map or list, got {shorten(scores.tolist())}")
    return float(np.abs(scores).max()) or 1.0


def draw_map(axes: Axes, picture: np.ndarray, scores: np.ndarray, limit: float | None = None) -> None:
    """Lay signed patch scores over a picture; the stronger a score, the less of the picture shows.

    Args:
        picture: (height, width, 3) uint8, or (height, width), grey.
        scores: (grid_h, grid_w), signed and finite.
        limit: the score drawn in full colour; the largest absolute score if None or 0.
    """
    if not isinstance(axes, Axes):
        raise TypeError(f"axes must be matplotlib's Axes, got {type(axes).__name__}")
    largest = symmetric_limit(scores)
    picture, scores, raw = to_floats("a picture", picture), to_floats("a map", scores), np.asarray(picture)
    fits = scores.ndim == 2 and picture.ndim in (2, 3) and picture.shape[2:] in ((), (1,), (3,))
    if not fits or not picture.size or raw.dtype != np.uint8:
        raise ValueError(
            "a picture (height, width, 3) in uint8 and a map (., .) are drawn, both finite, got"
            f" {raw.dtype} {picture.shape} and {scores.shape}"
        )
    limit = (0 if limit is None else check_number("limit", limit, 0)) or largest
    if min(limit, largest) < SMALLEST or largest > LARGEST:
        raise ValueError(
            f"the largest score of a map and its limit must be within {SMALLEST:g} and {LARGEST:g}, got {largest:g}"
            f" and {limit:g}: scale them"
        )
    large = upsample(torch.as_tensor(scores, dtype=torch.float32)[None], picture.shape[:2])[0].numpy()
    grey = 0.35 + 0.65 * (picture if picture.ndim == 2 else picture.mean(-1)) / 255
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    strength = 0.9 * np.clip(np.abs(large) / limit, 0, 1) ** 0.7
    axes.imshow(large, cmap=COLOURS, vmin=-limit, vmax=limit, alpha=strength)
    axes.set_axis_off()


def draw_words(axes: Axes, words: Sequence[str], scores: np.ndarray, label: str = "score (cosine)") -> None:
    """Draw one bar a word, in reading order from the top, red for and blue against."""
    limit, words, scores = symmetric_limit(scores), list(words), to_floats("scores of words", scores)
    if scores.shape != (len(words),):
        raise ValueError(f"words and scores must be equally many, got {len(words)} and the shape {scores.shape}")
    axes.barh(range(len(words)), scores, color=plt.get_cmap(COLOURS)(0.5 + 0.45 * np.sign(scores)))
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set(xlim=(-1.15 * limit, 1.15 * limit), xlabel=label)
    axes.locator_params(axis="x", nbins=4)
    axes.set_yticks(range(len(words)), [as_written(word, 30) for word in words])
    axes.set_ylim(max(len(words), 6) - 0.5, -0.5)  # a few words do not make thick bars


def add_colour_bar(figure: Figure, axes, limit: float, label: str = "patch score (cosine)") -> None:
    """Add the scale of `draw_map`, zero in the middle."""
    scale = ScalarMappable(Normalize(-limit, limit), COLOURS)
    figure.colorbar(scale, ax=axes, shrink=0.8).set_label(as_written(label), size=7)


@plt.rc_context(PRINT)
def plot_attribution(
    picture: np.ndarray,
    image_scores: np.ndarray,
    words: Sequence[str],
    word_scores: np.ndarray,
    title: str,
    unit: str = "cosine",
) -> Figure:
    """Show the picture, its signed map and the signed words side by side."""
    unit = f" ({unit})" if unit else ""
    figure = new_figure(WIDTH, max(2.6, 0.16 * len(words) + 1.0))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.2, 0.9))
    draw_map(middle, picture, image_scores)
    left.imshow(picture)
    left.set_axis_off()
    add_colour_bar(figure, middle, symmetric_limit(image_scores), f"patch score{unit}")
    draw_words(right, words, word_scores, f"score{unit}")
    figure.suptitle(as_written(title))
    return figure


def as_written(text: str, most: int = 160) -> str:
    """Return a text that matplotlib draws as it is written, not as mathematics, each line shortened to a length."""
    lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in str(text).splitlines()]
    return "\n".join(lines).replace("$", r"\$")


@plt.rc_context(PRINT)
def plot_maps(
    picture: np.ndarray,
    maps: Mapping[str, np.ndarray],
    columns: int = 4,
    share_limits: bool = False,
) -> Figure:
    """Show one picture, (height, width, 3) uint8, under several signed maps, (grid_h, grid_w) each, by their titles.

    With `share_limits` all panels have one colour scale, with its bar; else each has its own, without bars.
    """
    check_count("columns", columns)
    if not isinstance(maps, Mapping):
        raise TypeError(f"maps must be a mapping of titles to scores, got {type(maps).__name__}")
    check_count("the number of maps", len(maps))
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    bar = 0.6 if share_limits else 0  # inches
    side = min(1.75, (WIDTH - bar) / columns)
    figure = new_figure(side * columns + bar, (side + 0.32) * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for title, scores in maps.items():
        with name_place(f"map {title!r}", len(maps)):
            symmetric_limit(scores)
    limit = symmetric_limit(np.concatenate([to_floats("a map", scores).ravel() for scores in maps.values()]))
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (title, scores) in zip(panels.flat, maps.items()):
        draw_map(axes, picture, scores, limit if share_limits else None)
        axes.set_title(as_written(title, 48))
    if share_limits:
        add_colour_bar(figure, panels, limit)
    return figure


@plt.rc_context(PRINT)
def plot_methods(
    picture: np.ndarray,
    words: Sequence[str],
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    columns: int = 5,
) -> Figure:
    """Show what several methods say of one pair: a map, (grid_h, grid_w), and under it the words, (words,).

    Units differ between methods, so each panel has a scale of its own and no numbers.
    """
    check_count("columns", columns)
    maps = scores.values() if isinstance(scores, Mapping) else [None]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in maps):
        raise TypeError(f"scores must be a mapping of methods to (image_scores, word_scores), got {shorten(scores)}")
    check_count("the number of methods", len(scores))
    columns = min(columns, len(scores))
    rows = -(-len(scores) // columns)
    figure = new_figure(WIDTH, 2.25 * rows)
    panels = figure.subfigures(rows, columns, squeeze=False).flat
    for panel, (method, (image_scores, word_scores)) in zip(panels, scores.items()):
        upper, lower = panel.subplots(2, 1, height_ratios=(2.2, 1))
        draw_map(upper, picture, image_scores)
        upper.set_title(as_written(method, 48))
        draw_words(lower, words, word_scores)
        lower.set(xlabel="", xticks=[])
    return figure


def save_figure(figure: Figure, frame: pd.DataFrame, stem: str | Path) -> None:
    """Write `stem`.png and `stem`.pdf, and beside them the numbers that they show as `stem`.csv.

    The same figure gives the same files: they hold no time stamp. A PNG has 300 dots an inch and 256 colours, of which
    pictures mix more; the PDF has all. Numbers in the CSV have six digits: `nib.save_table` keeps all. An index that
    has a name is a column of it.

        nib.save_figure(result.plot(), result.to_frame(), "build/dog")
    """
    stem = to_path("stem", stem)
    if not isinstance(figure, Figure) or not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a Figure and a DataFrame are saved, got {type(figure).__name__}, {type(frame).__name__}")
    pdf, png, csv = (stem.with_name(f"{stem.name}.{ending}") for ending in ("pdf", "png", "csv"))  # it may hold dots
    for path in (pdf, png, csv):
        check_file(path)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout would move a little with every further drawing
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=DOTS)
    picture = (whole := Image.open(pixels).convert("RGB")).quantize(256)
    if any(axes.images for axes in figure.axes):
        picture = whole.quantize(256, Image.Quantize.MAXCOVERAGE)
        if np.abs(np.subtract(picture.convert("RGB"), whole, dtype=int)).mean() > 2:  # levels: dots of two make a third
            picture = whole.quantize(palette=picture, dither=Image.Dither.FLOYDSTEINBERG)
    # letters that editors and publishers can read
    with plt.rc_context({"pdf.fonttype": 42}), write_whole(pdf) as partial:
        figure.savefig(partial, format="pdf", metadata={"CreationDate": None}, dpi=DOTS)
    with write_whole(png) as partial:
        picture.save(partial, "PNG", optimize=True, dpi=(DOTS, DOTS))
    with write_whole(csv) as partial:
        write_csv(name_index(frame), partial, float_format="%.6g")
