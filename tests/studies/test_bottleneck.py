"""The four limits are those of known scores."""

import numpy as np
import pytest

import nib
from studies.bottleneck import measure_limits

METHODS = {"m2ib": {"layer": 2, "n_steps": 20}, "nib": {"layer": 2}}
TEXTS = ["a dog next to a dog", "a hippopotamus in the snow"]


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (2, 60, 60, 3), dtype=np.uint8)
    return [{"id": str(i), "image": image, "text": text} for i, (image, text) in enumerate(zip(pictures, TEXTS))]


@pytest.fixture
def limits(clip, rows):
    return measure_limits(clip, rows, METHODS, [0.1, 1000.0], [0, 1], 2)


def test_every_limit_is_measured_for_both_sides(limits):
    counts = limits.groupby(["quantity", "method"]).size().unstack().fillna(0)
    assert (counts["m2ib"] == 2 * 2).all()  # sides, pairs
    assert counts["nib"].to_dict() == {name: 0 if name.startswith("β") else 4 for name in counts.index}


def test_nib_does_not_vary_and_the_usual_beta_changes_nothing(limits):
    wide = limits.groupby(["quantity", "method"])["value"]
    assert (wide.get_group(("seed against seed", "nib")) == 1).all()
    assert (wide.get_group(("seed against seed", "m2ib")) < 1).any()
    assert (wide.get_group(("β = 0.1 against 0.1", "m2ib")) == 1).all()
    assert (wide.get_group(("β = 1000 against 0.1", "m2ib")) < 1).any()


def test_shares_of_negative_scores_are_those_of_the_scores(clip, rows, limits):
    shares = limits[limits["quantity"] == "share of scores below 0"].set_index(["method", "side", "id"])["value"]
    for number, row in enumerate(rows):
        result = nib.attribute(clip, row["image"], row["text"], layer=2)
        assert shares["nib", "picture", number] == (result.image_scores < 0).mean()
        assert shares["nib", "words", number] == (result.word_scores < 0).mean()
    assert (shares["m2ib"] == 0).all()


def test_links_are_rank_correlations(limits):
    links = limits[limits["quantity"].str.startswith("link")]["value"]
    assert links.between(-1, 1).all()
    assert links.nunique() > len(links) / 2
