"""Measure whether maps of the embedded model lie on the object that the prompt names, and write `maps.csv`.

    python -m data.mini_clip.maps [--model FOLDER]

500 pictures of `scenes` and `captions` with several kinds of objects; the prompt names one of them. NIB at every layer,
from zero (the paper's) and from the mean patch; the others at their own layer or a few. `auc` asks whether the map is
higher on the named object than elsewhere, `selectivity` whether higher than on the other objects. Intervals are 95 %
bootstrap intervals over pictures. A run that is killed goes on where it was.
"""

import argparse
from itertools import chain
from pathlib import Path

import pandas as pd

import nib
from nib.metrics import summarise

HERE = Path(__file__).parent
LIMIT = 500
FEW_LAYERS = (3, 6, 9, 10)
ELSEWHERE = ("chefer", "saliency", "fast_ig", "mfaba", "pixel_gradient", "input_x_gradient")
CONTROLS = ("random", "center", "none", "objectness", "true_mask")


def read_prompts(limit: int) -> list[dict]:
    """Return pictures, prompts, and the masks of the named object and of the others."""
    prompts = [
        zip(*nib.datasets.object_prompts(None, name, repeated=True, with_others=True))
        for name in ("scenes", "captions")
    ]
    names = ("image", "text", "masks", "other_masks")
    return [dict(zip(names, row), id=number) for number, row in enumerate(chain(*prompts))][:limit]


def list_settings(blocks: int, rise_masks: int) -> list[dict]:
    """Return what is measured: one setting of a method each."""
    settings = [
        dict(method="nib", layer=layer, baseline=baseline) for baseline in ("zero", "mean") for layer in range(blocks)
    ]
    settings += [dict(method=name, layer=layer) for name in ("gradcam", "m2ib") for layer in FEW_LAYERS]
    settings += [dict(method="rise", n_masks=rise_masks)]
    return settings + [dict(method=name) for name in (*ELSEWHERE, *CONTROLS)]


def measure(clip, limit: int, rise_masks: int, parts: Path | None = None) -> pd.DataFrame:
    """Return one row a setting and metric: n, mean, low, high."""
    settings = list_settings(len(clip.image.blocks), rise_masks)
    values = nib.evaluate(clip, read_prompts(limit), settings, metrics=["localisation"], output=parts)
    return summarise(values, ["method", "layer", "baseline", "metric"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="folder of the model; the embedded one if left out")
    parser.add_argument("--limit", type=int, default=LIMIT, help="pictures")
    parser.add_argument("--rise-masks", type=int, default=500, help="the paper's are 6000")
    parser.add_argument(
        "--parts", type=Path, default=HERE.parents[1] / "build" / "maps", help="folder of finished parts"
    )
    parser.add_argument("--output", type=Path, default=HERE / "maps.csv")
    args = parser.parse_args()
    summary = measure(nib.load(args.model), args.limit, args.rise_masks, args.parts)
    summary.to_csv(args.output, index=False, float_format="%.4f", lineterminator="\n")
    summary["cell"] = [f"{row['mean']:.3f} [{row.low:.3f}, {row.high:.3f}]" for _, row in summary.iterrows()]
    wide = summary.fillna("").pivot(index=["method", "baseline", "layer"], columns="metric", values="cell")
    print(wide[["selectivity", "auc", "pointing_game"]].to_string())
