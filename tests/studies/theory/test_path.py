"""Theorem 3: the profile is F and its slope, and quadratures miss the integral as the closed forms say."""

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from nib.integrate import RULES, integrate, place_nodes
from nib.methods import METHODS
from studies.theory import gaps, integrate_at, log_quadrature, profile


@pytest.fixture
def splits(clip, pixel_values, tokens):
    """Both towers, cut before block 2."""
    return {
        "image": clip.image.split(pixel_values, 2),
        "text": clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"]),
    }


def similarity(split, targets, point):
    return cosine_similarity(split(point * split.hidden_states), targets)


def test_the_profile_is_the_similarity_and_its_difference_quotient(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            points = [0.0, 0.3, 1.0]
            values, slopes = profile(split, targets, points, batch_size=2)
            for point, value, slope in zip(points, values, slopes):
                step = 1e-6 if point else 1e-8  # near 0 layer norms bend F sharply
                rise = similarity(split, targets, point + step) - similarity(split, targets, point - step)
                assert_close(value, similarity(split, targets, point), atol=1e-12, rtol=0)
                assert_close(slope, rise / (2 * step), atol=1e-5, rtol=1e-4)


def test_gaps_are_those_of_the_scores(splits, targets, subtests):
    for side, split in splits.items():
        for rule in RULES:
            with subtests.test(f"{side}, {rule}"):
                found = gaps(split, targets, {rule: place_nodes(rule, 4), "other": place_nodes("riemann_middle", 3)})
                scores, starts = integrate(split, targets[:, None], n_steps=4, quadrature=rule)
                expected = scores[:, 0].sum(1) - (similarity(split, targets, 1.0) - starts[:, 0])
                assert_close(found[rule], expected, atol=1e-9, rtol=1e-9)


def test_gaps_are_those_that_nib_reports(clip, pixel_values, tokens):
    scores = METHODS["nib"](clip, pixel_values, **tokens, layer=2)
    split = clip.image.split(pixel_values, 2)
    text = clip.text.embed(**{"inputs": tokens["input_ids"], "attention_mask": tokens["attention_mask"]})
    found = gaps(split, text, {"paper": place_nodes()})
    assert_close(found["paper"], scores.image_sums.gap, atol=1e-10, rtol=0)


def test_the_gap_closes_with_nodes_in_log_lambda(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            found = gaps(split, targets, {n: log_quadrature(n, 1e-10) for n in (10, 400)})
            assert found[400].abs().max() < 1e-5
            assert found[10].abs().max() > 10 * found[400].abs().max()


def test_nodes_in_log_lambda_integrate_powers():
    nodes, weights = log_quadrature(20, 1e-3, 0.5)
    assert (nodes.diff() > 0).all()
    assert (weights / nodes).sum().item() == pytest.approx(torch.log(torch.tensor(500.0)).item())  # of 1 / lambda
    assert weights.sum().item() == pytest.approx(0.5 - 1e-3)
    assert (weights * nodes**2).sum().item() == pytest.approx((0.5**3 - 1e-9) / 3)


def test_scores_at_given_nodes_are_those_of_the_rule(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            expected, _ = integrate(split, targets[:, None], n_steps=5)
            found = integrate_at(split, targets[:, None], *place_nodes("riemann_right", 5))
            assert_close(found, expected, atol=1e-12, rtol=0)


def test_stretches_of_the_path_add_up(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            lower = integrate_at(split, targets[:, None], *log_quadrature(400, 1e-10, 0.1))
            upper = integrate_at(split, targets[:, None], *log_quadrature(100, 0.1, 1.0))
            explained = similarity(split, targets, 1.0) - similarity(split, targets, 0.1)
            assert_close(upper[:, 0].sum(1), explained, atol=1e-9, rtol=0)
            explained = similarity(split, targets, 1.0) - similarity(split, targets, 0.0)
            assert_close((lower + upper)[:, 0].sum(1), explained, atol=1e-5, rtol=0)


def test_what_is_out_of_range_is_refused(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            with pytest.raises(ValueError, match="0 < start < end <= 1, got 0 and 1"):
                log_quadrature(5, 0)
            with pytest.raises(ValueError, match="n_steps must be a whole number of at least 1, got 0"):
                log_quadrature(0)
            with pytest.raises(ValueError, match="nodes must be above 0, got 0"):
                integrate_at(split, targets[:, None], *place_nodes("riemann_left", 3))
