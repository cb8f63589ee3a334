"""Measure which methods find the object that the prompt names, on the embedded scenes.

    python -m benchmarks.localisation --limit 150

Scenes hold two or three different objects and the prompt names one. AUC against the mask rewards objectness: a map
that shows where any object is does well by it, whatever the prompt says, as the control `objectness` does.
Selectivity sets the pixels of the named object against those of the others, where such a map is at chance. Writes
benchmarks/localisation.csv and prints a table: mean and 95 % bootstrap interval over scenes.
"""

import argparse
from pathlib import Path

import pandas as pd

import nib
from nib.metrics import summarise


def measure(clip: nib.HookedCLIP, methods: list, limit: int | None, progress: bool = True) -> pd.DataFrame:
    """Return one row a method, metric and scene (`id`)."""
    scenes = zip(*nib.datasets.object_prompts(limit, with_others=True))
    names = ("image", "text", "masks", "other_masks")
    pairs = [dict(zip(names, scene), id=number) for number, scene in enumerate(scenes)]
    return nib.evaluate(clip, pairs, methods, metrics=["localisation"], progress=progress)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=150, help="scenes")
    parser.add_argument("--rise-masks", type=int, default=500, help="the paper's are 6000")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    names = [*nib.METHODS, "true_mask"]
    methods = [{"method": "rise", "n_masks": args.rise_masks} if name == "rise" else name for name in names]
    summary = summarise(measure(nib.load(device=args.device), methods, args.limit), ["method", "metric"])
    summary.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4f", lineterminator="\n")
    summary["text"] = summary.apply(lambda row: f"{row['mean']:.2f} [{row.low:.2f}, {row.high:.2f}]", axis=1)
    order = dict(index=names, columns=["selectivity", "pointing_game", "auc", "energy_inside"])
    print(summary.pivot(index="method", columns="metric", values="text").reindex(**order))
