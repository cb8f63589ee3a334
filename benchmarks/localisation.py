"""Measure which methods find the object that the prompt names, on the embedded scenes.

    python -m benchmarks.localisation --limit 150

Scenes hold two or three different objects and the prompt names one. Writes
benchmarks/localisation.csv and prints a table: mean and 95 % bootstrap interval over scenes.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import nib
from nib.metrics import auc, bootstrap_interval, energy_inside, pointing_game

METRICS = {"pointing game": pointing_game, "AUC": auc, "energy inside": energy_inside}


def measure(clip: nib.HookedCLIP, methods: dict[str, dict], limit: int | None, progress: bool = True) -> pd.DataFrame:
    """Give one row a method, metric and scene; `methods` maps names to parameters."""
    images, texts, masks = nib.datasets.object_prompts(limit)
    masks = torch.from_numpy(masks)
    frames = []
    for method, parameters in tqdm(methods.items(), disable=not progress):
        results = nib.attribute(clip, images, texts, method=method, progress=progress, **parameters)
        scores = torch.from_numpy(np.stack([result.image_scores for result in results]))
        for metric, function in METRICS.items():
            values = function(scores, masks).numpy()
            frames.append(
                pd.DataFrame({"method": method, "metric": metric, "scene": range(len(values)), "value": values})
            )
    return pd.concat(frames, ignore_index=True)


def summarise(values: pd.DataFrame) -> pd.DataFrame:
    """Average over scenes, with intervals."""
    rows = []
    for (method, metric), group in values.groupby(["method", "metric"], sort=False):
        low, high = bootstrap_interval(group.value.to_numpy())
        rows.append(dict(method=method, metric=metric, n=len(group), mean=group.value.mean(), low=low, high=high))
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=150, help="scenes")
    parser.add_argument("--rise-masks", type=int, default=500, help="the paper's are 6000")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    methods = {name: {} for name in nib.METHODS} | {"rise": {"n_masks": args.rise_masks}}
    summary = summarise(measure(nib.load(device=args.device), methods, args.limit))
    summary.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4f", lineterminator="\n")
    summary["text"] = summary.apply(lambda row: f"{row['mean']:.2f} [{row.low:.2f}, {row.high:.2f}]", axis=1)
    print(summary.pivot(index="method", columns="metric", values="text").reindex(list(methods), columns=list(METRICS)))
