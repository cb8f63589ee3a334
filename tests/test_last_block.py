"""The last block of one token alone is the last block."""

import copy

import pytest
import torch
from conftest import make_config, randomise
from torch import nn
from transformers import CLIPModel

import nib
from nib import last_block
from nib.methods.attention import NAME


@pytest.fixture(scope="module")
def hooked(tokenizer, image_processor):
    """The model that pools at its end id alone: which token is pooled is given to the block."""
    return nib.HookedCLIP(randomise(CLIPModel(make_config())).double(), tokenizer, image_processor)


@pytest.fixture
def splits(hooked, pixel_values, tokens):
    """Both towers before their last block; the text without a mask and with padding."""
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    text = {"text": hooked.text.split(ids, 3), "padded": hooked.text.split(ids, 3, mask)}
    return {"image": hooked.image.split(pixel_values, 3)} | text


def whole(split, states):
    """Run transformers' own block and take the pooled token."""
    rows = torch.arange(len(states))
    return split.tower.blocks[-1](states, **split.arguments)[rows, split.pool_index]


def short(split, states):
    return last_block.run_pooled(split.tower.blocks[-1], states, split.pool_index, **split.arguments)


def test_values_and_gradients_are_those_of_the_block(hooked, pixel_values, tokens, subtests):
    model = hooked.model
    before = model.config._attn_implementation
    for kind in ("sdpa", "eager", NAME):
        # transformers' eager attention rounds its softmax to float32
        close = dict(rtol=1e-10, atol=1e-10) if kind != "eager" else dict(rtol=1e-4, atol=1e-5)
        try:
            model.set_attn_implementation(kind)
            for name, split in (
                ("image", hooked.image.split(pixel_values, 3)),
                ("text", hooked.text.split(tokens["input_ids"], 3)),
                ("padded", hooked.text.split(tokens["input_ids"], 3, tokens["attention_mask"])),
            ):
                with subtests.test(f"{kind}, {name}"):
                    assert last_block.fits(split.tower.blocks[-1])
                    states = split.hidden_states.clone().requires_grad_()
                    expected, found = whole(split, states), short(split, states)
                    torch.testing.assert_close(found, expected, **close)
                    generator = torch.Generator().manual_seed(0)
                    weights = torch.randn(expected.shape, generator=generator, dtype=states.dtype)
                    (right,) = torch.autograd.grad((expected * weights).sum(), states)
                    (ours,) = torch.autograd.grad((found * weights).sum(), states)
                    torch.testing.assert_close(ours, right, **close)
        finally:
            model.set_attn_implementation(before)


def test_a_split_takes_it_and_a_hooked_block_runs_whole(splits, subtests):
    for name, split in splits.items():
        with subtests.test(name):
            block = split.tower.blocks[-1]
            embeds = split(split.hidden_states)
            calls = []
            handle = block.register_forward_hook(lambda *args, calls=calls: calls.append(1))
            try:
                assert not last_block.fits(block)
                torch.testing.assert_close(split(split.hidden_states), embeds, rtol=1e-10, atol=1e-10)
            finally:
                handle.remove()
            assert calls == [1]
            assert last_block.fits(block)


def test_does_not_fit_what_is_not_clips_own_block(hooked):
    block = copy.deepcopy(hooked.image.blocks[-1])
    assert last_block.fits(block)

    class Other(type(block)):
        pass

    block.self_attn.v_proj = nn.Sequential(block.self_attn.v_proj)
    assert not last_block.fits(block)
    block = copy.deepcopy(hooked.image.blocks[-1])
    block.__class__ = Other
    assert not last_block.fits(block)


def test_float32_is_close_to_float64(splits, subtests):
    for name, split in splits.items():
        with subtests.test(name):
            exact = short(split, split.hidden_states)
            single = copy.deepcopy(split.tower.blocks[-1]).float()
            found = last_block.run_pooled(single, split.hidden_states.float(), split.pool_index, **split.arguments)
            torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
