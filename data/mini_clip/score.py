"""Measure the embedded model on what training never saw, and write `scores.csv`.

    python -m data.mini_clip.score [--model FOLDER]

R@1 is the share of pictures whose nearest caption among all 500 is theirs, and of captions whose nearest picture is
theirs; an identical caption counts as right. A forced choice is right where the true sentence is more similar to the
picture than the false one. The intervals are 95 % Wilson intervals.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import binomtest
from torch.nn.functional import normalize

import nib
from data.scenes.backgrounds import Backgrounds
from data.scenes.grammar import PLURALS, object_caption
from data.scenes.scenes import SIZE, draw_scene
from data.scenes.stamps import load_stamps, read_kinds
from nib.datasets import with_article
from nib.inputs import to_pixel_values, to_tokens

HERE = Path(__file__).parent
SCENES = HERE.parent / "scenes"
FLOORS = {"objects": 0.95, "scenes": 0.85, "aerial": 0.6}
BATCH_SIZE = 50
CHOICES = 400  # scenes of each forced choice
SEED = 20262  # of the scenes of the forced choices; the evaluation splits have another


@torch.no_grad()
def embed_images(clip, images) -> torch.Tensor:
    """Return the embeddings of pictures on the unit sphere: (images, embed)."""
    parts = [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]
    embeds = [clip.image.embed(torch.cat([to_pixel_values(clip, image) for image in part])) for part in parts]
    return normalize(torch.cat(embeds), dim=-1)


@torch.no_grad()
def embed_texts(clip, texts) -> torch.Tensor:
    """Return the embeddings of captions on the unit sphere: (texts, embed)."""
    parts = [to_tokens(clip, texts[i : i + BATCH_SIZE])[:2] for i in range(0, len(texts), BATCH_SIZE)]
    return normalize(torch.cat([clip.text.embed(ids, mask) for ids, mask in parts]), dim=-1)


def measure_split(clip, split: str) -> dict[str, np.ndarray]:
    """Return what is right and what is wrong on one split, by metric."""
    data = Dataset.from_parquet(str(SCENES / f"{split}.parquet"))
    images, texts = embed_images(clip, data["image"][:]), np.array(data["text"][:])
    if split in ("objects", "unseen"):
        names = np.array([row["name"] for row in read_kinds()])
        prompts = embed_texts(clip, [object_caption(name) for name in names])
        truth = np.array([objects[0] for objects in data["objects"][:]])
        return {f"zero-shot accuracy among {len(names)} kinds": names[(images @ prompts.T).argmax(1)] == truth}
    similarity = images @ embed_texts(clip, texts.tolist()).T
    return {
        "R@1 image to text": texts[similarity.argmax(1)] == texts,
        "R@1 text to image": texts[similarity.argmax(0)] == texts,
    }


def compose_choices(question: str) -> tuple[list, list[str], list[str]]:
    """Compose scenes, a true sentence about each, and a false one that differs in one respect."""
    backgrounds, kinds = Backgrounds(SEED), list(load_stamps())
    pictures, right, wrong = [], [], []
    for index in range(10 * CHOICES):
        rng = np.random.default_rng([SEED, len(question), index])
        one, other, absent = (str(name) for name in rng.choice(kinds, 3, replace=False))
        if question == "a cat or a dog":
            names = [["cat", "dog"][index % 2]]
            sentences = object_caption(names[0]), object_caption(["dog", "cat"][index % 2])
        elif question == "two or three":
            names = [one] * (2 + index % 2)
            sentences = f"two {PLURALS[one]}", f"three {PLURALS[one]}"
            sentences = sentences[:: 1 - 2 * (index % 2)]
        else:
            names = [one, other]
            sentences = f"a photo of {with_article(one)}", f"a photo of {with_article(absent)}"
        scene = draw_scene(rng, backgrounds, names=names)
        if question == "left or right":
            (ax, ay), (bx, by) = (scene.centres[scene.objects.index(name)] for name in (one, other))
            if abs(ax - bx) < SIZE / 4 or abs(ax - bx) < 1.4 * abs(ay - by):
                continue
            sides = ("left", "right") if ax < bx else ("right", "left")
            sentences = [f"{with_article(one)} to the {side} of {with_article(other)}" for side in sides]
        pictures.append(scene.image)
        right.append(sentences[0])
        wrong.append(sentences[1])
        if len(pictures) == CHOICES:
            break
    return pictures, right, wrong


def measure_choice(clip, question: str) -> np.ndarray:
    """Return whether the true sentence is more similar to each picture than the false one."""
    pictures, right, wrong = compose_choices(question)
    images = embed_images(clip, pictures)
    true, false = ((images * embed_texts(clip, texts)).sum(1) for texts in (right, wrong))
    return (true > false).numpy()


def measure(clip) -> list[dict]:
    """Score every split, then every forced choice."""
    found = [(split, metric, hits) for split in ("objects", "unseen", "scenes", "captions", "aerial")
             for metric, hits in measure_split(clip, split).items()]  # fmt: skip
    questions = ("a cat or a dog", "left or right", "two or three", "present or absent")
    found += [("forced choice", question, measure_choice(clip, question)) for question in questions]
    rows = []
    for split, metric, hits in found:
        interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
        value, low, high = (round(float(v), 4) for v in (hits.mean(), interval.low, interval.high))
        rows.append(
            dict(split=split, metric=metric, n=len(hits), value=value, low=low, high=high, floor=FLOORS.get(split))
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="folder of the model; the embedded one if left out")
    parser.add_argument("--output", type=Path, default=HERE / "scores.csv")
    args = parser.parse_args()
    scores = measure(nib.load(args.model))
    with open(args.output, "w", newline="") as file:
        writer = csv.DictWriter(file, scores[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(scores)
    for row in scores:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        print(f"| {row['split']} | {row['metric']} | {row['value']:.3f} | {interval} | {row['floor'] or ''} |")
