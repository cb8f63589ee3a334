"""Every method runs in bfloat16, and on a GPU where there is one, and gives nearly the map of float32 on the CPU."""

from functools import cache

import pytest
import torch
from scipy.stats import spearmanr

import nib
from nib.evaluation import read_pairs

OPTIONS = {"rise": {"n_masks": 40}, "lime": {"n_samples": 40}, "agi": {"n_steps": 3, "n_others": 1}}
# Rank correlation of the picture's map that is asked for; sign steps and relus near zero turn at the last digit.
LEAST = {"gradcam": 0.7, "input_x_gradient": 0.7, "agi": -1.0, "random": -1.0, "none": -1.0}


@cache
def open_scenes(**where):
    clip = nib.load(**where)
    return clip, read_pairs(clip, nib.datasets.load("scenes", limit=2))


@cache
def explain(method, **where):
    clip, batch = open_scenes(**where)
    return nib.METHODS[method](clip, *batch.arguments(), **OPTIONS.get(method, {}))


def assert_alike(method, expected, found):
    assert found.image.isfinite().all()
    assert found.text.isfinite().all()
    least = LEAST.get(method, 0.9)
    for first, second in zip(expected.image, found.image):
        if least > -1:
            assert spearmanr(first.flatten().float(), second.flatten().float().cpu()).statistic > least


def test_bfloat16_on_the_cpu(subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            assert_alike(method, explain(method), explain(method, dtype="bfloat16"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu(dtype, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            assert_alike(method, explain(method), explain(method, device="cuda", dtype=dtype))
