"""Measure the embedded model on the held-out splits and write `scores.csv`.

    python -m data.mini_clip.score

R@1 is the share of pictures whose nearest caption among all 500 is theirs, and of captions whose
nearest picture is theirs; an identical caption counts as right. The intervals are 95 % Wilson
intervals.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

import nib
from data.scenes.atlas import read_objects
from data.scenes.grammar import object_caption
from nib.inputs import to_pixel_values, to_tokens

HERE = Path(__file__).parent
BARS = {"scenes": 0.85, "captions": None, "objects": 0.97, "aerial": 0.5}
BATCH_SIZE = 50


@torch.no_grad()
def embed_images(clip, images) -> torch.Tensor:
    """Embed pictures on the unit sphere: (images, embed)."""
    rows = torch.cat([to_pixel_values(clip, image) for image in images])
    embeds = torch.cat([clip.image.embed(part) for part in rows.split(BATCH_SIZE)])
    return torch.nn.functional.normalize(embeds, dim=-1)


@torch.no_grad()
def embed_texts(clip, texts) -> torch.Tensor:
    """Embed captions on the unit sphere: (texts, embed)."""
    parts = [to_tokens(clip, texts[i : i + BATCH_SIZE])[:2] for i in range(0, len(texts), BATCH_SIZE)]
    embeds = torch.cat([clip.text.embed(input_ids, attention_mask) for input_ids, attention_mask in parts])
    return torch.nn.functional.normalize(embeds, dim=-1)


def measure(clip) -> list[dict]:
    """Score every split in both directions; `objects` is zero-shot over all object names."""
    rows = []
    for split, bar in BARS.items():
        data = nib.datasets.load(split)
        images, texts = embed_images(clip, data["image"]), data["text"][:]
        if split == "objects":
            names = [object_caption(row["name"]) for row in read_objects()]
            hits = {"zero-shot accuracy": np.array(names)[(images @ embed_texts(clip, names).T).argmax(1)] == texts}
        else:
            similarity = images @ embed_texts(clip, texts).T
            texts = np.array(texts)
            hits = {
                "R@1 image to text": texts[similarity.argmax(1)] == texts,
                "R@1 text to image": texts[similarity.argmax(0)] == texts,
            }
        for metric, hit in hits.items():
            interval = binomtest(int(hit.sum()), len(hit)).proportion_ci(method="wilson")
            value, low, high = (round(float(v), 4) for v in (hit.mean(), interval.low, interval.high))
            rows.append(dict(split=split, metric=metric, n=len(hit), value=value, low=low, high=high, bar=bar))
    return rows


if __name__ == "__main__":
    scores = measure(nib.load())
    with open(HERE / "scores.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, scores[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(scores)
    for row in scores:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        print(f"| {row['split']} | {row['metric']} | {row['value']:.3f} | {interval} | {row['bar'] or ''} |")
