"""Ask whether the map of a word lies on the object that the word names.

Exports `measure_words`, `describe_differences` and `name_objects`.
"""

from itertools import chain

import numpy as np
import pandas as pd
import torch

import nib
from nib.clip import HookedCLIP
from nib.datasets import with_article
from nib.metrics import auc, selectivity


def name_objects(kinds: list[str]) -> str:
    """Return a caption of names alone: "a tiger, a drum and a rose"."""
    named = [with_article(kind) for kind in kinds]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def measure_words(clip: HookedCLIP, limit: int, layer: int, n_steps: int) -> pd.DataFrame:
    """Compare the map of each noun of a caption with the mask of its object.

    Args:
        limit: pictures with two or three different objects, of "scenes" and then of "captions".
        layer, n_steps: of the path, see `nib.interactions`.

    Returns:
        Columns `id` (of scene and noun), `layer`, `map` ("its own word", "another word" or "the whole caption"),
        `metric` ("auc" or "selectivity") and `value`.
    """
    rows, scenes = [], 0
    for scene in chain(nib.datasets.load("scenes"), nib.datasets.load("captions")):
        names = scene["objects"]
        if not 2 <= len(names) <= 3 or len(set(names)) < len(names):
            continue
        if (scenes := scenes + 1) > limit:
            break
        caption = name_objects(names)
        between = nib.interactions(clip, scene["image"], caption, layer=layer, n_steps=n_steps)
        whole = nib.attribute(clip, scene["image"], caption, layer=layer, n_steps=n_steps).image_scores
        maps = _sum_nouns(between, names)
        masks = [np.array(scene["masks"]) == place + 1 for place in range(len(names))]
        for place, name in enumerate(names):
            shown = {"its own word": maps[place], "another word": maps[place - 1], "the whole caption": whole}
            others = np.any(np.delete(masks, place, 0), 0)
            mask, other = (torch.from_numpy(each)[None] for each in (masks[place], others))
            for kind, scores in shown.items():
                one = torch.from_numpy(scores)[None]
                measured = {"auc": auc(one, mask), "selectivity": selectivity(one, mask, other)}
                for metric, value in measured.items():
                    rows.append((f"{scene['id']}: {name}", layer, kind, metric, float(value)))
    return pd.DataFrame(rows, columns=["id", "layer", "map", "metric", "value"])


def describe_differences(tests: pd.DataFrame) -> str:
    """Write a line for each layer, metric and map: is it lower or higher than that of the noun's own word?

    Args:
        tests: what `nib.metrics.compare` returns; a difference is settled where its interval leaves zero out and
            Holm's p is below 0.05.
    """
    lines = []
    for _, row in tests.iterrows():
        state = "is not settled"
        if row.p_holm < 0.05 and (row.low > 0 or row.high < 0):
            state = "is **lower**" if row.difference < 0 else "is **higher**"
        change = f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}], Holm p {row.p_holm:.1g}"
        lines.append(f"- layer {row.layer}, {row.metric}: the map of {row['map']} {state} ({change})")
    return "\n".join(lines)


def _sum_nouns(between: "nib.Interactions", names: list[str]) -> list[np.ndarray]:
    """Add up the maps of the words of each name, in order: an article, a comma or "and" stands between names."""
    words = [word.lower() for word in between.words]
    maps, start = [], 0
    for name in names:
        parts = name.lower().split()
        start = next(i for i in range(start, len(words)) if words[i : i + len(parts)] == parts)
        maps.append(between.scores[start : start + len(parts)].sum(0))
        start += len(parts)
    return maps
