"""On the embedded model and scenes, maps find what the prompt names.

Only what is far from the border is asserted; `data/mini_clip/maps.csv` has all numbers. From the zero baseline NIB's
AUC at layer 9 is near chance on this model: it is its selectivity, and the path from the mean patch, that find objects.
"""

import numpy as np
import pytest

import nib
from benchmarks.localisation import measure

SCENES = 48
MEAN = {"method": "nib", "baseline": "mean"}


@pytest.fixture(scope="module")
def values():
    methods = ["nib", MEAN, "chefer", "fast_ig", "mfaba", "pixel_gradient", "random", "none", "objectness"]
    frame = measure(nib.load(), methods, SCENES, progress=False)
    frame["method"] = frame["method"].where(frame["baseline"].isna(), "nib from the mean")
    return frame.pivot(index="id", columns=["metric", "method"], values="value")


FOUND = {
    "nib": ["selectivity"],
    "nib from the mean": ["selectivity", "auc", "pointing_game", "energy_inside"],
    "fast_ig": ["selectivity", "auc", "pointing_game"],
    "chefer": ["selectivity"],
    "mfaba": ["auc"],
    "pixel_gradient": ["auc"],
    "objectness": ["auc"],
}


def test_maps_beat_a_random_one(values, subtests):
    for method, metrics in FOUND.items():
        for metric in metrics:
            with subtests.test(f"{method}: {metric}"):
                better = values[metric, method] - values[metric, "random"]
                assert better.mean() > 2 * better.sem(), f"{better.mean():.3f} more than random"


def test_what_never_reads_the_text_does_not_tell_objects_apart(values):
    assert values["selectivity", "objectness"].mean() < 0.55
    assert values["selectivity", "nib"].mean() > values["selectivity", "objectness"].mean() + 0.15


def test_a_constant_map_is_at_chance(values):
    assert np.allclose(values["auc", "none"], 0.5)
