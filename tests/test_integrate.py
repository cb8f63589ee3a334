"""The path integral is captum's, a plain loop's and, where there is one, the closed form; its rules are as named."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from captum.attr._utils.approximation_methods import approximation_parameters
from torch import nn
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

import nib
from nib.integrate import RULES, anchor, integrate, place_nodes
from nib.towers import Split, Tower


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SIDES = ("image", "text")


@pytest.fixture
def cut(pixel_values, tokens):
    """Cut one tower, with three inputs in it, before a block."""

    def cut(clip, side, layer=2):
        if side == "image":
            return clip.image.split(pixel_values.to(clip.dtype), layer)
        return clip.text.split(tokens["input_ids"], layer, tokens["attention_mask"])

    return cut


def ask_captum(split, target, rule, n_steps=10, baseline=0):
    """Integrated gradients of the hidden states, (batch, tokens), from a baseline."""

    def similarity(hidden_states):
        return cosine_similarity(split(hidden_states), target.repeat(len(hidden_states) // len(target), 1))

    z = split.hidden_states
    scores = IntegratedGradients(similarity).attribute(z, baselines=baseline, method=rule, n_steps=n_steps).sum(-1)
    return scores * n_steps / (n_steps - 1) if rule == "riemann_trapezoid" else scores


def test_captum_agrees(clip, cut, subtests):
    for side, (rule, layer) in product(SIDES, [*((rule, 1) for rule in RULES), ("riemann_right", 3)]):
        with subtests.test(f"{side}, {rule}, layer {layer}"):
            split, target = cut(clip, side, layer), draw(3, 16)
            scores, _ = integrate(split, target[:, None], quadrature=rule)
            expected = ask_captum(split, target, rule)
            # captum rounds its step sizes to float32, which a relative part of the tolerance allows for.
            assert_close(scores[:, 0], expected, atol=1e-8, rtol=1e-7)


def test_captum_agrees_in_single_precision(clip, cut, subtests):
    single = nib.HookedCLIP(copy.deepcopy(clip.model).float())
    for side, rule in product(SIDES, RULES):
        with subtests.test(f"{side}, {rule}"):
            split, target = cut(single, side), draw(3, 16).float()
            scores, _ = integrate(split, target[:, None], quadrature=rule)
            expected = ask_captum(split, target, rule)
            assert scores.dtype == torch.float32
            assert_close(scores[:, 0], expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


def test_plain_loop_agrees(clip, cut, subtests):
    for side, (rule, lambda_min) in product(SIDES, [("riemann_right", 0.0), ("gausslegendre", 0.2)]):
        split, targets = cut(clip, side), draw(3, 2, 16)
        scores, starts = integrate(split, targets, n_steps=3, quadrature=rule, lambda_min=lambda_min)
        nodes, weights = place_nodes(rule, 3, lambda_min)
        for pair, number in product(range(3), range(2)):
            with subtests.test(f"{side}, {rule}, pair {pair}, target {number}"):
                alone, target = split[pair : pair + 1], targets[pair, [number]]
                z = alone.hidden_states
                expected = torch.zeros(z.shape[1], dtype=z.dtype)
                for node, weight in zip(nodes, weights):
                    state = (node * z).requires_grad_()
                    cosine_similarity(alone(state), target).sum().backward()
                    expected += weight * (z * state.grad).sum(-1)[0]
                assert_close(scores[pair, number], expected, atol=1e-8, rtol=0)
                start = cosine_similarity(alone(lambda_min * z), target)[0]
                assert_close(starts[pair, number], start, atol=1e-12, rtol=0)


def test_anchor_is_the_similarity_of_each_input_at_zero(clip, cut, subtests):
    for side, layer in product(SIDES, (0, 2, len(clip.image.blocks))):
        with subtests.test(f"{side}, layer {layer}"):
            split, targets = cut(clip, side, layer), draw(3, 2, 16)
            embeds = split(torch.zeros_like(split.hidden_states))  # each row with its own mask and pooled token
            expected = cosine_similarity(embeds[:, None], targets, dim=-1)
            assert_close(anchor(split, targets), expected, atol=1e-12, rtol=0)
            assert_close(integrate(split, targets, n_steps=1)[1], anchor(split, targets), atol=0, rtol=0)


class Mix(nn.Module):
    """A block that gives every token the sum of all."""

    def forward(self, hidden_states):
        return hidden_states.sum(1, keepdim=True).expand_as(hidden_states)


def affine_split(z, weight, bias):
    """A tower whose suffix is weight @ (sum of the tokens) + bias."""
    projection = nn.Linear(*weight.T.shape).double().requires_grad_(False)
    projection.weight.copy_(weight)
    projection.bias.copy_(bias)
    tower = Tower(
        root=torch.nn.Module(),
        encode=None,
        blocks=nn.ModuleList([Mix()]),
        norm=nn.Identity(),
        projection=projection,
        embeddings=None,
    )
    return Split(z, z.new_ones(z.shape[:2], dtype=bool), torch.zeros(len(z), dtype=torch.long), tower, 0, {})


def test_closed_form(subtests):
    # The suffix of lambda z is (lambda s, 1), s the sum of z, and the target is (1, 0). So F = lambda s / r with
    # r² = 1 + lambda² s², and token i, of sum z_i, gets the integral of z_i / r³, which is z_i lambda / r.
    z = 0.3 * draw(2, 4, 6)
    split = affine_split(z, torch.tensor([[1.0] * 6, [0.0] * 6]), torch.tensor([0.0, 1.0]))
    targets = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(2, 1, 2)
    s = z.sum((1, 2))
    for lambda_min in (0.0, 0.3):
        with subtests.test(f"from {lambda_min}"):
            scores, starts = integrate(split, targets, n_steps=40, quadrature="gausslegendre", lambda_min=lambda_min)
            end, start = ((lam / (1 + lam**2 * s**2).sqrt())[:, None] for lam in (1.0, lambda_min))
            assert_close(scores[:, 0], z.sum(-1) * (end - start), atol=1e-10, rtol=0)
            assert_close(starts, s[:, None] * start, atol=1e-12, rtol=0)


def test_direction_that_does_not_change_scores_nothing_in_sum():
    # Without a bias the embedding of lambda z points the same way for each lambda: tokens cancel, they are not zero.
    split = affine_split(draw(2, 4, 6), draw(5, 6, seed=1), torch.zeros(5))
    scores, _ = integrate(split, draw(2, 1, 5, seed=2), quadrature="gausslegendre", lambda_min=0.5)
    assert scores.abs().max() > 0.01
    assert_close(scores.sum(-1), torch.zeros(2, 1, dtype=torch.float64), atol=1e-12, rtol=0)


def test_scores_add_up_for_an_affine_suffix():
    z, target = draw(2, 4, 6), draw(2, 1, 5, seed=2)
    split = affine_split(z, draw(5, 6, seed=1), draw(5, seed=3))
    scores, starts = integrate(split, target, n_steps=200, quadrature="gausslegendre", lambda_min=0.1)
    end = cosine_similarity(split(z), target[:, 0])[:, None]
    assert_close(scores.sum(-1), end - starts, atol=1e-10, rtol=0)


def test_batch_size_changes_nothing_and_bounds_the_rows(clip, cut, subtests):
    for side in SIDES:
        split, targets, rows = cut(clip, side), draw(3, 2, 16), []
        expected, expected_starts = integrate(split, targets, n_steps=4, batch_size=12)
        handle = split.tower.blocks[2].register_forward_pre_hook(
            lambda module, args, kwargs, rows=rows: rows.append(len(args[0] if args else kwargs["hidden_states"])),
            with_kwargs=True,
        )
        try:
            for batch_size in (1, 2, 7, 1000):
                with subtests.test(f"{side}, {batch_size}"):
                    rows.clear()
                    scores, starts = integrate(split, targets, n_steps=4, batch_size=batch_size)
                    assert max(rows) <= batch_size
                    assert_close(scores, expected, atol=1e-12, rtol=0)
                    assert_close(starts, expected_starts, atol=1e-12, rtol=0)
        finally:
            handle.remove()


def test_more_nodes_close_the_completeness_gap(clip, cut, subtests):
    for side in SIDES:
        with subtests.test(side):
            split, targets = cut(clip, side), draw(3, 1, 16)
            end = cosine_similarity(split(split.hidden_states), targets[:, 0])[:, None]
            gaps = []
            for n_steps in (4, 16, 64):
                scores, starts = integrate(split, targets, n_steps, "gausslegendre", lambda_min=0.1)
                gaps.append((scores.sum(-1) - (end - starts)).abs().max().item())
            assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]
            assert gaps[2] < 1e-6


def test_targets_do_not_see_each_other(clip, cut, subtests):
    for side in SIDES:
        with subtests.test(side):
            split, targets = cut(clip, side), draw(3, 4, 16)
            scores, starts = integrate(split, targets, n_steps=3)
            assert scores.shape == (3, 4, split.hidden_states.shape[1])
            for number in range(4):
                alone, start = integrate(split, targets[:, [number]], n_steps=3)
                assert_close(scores[:, [number]], alone, atol=1e-12, rtol=0)
                assert_close(starts[:, [number]], start, atol=1e-12, rtol=0)


def test_bad_batch_size(clip, cut, subtests):
    for batch_size in (0, -1, 2.5, True):
        message = f"batch_size must be a whole number of at least 1, got {batch_size}"
        with subtests.test(str(batch_size)), pytest.raises(ValueError, match=message):
            integrate(cut(clip, "image"), draw(3, 1, 16), batch_size=batch_size)


def test_captum_agrees_from_another_baseline(clip, cut, subtests):
    for side, lambda_min in product(SIDES, (0.0, 0.2)):
        with subtests.test(f"{side}, from {lambda_min}"):
            split, target = cut(clip, side), draw(3, 16)
            z, base = split.hidden_states, 0.3 * draw(*split.hidden_states.shape, seed=4)
            scores, starts = integrate(split, target[:, None], lambda_min=lambda_min, baseline=base)
            start = base + lambda_min * (z - base)  # captum's path, which begins there
            expected = ask_captum(split, target, "riemann_right", baseline=start)
            # A path from `start` weighs z - start = (1 - lambda_min) (z - base).
            assert_close(scores[:, 0], expected, atol=1e-8, rtol=1e-7)
            assert_close(starts[:, 0], cosine_similarity(split(start), target), atol=1e-12, rtol=0)
            one_by_one, _ = integrate(split, target[:, None], lambda_min=lambda_min, baseline=base, batch_size=1)
            assert_close(one_by_one, scores, atol=1e-12, rtol=0)


DEGREES = {"riemann_right": 0, "riemann_left": 0, "riemann_middle": 1, "riemann_trapezoid": 1, "gausslegendre": 9}


def integrate_power(rule, degree, lambda_min):
    nodes, weights = place_nodes(rule, 5, lambda_min)
    exact = (1 - lambda_min ** (degree + 1)) / (degree + 1)
    return (weights * nodes**degree).sum().item(), exact


def test_rule_covers_the_path(subtests):
    for rule, n_steps, lambda_min in product(RULES, (2, 10), (0.0, 0.3)):
        with subtests.test(f"{rule}, {n_steps} steps from {lambda_min}"):
            nodes, weights = place_nodes(rule, n_steps, lambda_min)
            assert nodes.dtype == weights.dtype == torch.float64
            assert nodes.shape == weights.shape == (n_steps,)
            assert weights.sum().item() == pytest.approx(1 - lambda_min, abs=1e-14)
            assert (nodes.diff() > 0).all()
            assert nodes.min() >= lambda_min
            assert nodes.max() <= 1


def test_rule_is_exact_up_to_its_degree_and_no_further(subtests):
    for rule, lambda_min in product(DEGREES, (0.0, 0.3)):
        with subtests.test(f"{rule} from {lambda_min}"):
            for degree in range(DEGREES[rule] + 1):
                value, exact = integrate_power(rule, degree, lambda_min)
                assert value == pytest.approx(exact, abs=1e-13)
            value, exact = integrate_power(rule, DEGREES[rule] + 1, lambda_min)
            assert abs(value - exact) > 1e-8


def test_default_is_the_right_riemann_sum_of_ten_steps():
    nodes, weights = place_nodes()
    np.testing.assert_allclose(nodes, np.arange(1, 11) / 10, atol=1e-15)
    np.testing.assert_allclose(weights, np.full(10, 0.1), atol=1e-15)


def test_captum_places_the_same_nodes(subtests):
    for rule, n_steps in product(RULES, (2, 10)):
        with subtests.test(f"{rule}, {n_steps} steps"):
            nodes, weights = place_nodes(rule, n_steps)
            step_sizes, alphas = approximation_parameters(rule)
            # captum's trapezoid covers (n - 1)/n
            scale = n_steps / (n_steps - 1) if rule == "riemann_trapezoid" else 1
            np.testing.assert_allclose(nodes, alphas(n_steps), atol=1e-7)  # captum's Riemann nodes are float32
            np.testing.assert_allclose(weights, np.multiply(step_sizes(n_steps), scale), atol=1e-14)


FEWEST = "n_steps must be a whole number of at least"
BAD_PATHS = [
    (dict(quadrature="simpson"), r"gausslegendre.*riemann_right.*got 'simpson'"),
    (dict(quadrature="riemann_right", n_steps=0), f"{FEWEST} 1, got 0"),
    (dict(quadrature="gausslegendre", n_steps=-3), f"{FEWEST} 1, got -3"),
    (dict(quadrature="riemann_left", n_steps=2.5), f"{FEWEST} 1, got 2.5"),
    (dict(quadrature="riemann_left", n_steps=True), f"{FEWEST} 1, got True"),
    (dict(quadrature="riemann_trapezoid", n_steps=1), f"{FEWEST} 2, got 1"),
    (dict(lambda_min=1.0), r"lambda_min must be in \[0, 1\), got"),
    (dict(lambda_min=-0.1), r"lambda_min must be in \[0, 1\), got"),
    (dict(lambda_min=float("nan")), r"lambda_min must be in \[0, 1\), got"),
]


def test_bad_paths(subtests):
    for options, message in BAD_PATHS:
        with subtests.test(str(options)), pytest.raises(ValueError, match=message):
            place_nodes(**options)


def test_one_step_is_enough():
    for rule in RULES:
        if rule != "riemann_trapezoid":
            assert place_nodes(rule, 1)[1].tolist() == [1.0], rule
