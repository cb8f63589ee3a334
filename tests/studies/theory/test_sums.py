"""Theorem 3 in tables: gaps and profiles are those of the functions, parts of the path add up."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from nib.evaluation import Batch
from nib.integrate import RULES, place_nodes
from nib.methods import METHODS
from studies.theory import explain_parts, measure_parts, profile, tabulate_gaps, tabulate_profile


@pytest.fixture
def pairs(pixel_values, tokens):
    return Batch(["a", "b", "c"], pixel_values, tokens["input_ids"], tokens["attention_mask"], None)


def test_gaps_are_those_that_nib_reports(clip, pairs):
    found = tabulate_gaps(clip, pairs, [2], [4]).set_index(["panel", "rule"])["value"].sort_index()
    expected = METHODS["nib"](clip, *pairs.arguments(), layer=2, n_steps=4)
    for side, gap, whole in (
        ("picture", expected.image_sums.gap, expected.image_sums.difference),
        ("words", expected.text_sums.gap, expected.text_sums.difference),
    ):
        np.testing.assert_allclose(found[f"{side}, layer 2", "riemann_right"], gap.abs(), atol=1e-10)
        np.testing.assert_allclose(found[f"{side}, layer 2", "F(z) - F(0)"], whole.abs(), atol=1e-10)
    assert len(found) == 2 * (len(RULES) + 2) * 3


def test_the_profile_says_which_share_lies_below_the_first_node(clip, pairs):
    found = tabulate_profile(clip, pairs, [2], n_pairs=2)
    below = found[found["panel"] == "share below λ = 0.1, words"]["value"].to_numpy()
    slope = found[found["panel"] == "|dF / d log λ|, words"].set_index("lambda")["value"]
    expected = [slope[slope.index < 0.1][pair::2].sum() / slope[pair::2].sum() for pair in range(2)]
    np.testing.assert_allclose(below, expected)
    split, targets = clip.text.split(pairs.input_ids, 2, pairs.attention_mask), pairs.embeds(clip)[0]
    start, end = profile(split[:2], targets[:2], [1e-6, 1.0])[0]
    values = found[found["panel"] == "F(λz), words"].set_index("lambda")["value"]
    np.testing.assert_allclose(values[1.0], end, atol=1e-10)
    np.testing.assert_allclose(values.iloc[:2], start, atol=1e-10)


def test_parts_of_the_path_add_up(split, targets):
    found = explain_parts(split, targets, (200, 50))
    goals = {name: goal for name, (_, goal) in found.items()}
    assert_close(goals["λ < 0.1 alone"] + goals["λ > 0.1 alone"], goals["all of log λ"])
    assert_close(found["λ > 0.1 alone"][0].sum(1), goals["λ > 0.1 alone"], atol=1e-6, rtol=0)
    first, border = profile(split, targets, [1e-5, 0.1])[0]  # what lies below the first node is missed
    assert_close(found["λ < 0.1 alone"][0].sum(1), border - first, atol=1e-6, rtol=0)
    assert_close(found["all of log λ"][0], found["λ < 0.1 alone"][0] + found["λ > 0.1 alone"][0])
    nodes, weights = place_nodes()
    slopes = profile(split, targets, nodes)[1]
    assert_close(found["right Riemann, 10"][0].sum(1), weights.to(slopes) @ slopes, atol=1e-9, rtol=0)


def test_maps_are_measured_by_known_cases():
    map_ = torch.tensor([[[3.0, 0.0], [1.0, 2.0]]])
    scores = {name: (map_.flatten(1), torch.tensor([5.5])) for name in ("right Riemann, 10", "other")}
    mask = torch.zeros(1, 2, 2, dtype=torch.bool)
    mask[0, 0, 0] = True
    found = measure_parts(scores, {"right Riemann, 10": map_, "other": -map_}, mask)
    wide = found.pivot(index="metric", columns="map", values="value")
    assert wide["right Riemann, 10"].to_dict() == pytest.approx(
        {
            "pointing game": 1,
            "AUC": 1,
            "rank correlation with the paper's": 1,
            "absolute gap": 0.5,
            "to explain, absolute": 5.5,
        }
    )
    assert wide.loc["AUC", "other"] == 0
    assert wide.loc["rank correlation with the paper's", "other"] == pytest.approx(-1)
