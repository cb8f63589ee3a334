"""What every method owes: one signature, pairs that do not see each other, a model left as it was."""

import inspect

import pytest
import torch
from torch.nn.functional import cosine_similarity

import nib
from nib.methods.attention import open_attention, record

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
every_method = pytest.mark.parametrize("method", sorted(nib.METHODS))
# AGI walks towards the other pairs of the call.
every_method_but_agi = pytest.mark.parametrize("method", sorted(set(nib.METHODS) - {"agi"}))


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


@every_method
def test_has_the_signature(method):
    parameters = inspect.signature(nib.METHODS[method]).parameters
    assert list(parameters)[:4] == ["clip", "pixel_values", "input_ids", "attention_mask"]
    assert parameters["seed"].default == 0
    assert parameters["batch_size"].kind is inspect.Parameter.KEYWORD_ONLY


@every_method
def test_shapes_similarity_and_padding(clip, pixel_values, tokens, method):
    scores = explain(clip, method, pixel_values, **tokens)
    assert scores.image.shape == (3, 5, 5)
    assert scores.text.shape == tokens["input_ids"].shape
    assert not scores.text[tokens["attention_mask"] == 0].any()
    with torch.no_grad():
        expected = cosine_similarity(clip.image.embed(pixel_values), clip.text.embed(*tokens.values()))
    torch.testing.assert_close(scores.similarity, expected)
    assert not scores.image.requires_grad
    assert not scores.text.requires_grad


@every_method_but_agi
def test_batch_equals_singles(clip, pixel_values, tokens, method):
    scores = explain(clip, method, pixel_values, **tokens)
    for index in range(3):
        length = int(tokens["attention_mask"][index].sum())
        single = explain(clip, method, pixel_values[index : index + 1], tokens["input_ids"][index : index + 1, :length])
        torch.testing.assert_close(scores.image[index], single.image[0], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(scores.text[index, :length], single.text[0], rtol=1e-8, atol=1e-8)
        if single.image_class is not None:
            torch.testing.assert_close(scores.image_class[index], single.image_class[0], rtol=1e-8, atol=1e-8)


@every_method
def test_small_chunks_change_nothing(clip, pixel_values, tokens, method):
    whole, parts = (explain(clip, method, pixel_values, **tokens, batch_size=size) for size in (64, 2))
    assert_same(whole, parts)


@every_method
def test_one_picture_serves_all_captions(clip, pixel_values, tokens, method):
    shared = explain(clip, method, pixel_values[:1], **tokens, batch_size=2)
    assert_same(shared, explain(clip, method, pixel_values[:1].expand(3, -1, -1, -1), **tokens))


@every_method
def test_never_nan_on_a_flat_picture_and_one_word(clip, tokens, method):
    scores = explain(clip, method, torch.zeros(1, 3, 60, 60, dtype=torch.float64), tokens["input_ids"][:1, :4])
    assert scores.image.isfinite().all()
    assert scores.text.isfinite().all()


@every_method
def test_other_picture_sizes(clip, tokens, method):
    pixel_values = torch.randn(1, 3, 48, 72, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scores = explain(clip, method, pixel_values, **tokens)
    assert scores.image.shape == (3, 4, 6)
    assert scores.image.isfinite().all()


@every_method
def test_leaves_the_model_as_it_was(clip, pixel_values, tokens, method):
    model = clip.model
    before = {name: values.clone() for name, values in model.state_dict().items()}
    explain(clip, method, pixel_values, **tokens)
    after = model.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items())
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert_clean(model)


@every_method
def test_rejects_pictures_that_do_not_pair_up(clip, pixel_values, tokens, method):
    with pytest.raises(ValueError, match="pixel_values must have 1 or 3 rows, one a caption, got 2"):
        explain(clip, method, pixel_values[:2], **tokens)


@every_method
def test_rejects_a_bad_batch_size(clip, pixel_values, tokens, method):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        explain(clip, method, pixel_values, **tokens, batch_size=0)


@every_method
def test_runs_through_the_front_door(clip, pixel_values, method):
    result = nib.attribute(clip, pixel_values[0], "a dog next to a dog", method=method, **SMALL.get(method, {}))
    assert result.image_scores.shape == (5, 5)
    assert len(result.words) == 6
    with pytest.raises(TypeError, match=f"{method} has no parameter colour; it has .*seed"):
        nib.attribute(clip, pixel_values[0], "a dog", method=method, colour=1)


def test_padding_needs_no_mask_after_the_end_token(clip, pixel_values, tokens):
    for method in ("m2ib", "saliency", "gradcam"):
        assert_same(
            explain(clip, method, pixel_values, **tokens), explain(clip, method, pixel_values, tokens["input_ids"])
        )


def test_attention_is_restored_after_an_error(clip, pixel_values, tokens):
    def fail():
        with open_attention(clip), record(clip.image.blocks, clip.image.attention):
            clip.image.embed(pixel_values)
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert_clean(clip.model)


def test_attention_is_restored_where_the_towers_differ(clip, pixel_values, tokens):
    clip.model.set_attn_implementation({"text_config": "eager"})
    try:
        explain(clip, "chefer", pixel_values, **tokens)
        assert clip.model.text_model.config._attn_implementation == "eager"
        assert clip.model.vision_model.config._attn_implementation == "sdpa"
    finally:
        clip.model.set_attn_implementation("sdpa")


def test_open_attention_changes_no_embedding(clip, pixel_values, tokens):
    with torch.no_grad():
        expected = clip.image.embed(pixel_values), clip.text.embed(*tokens.values())
        with open_attention(clip):
            opened = clip.image.embed(pixel_values), clip.text.embed(*tokens.values())
    torch.testing.assert_close(opened, expected, rtol=1e-12, atol=1e-12)


def test_record_counts_the_attentions(clip, pixel_values):
    with (
        pytest.raises(RuntimeError, match="4 blocks must give as many attention maps, got 0"),
        record(clip.image.blocks, clip.image.attention),
    ):
        clip.image.embed(pixel_values)  # the default attention gives none
    assert_clean(clip.model)


def assert_clean(model):
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert model.config._attn_implementation == "sdpa"
    assert model.text_model.config._attn_implementation == "sdpa"
    assert model.vision_model.config._attn_implementation == "sdpa"
