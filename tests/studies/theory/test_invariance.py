"""Implementation Invariance: the same suffix written differently gives the same map; another z need not."""

import copy
from operator import attrgetter

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nib.evaluation import Batch
from nib.integrate import integrate
from nib.methods import METHODS
from studies.theory import compare_writings, embed_others, fold_norms, reparameterise, split_linears


@pytest.fixture
def targets():
    return torch.randn(3, 1, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture
def splits(clip, pixel_values, tokens):
    """Both towers, cut before block 2."""
    return {
        "image": clip.image.split(pixel_values, 2),
        "text": clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"]),
    }


def test_a_suffix_written_differently_gives_the_same_scores(clip, pixel_values, tokens, subtests):
    for rewrite in [fold_norms, split_linears]:
        for layer in [0, 2, 3]:
            with subtests.test(f"{rewrite.__name__}, {layer}"):
                before = copy.deepcopy(clip.model.state_dict())
                other = rewrite(clip)
                expected = METHODS["nib"](clip, pixel_values, **tokens, layer=layer)
                found = METHODS["nib"](other, pixel_values, **tokens, layer=layer)
                for name in ("similarity", "image", "image_class", "text", "image_sums.gap", "text_sums.gap"):
                    assert_close(attrgetter(name)(found), attrgetter(name)(expected), atol=1e-8, rtol=1e-8)
                assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())


def test_folding_leaves_no_scale(clip):
    other = fold_norms(clip)
    for tower in (other.image, other.text):
        norms = [tower.norm, *(norm for block in tower.blocks for norm in (block.layer_norm1, block.layer_norm2))]
        assert all((norm.weight == 1).all() for norm in norms)
    assert not torch.equal(other.image.projection.weight, clip.image.projection.weight)
    assert not torch.equal(other.text.projection.weight, clip.text.projection.weight)


def test_splitting_halves_every_linear_layer_of_the_blocks(clip):
    other = split_linears(clip)
    for tower in (other.image, other.text):
        for block in tower.blocks:
            attention = [getattr(block.self_attn, f"{name}_proj") for name in ("q", "k", "v", "out")]
            parts = [*attention, block.mlp.fc1, block.mlp.fc2]
            assert all(isinstance(part, nn.Sequential) and len(part) == 2 for part in parts)
            assert not any(parameter.requires_grad for parameter in block.parameters())


def test_a_scale_of_zero_cannot_be_folded(clip):
    other = copy.deepcopy(clip)
    other.model.text_model.encoder.layers[1].layer_norm2.weight[3] = 0
    with pytest.raises(ValueError, match="must differ from 0"):
        fold_norms(other)


def test_a_scaled_state_gives_the_same_scores(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            scaled = reparameterise(split, scale=-3.0)
            assert_close(scaled(scaled.hidden_states), split(split.hidden_states), atol=1e-10, rtol=0)
            assert_close(integrate(scaled, targets)[0], integrate(split, targets)[0], atol=1e-10, rtol=1e-8)


def test_a_shifted_state_gives_other_scores(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            shifted = reparameterise(split, offset=-split.hidden_states.mean((0, 1)))
            assert_close(shifted(shifted.hidden_states), split(split.hidden_states), atol=1e-10, rtol=0)
            expected, found = integrate(split, targets)[0], integrate(shifted, targets)[0]
            assert (found - expected).abs().max() > 0.1 * expected.abs().max()


def test_layer_norms_undo_an_offset_that_is_the_same_in_all_channels(splits, targets, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            shifted = reparameterise(split, offset=0.7)
            assert_close(integrate(shifted, targets)[0], integrate(split, targets)[0], atol=1e-9, rtol=1e-7)


def test_reparameterising_leaves_the_split_as_it_was(splits, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            before = list(split.tower.blocks)
            reparameterise(split, offset=1.0)
            assert list(split.tower.blocks) == before


def test_writings_are_compared_on_both_sides(clip, pixel_values, tokens):
    pairs = Batch(["a", "b", "c"], pixel_values, tokens["input_ids"], tokens["attention_mask"], None)
    others = {side: embeds[:2] for side, embeds in embed_others(clip, pairs).items()}
    found = compare_writings(clip, pairs, others, 2).set_index(["written", "side"])
    assert (found["change of the embedding"] < 1e-10).all()
    scores = found["change of the scores"].unstack()
    assert (scores.loc[["layer norms folded", "linear layers split", "2 z"]] < 1e-8).all(axis=None)
    assert (scores.loc["z - mean"] > 0.1).all()


def test_what_cannot_be_undone_is_refused(clip, pixel_values):
    with pytest.raises(ValueError, match="got 0 and layer 2 of 4"):
        reparameterise(clip.image.split(pixel_values, 2), scale=0)
    with pytest.raises(ValueError, match=r"a block follow the cut, got 1\.0 and layer 4 of 4"):
        reparameterise(clip.image.split(pixel_values, 4))


def test_tokens_after_the_end_are_dummies(clip, pixel_values, tokens, subtests):
    for layer in [0, 2, 4]:
        with subtests.test(str(layer)):
            input_ids, rows = tokens["input_ids"], torch.arange(3)
            ends = (input_ids == 1330).int().argmax(1)  # the largest id, too
            after = torch.arange(input_ids.shape[1]) > ends[:, None]
            assert after.any()
            expected = METHODS["nib"](clip, pixel_values, input_ids, layer=layer)
            assert (expected.text[after] == 0).all()
            assert (expected.text[rows, ends] != 0).all()
            other = METHODS["nib"](clip, pixel_values, torch.where(after, 17, input_ids), layer=layer)
            assert_close(other.text, expected.text, atol=1e-14, rtol=0)
            assert_close(other.similarity, expected.similarity, atol=1e-14, rtol=0)
