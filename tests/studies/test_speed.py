"""The clock runs for the attribution alone."""

import functools
import itertools
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import CAPTIONS

import nib
from studies.speed import measure_fps

NIB = {"method": "nib", "layer": 2, "n_steps": 2}


@pytest.fixture(scope="module")
def pairs(pixel_values):
    rows = zip(CAPTIONS, pixel_values)
    return [{"id": index, "image": image, "text": text} for index, (text, image) in enumerate(rows)]


def test_rows(clip, pairs):
    frame = measure_fps(clip, pairs, ["none", NIB], repeats=3, progress=False)
    assert set(frame) == {"method", "layer", "n_steps", "repeat", "pairs", "seconds", "fps"}
    assert frame["method"].tolist() == ["none", "nib"] * 3  # in turns, so that a busy spell hits all
    assert frame["repeat"].tolist() == [1, 1, 2, 2, 3, 3]
    assert (frame["pairs"] == 3).all()
    assert (frame["fps"] > 0).all()
    assert (frame["seconds"] > 0).all()
    pd.testing.assert_series_equal(frame["fps"] * frame["seconds"], frame["pairs"].astype(float), check_names=False)
    assert frame["layer"].fillna(-1).tolist() == [-1, 2] * 3


def test_the_first_call_and_the_preparation_are_not_timed(clip, pairs, monkeypatch):
    now, took, batches = 0.0, itertools.chain([100.0], itertools.repeat(0.5)), []

    @functools.wraps(none := nib.METHODS["none"])
    def slow(clip, pixel_values, input_ids, attention_mask=None, **parameters):
        nonlocal now
        now += next(took)
        batches.append(len(pixel_values))
        return none(clip, pixel_values, input_ids, attention_mask, **parameters)

    def prepare(*args):
        nonlocal now
        now += 1000.0
        return args[1].new_zeros(1, *args[1].shape)

    monkeypatch.setitem(nib.METHODS, "none", slow)
    monkeypatch.setattr("studies.speed.time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr("nib.evaluation.batches.to_pixel_values", prepare)
    frame = measure_fps(clip, pairs, ["none"], repeats=4, progress=False)
    assert batches == [3] * 5  # all pairs at once
    assert frame["seconds"].tolist() == [0.5] * 4
    assert frame["fps"].tolist() == [6.0] * 4


def test_pictures_that_cannot_be_read_are_not_counted(clip, pairs, tmp_path):
    (tmp_path / "broken.jpg").write_text("not found")
    rows = [*pairs, {"id": "broken", "image": tmp_path / "broken.jpg", "text": "a cat"}]
    assert measure_fps(clip, rows, ["none"], repeats=1, progress=False)["pairs"].tolist() == [3]
    with pytest.raises(ValueError, match="at least one picture that can be read, got 1 pairs"):
        measure_fps(clip, rows[-1:], ["none"])


def test_bad_arguments(clip, pairs, subtests):
    cases = [
        (dict(methods=["grad"]), KeyError, "method must be one of"),
        (dict(methods=[{"method": "nib", "layer": 9}]), ValueError, "layer must be"),
        (dict(methods=[{"method": "none", "colour": 9}]), TypeError, "none has no parameter colour"),
        (dict(repeats=0), ValueError, "repeats must be a whole number of at least 1, got 0"),
        (dict(pairs=[]), ValueError, "at least one picture that can be read, got 0 pairs"),
        (dict(pairs=[{"id": 1, "text": "a"}]), ValueError, "columns id, image and text, got id, text"),
        (dict(pairs=[{"id": 1, "image": torch.zeros(3, 60, 60), "text": ""}]), ValueError, "at least one word"),
    ]
    for options, error, message in cases:
        with subtests.test(message), pytest.raises(error, match=message):
            measure_fps(clip, **(dict(pairs=pairs, methods=["none"]) | options))
