"""The gap of few steps is that of `nib.attribute`, and fine maps rank as the finest."""

import numpy as np
import pytest

import nib
from studies.steps import measure_steps


def test_gaps_and_ranks(clip):
    data = nib.datasets.load("objects", limit=2)
    found = measure_steps(clip, data, [2, 150], layer=2).set_index("n_steps")
    few = nib.attribute(clip, list(data["image"]), list(data["text"]), layer=2, n_steps=2)
    assert found.loc[2, "image gap"] == pytest.approx(np.mean([abs(one.image.gap) for one in few]))
    assert found.loc[2, "text gap"] == pytest.approx(np.mean([abs(one.text.gap) for one in few]))
    assert found.loc[150, "image gap"] < found.loc[2, "image gap"]
    assert found.loc[2, "rank correlation"] < found.loc[150, "rank correlation"]
    assert found["rank correlation"].between(-1, 1).all()
