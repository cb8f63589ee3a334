"""A tower that is cut and joined is the model's own, and the model comes out as it went in."""

import copy
from contextlib import contextmanager

import pytest
import torch
from conftest import CAPTIONS, make_config, randomise
from PIL import Image
from torch.testing import assert_close
from transformers import BertConfig, CLIPModel, SiglipConfig

import nib

LAYERS = range(5)  # from before the first block to after the last
PRECISE = dict(atol=1e-10, rtol=0)

# transformers leaves hooks on a model that was asked for its hidden states, so copies are asked.


def encode_images(clip, pixel_values, **options):
    return clip.model.get_image_features(pixel_values=pixel_values, **options).pooler_output


def encode_texts(clip, tokens):
    return clip.model.get_text_features(**tokens).pooler_output


@pytest.fixture(params=["image", "text"])
def split(request, clip, pixel_values, tokens):
    """One tower, with three inputs in it, cut in the middle."""
    if request.param == "image":
        return clip.image.split(pixel_values, 2)
    return clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])


@pytest.mark.parametrize("layer", LAYERS)
def test_image_tower_is_the_models(clip, pixel_values, layer):
    split = clip.image.split(pixel_values, layer)
    own = copy.deepcopy(clip.model).vision_model(pixel_values, output_hidden_states=True).hidden_states[layer]
    assert_close(split.hidden_states, own, **PRECISE)
    assert_close(split(split.hidden_states), encode_images(clip, pixel_values), **PRECISE)


@pytest.mark.parametrize("layer", LAYERS)
def test_text_tower_is_the_models(clip, tokens, layer):
    split = clip.text.split(tokens["input_ids"], layer, tokens["attention_mask"])
    own = copy.deepcopy(clip.model).text_model(**tokens, output_hidden_states=True).hidden_states[layer]
    assert_close(split.hidden_states, own, **PRECISE)
    assert_close(split(split.hidden_states), encode_texts(clip, tokens), **PRECISE)


@pytest.mark.parametrize("size", [(84, 84), (36, 72), (65, 50)])
def test_pictures_of_another_size(clip, size):
    pixel_values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    split = clip.image.split(pixel_values, 2)
    grid = clip.grid(pixel_values)
    assert grid == (size[0] // 12, size[1] // 12)
    assert split.hidden_states.shape[1] == 1 + grid[0] * grid[1]
    expected = encode_images(clip, pixel_values, interpolate_pos_encoding=True)
    assert_close(split(split.hidden_states), expected, **PRECISE)


def test_whole_towers_embed_as_the_model_does(clip, pixel_values, tokens):
    assert_close(clip.image.embed(pixel_values), encode_images(clip, pixel_values), **PRECISE)
    assert_close(clip.text.embed(**rename(tokens)), encode_texts(clip, tokens), **PRECISE)


def rename(tokens):
    return dict(inputs=tokens["input_ids"], attention_mask=tokens["attention_mask"])


@pytest.mark.parametrize(("eos_token_id", "pooled"), [(809, 2), (2, 3)], ids=["first_end_token", "largest_id"])
def test_pooled_token_follows_the_config(eos_token_id, pooled):
    clip = nib.HookedCLIP(randomise(CLIPModel(make_config(eos_token_id))).double())
    tokens = {"input_ids": torch.tensor([[5, 320, 809, 1105, 809]])}
    split = clip.text.split(tokens["input_ids"], 2)
    assert split.pool_index.tolist() == [pooled]
    assert_close(split(split.hidden_states), encode_texts(clip, tokens), **PRECISE)


def test_rows_are_step_major(split):
    steps = [scale * split.hidden_states for scale in (1.0, 0.5, 0.1)]
    assert_close(split(torch.cat(steps)), torch.cat([split(step) for step in steps]), **PRECISE)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3), torch.tensor([2, 0])], ids=["first", "rest", "picked"])
def test_part_of_a_split_is_the_split_of_a_part(split, rows):
    part = split[rows]
    assert len(part) == len(split.hidden_states[rows])
    assert_close(part(part.hidden_states), split(split.hidden_states)[rows], **PRECISE)
    twice = torch.cat([part.hidden_states, 0.5 * part.hidden_states])
    assert_close(part(twice)[len(part) :], split(0.5 * split.hidden_states)[rows], **PRECISE)


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_rows_must_be_a_multiple_of_the_batch(split, rows):
    tokens = split.hidden_states.shape[1]
    with pytest.raises(ValueError, match=rf"hidden_states must have shape \(k \* 3, {tokens}, 32\), got"):
        split(torch.zeros(rows, tokens, 32, dtype=torch.float64))


@pytest.mark.parametrize("layer", [-1, 5, 2.0, True, None])
def test_layer_out_of_range(clip, pixel_values, layer):
    with pytest.raises(ValueError, match=f"layer must be a whole number from 0 to 4, got {layer}"):
        clip.image.split(pixel_values, layer)


@contextmanager
def untouched(model):
    """Check that the model leaves the `with` as it entered it, bit for bit."""
    weights, hooks = copy.deepcopy(model.state_dict()), list_hooks(model)
    yield
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert list_hooks(model) == hooks
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


def list_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [(name, kind, *getattr(module, kind)) for name, module in model.named_modules() for kind in kinds]


def test_attributing_leaves_the_model_as_it_was(clip):
    with untouched(clip.model):
        nib.attribute(clip, Image.new("RGB", (60, 60), "red"), CAPTIONS, layer=2, n_steps=2)


@pytest.mark.parametrize("block", [1, 2], ids=["before_the_cut", "after_the_cut"])
def test_error_on_the_way_leaves_the_model_as_it_was(clip, pixel_values, tokens, monkeypatch, block):
    def fail(*args, **kwargs):
        raise ArithmeticError

    with untouched(clip.model), monkeypatch.context() as patch:
        patch.setattr(clip.model.text_model.encoder.layers[block], "forward", fail)
        with pytest.raises(ArithmeticError):
            nib.METHODS["nib"](clip, pixel_values, **tokens, layer=2)


def test_model_is_frozen_even_if_it_came_in_training():
    model = CLIPModel(make_config()).train()
    assert any(parameter.requires_grad for parameter in model.parameters())
    with untouched(nib.HookedCLIP(model).model):
        pass


def test_saved_model_loads_with_its_processors(model_folder, tokens, pixel_values):
    clip = nib.load(model_folder)
    assert (clip.dtype, clip.device.type, clip.image_size, clip.context_length) == (torch.float32, "cpu", 60, 32)
    own = CLIPModel.from_pretrained(model_folder, dtype="float32").eval()
    assert torch.equal(clip.text.embed(**rename(tokens)), own.get_text_features(**tokens).pooler_output)
    assert clip.tokenizer(CAPTIONS[0])["input_ids"] == tokens["input_ids"][0, :4].tolist()
    assert clip.image_processor(Image.new("RGB", (90, 70)), return_tensors="pt")["pixel_values"].shape[-2:] == (60, 60)


def test_brain_float(model_folder, pixel_values):
    clip, exact = nib.load(model_folder, dtype="bfloat16"), nib.load(model_folder, dtype=torch.float64)
    assert (clip.dtype, exact.dtype) == (torch.bfloat16, torch.float64)
    embeds = clip.image.embed(pixel_values.bfloat16()).double()
    assert torch.cosine_similarity(embeds, exact.image.embed(pixel_values)).min() > 0.99
    result = nib.attribute(clip, Image.new("RGB", (60, 60), "red"), CAPTIONS[0], layer=2)
    assert torch.tensor(result.image_scores).isfinite().all()


def test_model_without_processors_takes_tensors_only(model_folder, tmp_path, pixel_values, tokens):
    CLIPModel.from_pretrained(model_folder).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="only .* will be understood") as warned:
        clip = nib.load(tmp_path)
    messages = " ".join(str(warning.message) for warning in warned)
    assert "no tokenizer" in messages
    assert "no image processor" in messages
    assert clip.tokenizer is None
    assert clip.image_processor is None
    picture, ids = pixel_values[0], tokens["input_ids"][0, :4]
    with pytest.raises(ValueError, match="without a tokenizer: pass token ids"):
        nib.attribute(clip, picture, "a cat", layer=2)
    with pytest.raises(ValueError, match="without an image processor: pass normalised pixel values"):
        nib.attribute(clip, Image.new("RGB", (60, 60)), ids, layer=2)
    result = nib.attribute(clip, picture, ids, layer=2)
    full = nib.attribute(nib.load(model_folder), picture, "a cat", layer=2)
    assert result.similarity == full.similarity
    assert result.picture.shape == (60, 60, 3)


def test_unknown_name(tmp_path):
    for name in ("nobody/no-such-model", tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=r"no model at .*config\.json"):
            nib.load(name)


@pytest.mark.parametrize("config", [SiglipConfig, BertConfig])
def test_unsupported_family(tmp_path, config):
    config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"model_type must be one of .*'clip'.*got '{config.model_type}'"):
        nib.load(tmp_path)


@pytest.mark.parametrize("dtype", ["float99", "int64", torch.int64, "nn", 32, None])
def test_bad_dtype(model_folder, dtype):
    with pytest.raises(ValueError, match="dtype must be a floating-point torch dtype"):
        nib.load(model_folder, dtype=dtype)
