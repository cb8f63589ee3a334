"""Draw the pictures of the card: the curve, what the model says of twelve scenes, and contact sheets.

    python -m data.mini_clip.sheets

Writes `curve.png`, `says.jpg`, `scenes.jpg` and `maps.jpg`. Scenes are drawn at random by a seed, not chosen.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

import nib
from data.mini_clip.maps import read_prompts
from data.scenes.grammar import object_caption
from data.scenes.stamps import read_kinds
from nib.inputs import to_pixel_values, to_tokens
from nib.plotting import draw_map, new_figure

HERE = Path(__file__).parent
SHEET = 30  # pictures of a contact sheet


def draw_curve(log: pd.DataFrame):
    """Draw loss and accuracy within the batch against the step; lines mark where the model grows."""
    figure = new_figure(7, 2.6)
    for axes, column in zip(figure.subplots(1, 2), ("loss", "batch_accuracy")):
        axes.plot(log["step"], log[column], linewidth=0.8)
        for step in log["step"][log["depth"].diff() > 0]:
            axes.axvline(step, color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="step", ylabel=column.replace("_", " "), ylim=(0, None))
    return figure


@torch.no_grad()
def draw_answers(clip, rows):
    """Write under each scene its nearest caption among all, and the three kinds that the model finds likeliest."""
    names, texts = [row["name"] for row in read_kinds()], nib.datasets.load("scenes")["text"][:]

    def embed(captions):
        return normalize(clip.text.embed(*to_tokens(clip, captions)[:2]), dim=-1)

    kinds, captions = embed([object_caption(name) for name in names]), embed(texts)
    figure = new_figure(11, 10)
    for axes, row in zip(figure.subplots(3, 4).flat, rows):
        image = normalize(clip.image.embed(to_pixel_values(clip, row["image"])), dim=-1)[0]
        nearest, likeliest = texts[int((captions @ image).argmax())], (kinds @ image).topk(3)
        said = ", ".join(f"{names[i]} {value:.2f}" for value, i in zip(*map(torch.Tensor.tolist, likeliest)))
        axes.imshow(row["image"])
        axes.set_axis_off()
        axes.set_title(f"true: {row['text']}\nnearest of 500: {nearest}\n{said}", fontsize=6.5, loc="left", wrap=True)
    return figure


def draw_sheet(cells, columns: int = 10):
    """Draw (draw, title) cells in a grid."""
    figure = new_figure(1.25 * columns, 1.5 * -(-len(cells) // columns))
    for axes, (draw, title) in zip(figure.subplots(-(-len(cells) // columns), columns).flat, cells):
        draw(axes)
        axes.set_axis_off()
        axes.set_title(title, fontsize=6)
    return figure


def save(figure, name: str, dpi: int = 110) -> None:
    """Save a picture of the card, small."""
    figure.savefig(HERE / name, dpi=dpi, **({"pil_kwargs": {"quality": 80}} if name.endswith("jpg") else {}))


if __name__ == "__main__":
    clip, rng = nib.load(), np.random.default_rng(0)
    save(draw_curve(pd.read_csv(HERE / "log.csv")), "curve.png")
    scenes = nib.datasets.load("scenes")
    drawn = rng.choice(len(scenes), SHEET, replace=False).tolist()
    save(draw_answers(clip, [scenes[row] for row in drawn[:12]]), "says.jpg")
    cells = [(lambda axes, row=row: axes.imshow(scenes[row]["image"]), scenes[row]["id"]) for row in drawn]
    save(draw_sheet(cells), "scenes.jpg")
    prompts = read_prompts(500)
    cells = []
    for row in (prompts[row] for row in rng.choice(500, SHEET, replace=False)):
        cells.append((lambda axes, row=row: axes.imshow(row["image"]), row["text"]))
        for baseline, title in (("zero", "from zero"), ("mean", "from the mean")):
            result, mask = nib.attribute(clip, row["image"], row["text"], baseline=baseline), row["masks"]

            def draw(axes, result=result, mask=mask):
                draw_map(axes, result.picture, result.image_scores)
                axes.contour(mask, [0.5], colors="black", linewidths=0.8)

            cells.append((draw, title))
    save(draw_sheet(cells, columns=9), "maps.jpg")
