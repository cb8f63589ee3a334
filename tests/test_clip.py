"""A model loads in the precision asked for, frozen, with the processors that it has, or says what is missing."""

import pytest
import torch
from conftest import CAPTIONS, make_config
from PIL import Image
from transformers import BertConfig, BlipConfig, CLIPModel, CLIPSegForImageSegmentation

import nib
from benchmarks.families import build


def test_model_is_frozen_even_if_it_came_in_training():
    model = CLIPModel(make_config()).train()
    assert any(parameter.requires_grad for parameter in model.parameters())
    model = nib.HookedCLIP(model).model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_saved_model_loads_with_its_processors(model_folder, tokens, pixel_values):
    clip = nib.load(model_folder)
    assert (clip.dtype, clip.device.type, clip.image.image_size, clip.context_length) == (torch.float32, "cpu", 60, 32)
    own = CLIPModel.from_pretrained(model_folder, dtype="float32").eval()
    assert torch.equal(
        clip.text.embed(tokens["input_ids"], tokens["attention_mask"]), own.get_text_features(**tokens).pooler_output
    )
    assert clip.tokenizer(CAPTIONS[0])["input_ids"] == tokens["input_ids"][0, :4].tolist()
    assert clip.image_processor(Image.new("RGB", (90, 70)), return_tensors="pt")["pixel_values"].shape[-2:] == (60, 60)


def test_the_decoder_of_clipseg_is_left_out(tmp_path):
    towers = build("clipseg")
    whole = CLIPSegForImageSegmentation(towers.model.config)
    assert any(name.startswith("decoder.") for name in whole.state_dict())
    for part in (whole, towers.tokenizer, towers.image_processor):
        part.save_pretrained(tmp_path)
    names = {name.removeprefix("clip.") for name in whole.state_dict() if not name.startswith("decoder.")}
    assert set(nib.load(tmp_path).model.state_dict()) == names


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


def test_unsupported_family(tmp_path, subtests):
    for config in (BlipConfig, BertConfig):
        message = rf"model_type must be one of .*'clip'.*got '{config.model_type}'"
        config().save_pretrained(tmp_path / config.model_type)
        with subtests.test(config.model_type), pytest.raises(ValueError, match=message):
            nib.load(tmp_path / config.model_type)


def test_bad_dtype(model_folder, subtests):
    for dtype in ("float99", "int64", torch.int64, "nn", 32, None):
        message = "dtype must be a floating-point torch dtype"
        with subtests.test(repr(dtype)), pytest.raises(ValueError, match=message):
            nib.load(model_folder, dtype=dtype)
