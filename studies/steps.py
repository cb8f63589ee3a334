"""Follow what more steps of the path do to the sum of the scores and to the map."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.stats import spearmanr

import nib
from nib.clip import HookedCLIP


def measure_steps(clip: HookedCLIP, data: Dataset, steps: Sequence[int], **options) -> pd.DataFrame:
    """Return the completeness gaps (Theorem 3), and how the map of the picture ranks beside that of 200 midpoints.

    Args:
        data: pairs, columns `image` and `text`.
        steps: numbers of steps, each a row.
        options: of `nib.attribute`.

    Returns:
        Columns `n_steps`, `image gap`, `text gap` (means of their sizes, in cosine units) and `rank correlation`.
    """

    def explain(**path):
        return nib.attribute(clip, list(data["image"]), list(data["text"]), **options, **path)

    fine, rows = explain(n_steps=200, quadrature="riemann_middle"), []
    for count in steps:
        found = explain(n_steps=count)
        gaps = [np.mean([abs(getattr(one, side).gap) for one in found]) for side in ("image", "text")]
        maps = [(one.image_scores.ravel(), other.image_scores.ravel()) for one, other in zip(found, fine)]
        rows.append((count, *gaps, np.mean([spearmanr(one, other).statistic for one, other in maps])))
    return pd.DataFrame(rows, columns=["n_steps", "image gap", "text gap", "rank correlation"])
