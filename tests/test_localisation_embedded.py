"""On the embedded model and scenes, maps find what the prompt names."""

import numpy as np
import pytest

import nib
from benchmarks.localisation import measure

SCENES = 48
GRADIENT_METHODS = ["gradcam", "chefer", "saliency", "fast_ig"]


@pytest.fixture(scope="module")
def values():
    methods = {name: {} for name in ["nib", *GRADIENT_METHODS, "random", "none"]}
    frame = measure(nib.load(), methods, SCENES, progress=False)
    return frame.pivot(index="scene", columns=["metric", "method"], values="value")


@pytest.mark.parametrize("method", ["nib", *GRADIENT_METHODS])
@pytest.mark.parametrize("metric", ["pointing game", "AUC", "energy inside"])
def test_beats_a_random_map(values, metric, method):
    better = values[metric, method] - values[metric, "random"]
    assert better.mean() > 2 * better.sem(), f"{method}: {better.mean():.3f} more than random"


def test_a_constant_map_is_at_chance(values):
    assert np.allclose(values["AUC", "none"], 0.5)
