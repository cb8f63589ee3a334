"""On the embedded model and scenes, maps find what the prompt names.

Only what is far from the border is asserted. The attention saliency of the paper's tables is at
chance here by AUC, and input times gradient nearly: `benchmarks/localisation.csv` has all numbers.
"""

import numpy as np
import pytest

import nib
from benchmarks.localisation import measure

SCENES = 96
GRADIENT_METHODS = ["gradcam", "chefer", "mfaba", "fast_ig", "pixel_gradient"]


@pytest.fixture(scope="module")
def values():
    frame = measure(nib.load(), ["nib", *GRADIENT_METHODS, "random", "none"], SCENES, progress=False)
    return frame.pivot(index="id", columns=["metric", "method"], values="value")


@pytest.mark.parametrize("method", ["nib", *GRADIENT_METHODS])
@pytest.mark.parametrize("metric", ["pointing_game", "auc", "energy_inside"])
def test_beats_a_random_map(values, metric, method):
    better = values[metric, method] - values[metric, "random"]
    assert better.mean() > 2 * better.sem(), f"{method}: {better.mean():.3f} more than random"


def test_a_constant_map_is_at_chance(values):
    assert np.allclose(values["auc", "none"], 0.5)
