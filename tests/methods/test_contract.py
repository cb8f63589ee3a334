"""What every method owes: one signature, pairs that do not see each other, a model left as it was."""

import inspect
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import pytest
import torch
from conftest import make_config, randomise
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel

import nib
from nib.attribution import check_method
from nib.clip import HookedCLIP
from nib.methods import TOGETHER
from nib.methods.attention import open_attention, record
from nib.methods.pairs import guard
from nib.methods.scores import Sums

SMALL = {
    "nib": dict(layer=2, n_steps=3),
    "m2ib": dict(layer=2, n_steps=3, n_noise=2),
    "rise": dict(n_masks=10, grid=4, text_masks=6),
    "objectness": dict(layer=2),
    "gradcam": dict(layer=2),
    "mfaba": dict(n_steps=3),
    "agi": dict(n_steps=2),
    "lime": dict(n_samples=10),
}


@pytest.fixture(scope="module")
def clips(tokenizer, image_processor):
    """One model, which pools a caption at its end id, and at its largest id as the hub's old configs do."""
    models = [randomise(CLIPModel(make_config(eos_token_id))).double() for eos_token_id in (1330, 2)]
    return [nib.HookedCLIP(model, tokenizer, image_processor) for model in models]


@pytest.fixture(scope="module")
def hooked(clips):
    return clips[0]


@pytest.fixture(scope="module")
def whole(hooked, pixel_values, tokens):
    """Run a method on three pairs; each method runs once for all tests."""
    return cache(lambda method: explain(hooked, method, pixel_values, **tokens))


def explain(clip, method, pixel_values, input_ids, attention_mask=None, **parameters):
    parameters = SMALL.get(method, {}) | parameters
    return nib.METHODS[method](clip, pixel_values, input_ids, attention_mask, **parameters)


def assert_same(scores, others):
    for name in ("image", "text", "similarity", "image_class"):
        first, second = getattr(scores, name), getattr(others, name)
        if first is None:
            assert second is None
        else:
            torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def test_has_the_methods_of_the_paper_the_cited_forms_and_the_controls():
    paper = {"nib", "m2ib", "rise", "gradcam", "chefer", "saliency", "mfaba", "fast_ig"}
    assert set(nib.METHODS) >= paper | {"pixel_gradient", "input_x_gradient", "random", "center", "none"}
    assert set(nib.METHODS) >= {"grad_eclip", "legrad", "mask_clip", "clip_surgery", "agi", "lime", "objectness"}


def test_has_the_signature(subtests):
    for method, function in nib.METHODS.items():
        with subtests.test(method):
            parameters = inspect.signature(function).parameters
            assert list(parameters)[:4] == ["clip", "pixel_values", "input_ids", "attention_mask"]
            assert parameters["seed"].default == 0
            assert parameters["batch_size"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_default_layer_is_the_one_that_results_name(pixel_values, tokens, subtests):
    config = make_config(1330)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 8
    clip = nib.HookedCLIP(randomise(CLIPModel(config)).double())
    for method, function in nib.METHODS.items():
        if "layer" in inspect.signature(function).parameters:
            with subtests.test(method), patch.object(clip, "layers", wraps=clip.layers) as asked:
                explain(clip, method, pixel_values, **tokens, layer=None)
                found = HookedCLIP.layers(clip, *asked.call_args.args, **asked.call_args.kwargs)
                named = check_method(clip, method, {})[1]["layer"]
                assert found == (named, named)


def test_shapes_similarity_and_padding(hooked, whole, pixel_values, tokens, subtests):
    with torch.no_grad():
        expected = cosine_similarity(hooked.image.embed(pixel_values), hooked.text.embed(*tokens.values()))
    for method in nib.METHODS:
        with subtests.test(method):
            scores = whole(method)
            assert scores.image.shape == (3, 5, 5)
            assert scores.text.shape == tokens["input_ids"].shape
            assert not scores.text[tokens["attention_mask"] == 0].any()
            torch.testing.assert_close(scores.similarity, expected)
            assert not scores.image.requires_grad
            assert not scores.text.requires_grad


def test_the_largest_id_pools_where_the_end_id_does(clips, whole, pixel_values, tokens, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            assert_same(whole(method), explain(clips[1], method, pixel_values, **tokens))


def test_batch_equals_singles(hooked, whole, pixel_values, tokens, subtests):
    for method in nib.METHODS:
        if method in TOGETHER:
            continue
        with subtests.test(method):
            scores = whole(method)
            for index in range(3):
                length = int(tokens["attention_mask"][index].sum())
                ids = tokens["input_ids"][index : index + 1, :length]
                single = explain(hooked, method, pixel_values[index : index + 1], ids)
                torch.testing.assert_close(scores.image[index], single.image[0], rtol=1e-8, atol=1e-8)
                torch.testing.assert_close(scores.text[index, :length], single.text[0], rtol=1e-8, atol=1e-8)
                assert (scores.image_class is None) == (single.image_class is None)
                if single.image_class is not None:
                    expected = single.image_class[0]
                    torch.testing.assert_close(scores.image_class[index], expected, rtol=1e-8, atol=1e-8)


def test_small_chunks_change_nothing(hooked, whole, pixel_values, tokens, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            assert_same(whole(method), explain(hooked, method, pixel_values, **tokens, batch_size=2))


def test_one_picture_serves_all_captions(hooked, pixel_values, tokens, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            shared = explain(hooked, method, pixel_values[:1], **tokens, batch_size=2)
            assert_same(shared, explain(hooked, method, pixel_values[:1].expand(3, -1, -1, -1), **tokens))


def test_never_nan_on_a_flat_picture_and_one_word(hooked, tokens, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            flat = torch.zeros(1, 3, 60, 60, dtype=torch.float64)
            scores = explain(hooked, method, flat, tokens["input_ids"][:1, :4])
            assert scores.image.isfinite().all()
            assert scores.text.isfinite().all()


def test_other_picture_sizes(hooked, tokens, subtests):
    pixel_values = torch.randn(1, 3, 48, 72, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for method in nib.METHODS:
        with subtests.test(method):
            scores = explain(hooked, method, pixel_values, **tokens)
            assert scores.image.shape == (3, 4, 6)
            assert scores.image.isfinite().all()


def test_leaves_the_model_as_it_was(hooked, pixel_values, tokens, subtests):
    model = hooked.model
    for method in nib.METHODS:
        with subtests.test(method):
            before = {name: values.clone() for name, values in model.state_dict().items()}
            explain(hooked, method, pixel_values, **tokens)
            after = model.state_dict()
            assert all(torch.equal(values, after[name]) for name, values in before.items())
            assert all(not p.requires_grad and p.grad is None for p in model.parameters())
            assert_clean(model)


def test_rejects_pictures_that_do_not_pair_up_and_a_bad_batch_size(hooked, pixel_values, tokens, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            with pytest.raises(ValueError, match="pixel_values must have 1 or 3 rows, one a caption, got 2"):
                explain(hooked, method, pixel_values[:2], **tokens)
            with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
                explain(hooked, method, pixel_values, **tokens, batch_size=0)


def test_runs_through_the_front_door(hooked, pixel_values, subtests):
    for method in nib.METHODS:
        with subtests.test(method):
            options = SMALL.get(method, {})
            result = nib.attribute(hooked, pixel_values[0], "a dog next to a dog", method=method, **options)
            assert result.image_scores.shape == (5, 5)
            assert len(result.words) == 6
            with pytest.raises(TypeError, match=f"{method} has no parameter colour; it has .*seed"):
                nib.attribute(hooked, pixel_values[0], "a dog", method=method, colour=1)


def test_padding_needs_no_mask_after_the_end_token(clips, whole, pixel_values, tokens, subtests):
    for clip in clips:
        for method in ("m2ib", "saliency", "gradcam"):
            with subtests.test(f"{method}, end id {clip.model.config.text_config.eos_token_id}"):
                assert_same(whole(method), explain(clip, method, pixel_values, tokens["input_ids"]))


def test_attention_is_restored_after_an_error(hooked, pixel_values, tokens):
    def fail():
        with open_attention(hooked), record(hooked.image.blocks, hooked.image.attention):
            hooked.image.embed(pixel_values)
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert_clean(hooked.model)


def test_attention_is_restored_where_the_towers_differ(hooked, pixel_values, tokens):
    hooked.model.set_attn_implementation({"text_config": "eager"})
    try:
        explain(hooked, "chefer", pixel_values, **tokens)
        assert hooked.model.text_model.config._attn_implementation == "eager"
        assert hooked.model.vision_model.config._attn_implementation == "sdpa"
    finally:
        hooked.model.set_attn_implementation("sdpa")


def test_open_attention_changes_no_embedding(hooked, pixel_values, tokens):
    with torch.no_grad():
        expected = hooked.image.embed(pixel_values), hooked.text.embed(*tokens.values())
        with open_attention(hooked):
            opened = hooked.image.embed(pixel_values), hooked.text.embed(*tokens.values())
    torch.testing.assert_close(opened, expected, rtol=1e-12, atol=1e-12)


def test_record_counts_the_attentions(hooked, pixel_values):
    with (
        pytest.raises(RuntimeError, match="4 blocks must give as many attention maps, got 0"),
        record(hooked.image.blocks, hooked.image.attention),
    ):
        hooked.image.embed(pixel_values)  # the default attention gives none
    assert_clean(hooked.model)


def assert_clean(model):
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert model.config._attn_implementation == "sdpa"
    assert model.text_model.config._attn_implementation == "sdpa"
    assert model.vision_model.config._attn_implementation == "sdpa"


def test_sums_are_joined_looked_at_and_cut_from_the_graph(hooked, pixel_values, tokens, subtests):
    whole = nib.METHODS["nib"](hooked, pixel_values, **tokens, layer=2, n_steps=2)
    for side in ("image_sums", "text_sums"):
        with subtests.test(f"{side} joined"):
            twice = getattr(nib.Scores.join([whole, whole]), side)
            assert all(torch.equal(found, one.repeat(2)) for found, one in zip(twice, getattr(whole, side)))
        for value in (1.0, torch.nan):
            own = replace(whole, **{side: Sums(*(torch.full((3,), value, requires_grad=True) for _ in range(3)))})
            method = guard("own", lambda clip, pixel_values, input_ids, attention_mask=None, own=own: own)
            with subtests.test(f"{side} {value}"):
                if value == 1.0:
                    found = method(hooked, pixel_values, **tokens)
                    assert not any(each.requires_grad for each in getattr(found, side))
                else:
                    with pytest.raises(ValueError, match=f"NaN or infinity in {side}"):
                        method(hooked, pixel_values, **tokens)
