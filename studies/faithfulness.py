"""Put every method before every metric of faithfulness, and see which metrics agree.

Exports `read_prompts`, `measure_prompts`, `follow_removal`, `judge`, `rank_methods` and `correlate_metrics`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch.nn.functional import adaptive_avg_pool2d
from tqdm.auto import tqdm

import nib
from nib.clip import HookedCLIP
from nib.evaluation import read_pairs
from nib.metrics import HIGHER_IS_BETTER, removal_curves
from studies.ranking import settle

NAMES = ("image", "text", "masks", "other_masks", "absent")


def read_prompts(limits: dict[str, int]) -> dict[str, list[dict]]:
    """Return prompts for one object of a picture, with masks and a prompt for what is not there, a list a data set."""
    found = {}
    for name, limit in limits.items():
        rows = zip(*nib.datasets.object_prompts(limit, name, repeated=True, with_others=True, with_absent=True))
        found[name] = [dict(zip(NAMES, row), id=f"{name}-{number}") for number, row in enumerate(rows)]
    return found


def measure_prompts(
    clip: HookedCLIP, prompts: Mapping[str, list], runs: Mapping[str, dict], few: Mapping, metrics, output=None
) -> pd.DataFrame:
    """Evaluate every run on the prompts of each data set.

    Args:
        prompts: what `read_prompts` returns.
        runs: name -> setting of `nib.evaluate`.
        few: name of a run -> prompts of each data set, the first ones, where not all.
        metrics, output: of `nib.evaluate`.

    Returns:
        Columns `id`, `metric`, `value`, `dataset` and `method`, the name of the run.
    """
    frames = []
    for name, setting in tqdm(runs.items(), "methods"):
        for dataset, rows in prompts.items():
            part = rows[: few.get(name, len(rows))]
            found = nib.evaluate(clip, part, setting, metrics=metrics, output=output, progress=False)
            frames.append(found[["id", "metric", "value"]].assign(dataset=dataset, method=name))
    return pd.concat(frames, ignore_index=True)


def follow_removal(
    clip: HookedCLIP, rows: Sequence[dict], runs: Mapping[str, dict], few: Mapping, n_steps: int = 7
) -> pd.DataFrame:
    """Leave patches out by each run's map, the highest scores first and the lowest first.

    Args:
        rows: prompts of one data set.
        runs, few: as `measure_prompts`.

    Returns:
        Columns `method`, `removed` (which first), `share removed`, `id` and `value`, the cosine.
    """
    found = []
    for name, setting in runs.items():
        some = rows[: few.get(name, len(rows))]
        batch = read_pairs(clip, some)
        method = setting["method"] if setting["method"] != "true_mask" else "none"
        given = {key: value for key, value in setting.items() if key != "method"}
        scores = nib.METHODS[method](clip, *batch.arguments(), **given)
        if setting["method"] == "true_mask":
            masks = torch.from_numpy(np.stack([row["masks"] for row in some])).float()
            scores.image = adaptive_avg_pool2d(masks, scores.image.shape[1:])
        curves = removal_curves(clip, *batch.arguments(), scores, n_steps=n_steps, sides=("image",))
        for way, curve in (("highest first", curves.image_most_first), ("lowest first", curves.image_least_first)):
            for pair, line in zip(batch.ids, curve.tolist()):
                found += [(name, way, step / n_steps, pair, value) for step, value in enumerate(line)]
    return pd.DataFrame(found, columns=["method", "removed", "share removed", "id", "value"])


def judge(differences: pd.DataFrame) -> pd.DataFrame:
    """Return a table of "better", "worse" and "open", (methods, metrics); see `studies.ranking.settle`."""
    verdicts = differences.assign(verdict=settle(differences))
    return verdicts.pivot(index="method", columns="metric", values="verdict").fillna("")


def rank_methods(summary: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Rank methods by each metric, 1 the best: (methods, metrics); ties share their mean rank, NaN where none is.

    Args:
        summary: columns `method`, `metric` and `mean`.
    """
    wide = summary.pivot(index="method", columns="metric", values="mean").reindex(columns=metrics)
    signs = pd.Series({name: -1 if HIGHER_IS_BETTER[name] else 1 for name in metrics})
    return (wide * signs).rank()


def correlate_metrics(ranks: pd.DataFrame) -> pd.DataFrame:
    """Correlate the rankings of methods that each two metrics give, by Spearman's rank correlation."""
    columns = list(ranks)
    values = np.eye(len(columns))
    for i, first in enumerate(columns):
        for j, second in enumerate(columns[:i]):
            both = ranks[[first, second]].dropna()
            values[i, j] = values[j, i] = spearmanr(both[first], both[second]).statistic
    return pd.DataFrame(values, columns, columns)
