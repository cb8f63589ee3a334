"""Mutated calls end in a result without NaN or in one of four errors, in bounded time. `make test-slow` runs it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import nib

DOCUMENTED = (ValueError, TypeError, KeyError, FileNotFoundError)
FUZZ = settings(
    max_examples=150, derandomize=True, deadline=20_000, suppress_health_check=list(HealthCheck), database=None
)
ODD = st.sampled_from(
    [None, 0, 1, 2, -1, 3, 10**6, 0.5, -0.0, math.nan, math.inf, "", "zero", "mean", "a", True, (), (1, 2), (0.1, 0.2)]
)
PICTURE = Image.fromarray((np.arange(60 * 60 * 3) % 255).astype(np.uint8).reshape(60, 60, 3))
PICTURES = st.sampled_from(
    [
        PICTURE,
        PICTURE.convert("L"),
        PICTURE.convert("RGBA"),
        PICTURE.resize((1, 1)),
        PICTURE.resize((300, 7)),
        np.zeros((5, 5), np.uint8),
        np.full((5, 5, 3), math.nan),
        torch.zeros(3, 60, 60),
        torch.full((3, 60, 60), math.inf),
        torch.zeros(3, 12, 24),
        "nowhere.png",
        None,
        7,
    ]
)
TEXTS = st.one_of(
    st.text(max_size=40), st.sampled_from(["a cat", "", "a " * 60, "<|endoftext|>", None, 3, "a\x00b", "🐈"])
)
SMALL = {
    "m2ib": {"n_steps": 2, "n_noise": 1},
    "rise": {"n_masks": 4, "text_masks": 3},
    "agi": {"n_steps": 2},
    "lime": {"n_samples": 5},
}
NAMES = [
    "layer",
    "n_steps",
    "quadrature",
    "lambda_min",
    "baseline",
    "target",
    "beta",
    "lr",
    "p",
    "grid",
    "sigma",
    "seed",
]
NAMES += [
    "sigma",
    "seed",
    "n_masks",
    "step_size",
    "start_layer",
    "blocks",
    "batch_size",
    "truncate",
    "rectified",
    "preset",
    "method",
]


def finite(result):
    values = [result.image_scores, result.token_scores, result.word_scores, result.similarity]
    return all(np.isfinite(value).all() for value in values)


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_attribute(clip, data):
    method = data.draw(st.sampled_from(sorted(nib.METHODS)))
    known = [name for name in NAMES if name not in ("n_masks", "method")]
    changes = data.draw(st.dictionaries(st.sampled_from(known), ODD, max_size=2))
    several = data.draw(st.booleans())
    images = data.draw(st.lists(PICTURES, max_size=3) if several else PICTURES)
    texts = data.draw(st.lists(TEXTS, max_size=3) if several else TEXTS)
    try:
        found = nib.attribute(clip, images, texts, method=method, **(SMALL.get(method, {}) | changes))
    except DOCUMENTED:
        return
    assert all(finite(result) for result in (found if isinstance(found, list) else [found]))


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_evaluate(clip, data):
    rows = [{"id": "0", "image": PICTURE, "text": "a cat"}, {"id": "1", "image": PICTURE, "text": "a dog on the grass"}]
    for row in rows:
        key = data.draw(st.sampled_from(["id", "image", "text", "none"]))
        if key != "none" and data.draw(st.booleans()):
            row[key] = data.draw({"image": PICTURES, "text": TEXTS, "id": ODD}[key])
    setting = {"method": data.draw(st.sampled_from(["random", "none", "gradcam", "nib"]))}
    setting |= data.draw(st.dictionaries(st.sampled_from(["layer", "n_steps", "lambda_min", "seed"]), ODD, max_size=1))
    options = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "protocol": st.sampled_from(["paper", "released", "mine", ["paper", "paper"]]),
                "metrics": st.lists(st.sampled_from(["confidence", "faithfulness", "localisation", "f1"]), max_size=2),
                "batch_size": ODD,
            },
        )
    )
    try:
        table = nib.evaluate(clip, rows, setting, progress=False, **options)
    except DOCUMENTED:
        return
    relative = table["metric"].str.endswith("relative")  # not defined where the similarity is not positive
    assert table["value"][~relative].notna().all()


@pytest.mark.slow
@FUZZ
@given(st.dictionaries(st.sampled_from(["limit", "seed", "split", "ids", "path", "image_column"]), ODD, max_size=2))
def test_load(changes):
    try:
        data = nib.datasets.load("scenes", **({"limit": 2} | changes))
    except DOCUMENTED:
        return
    assert len(data)


@pytest.mark.slow
@FUZZ
@given(st.text(alphabet="abn:[]{}-, \n#&*!'\"0123456789_", max_size=80))
def test_grids(tmp_path_factory, text):
    from runs.plan import read_grid

    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError)):
        read_grid(path)
