"""Checkpoints of open_clip come out as the very CLIP that they are, and what is none is refused with the reason."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import make_config, randomise
from safetensors.torch import save_file
from transformers import CLIPModel

import nib

PARTS = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
OUTER = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "logit_scale": "logit_scale",
}


def to_open_clip(model):
    """Name the weights of a `CLIPModel` as open_clip does: written the other way round than the reader."""
    state, named = model.state_dict(), {}
    for name, value in state.items():
        if name in OUTER:
            named[OUTER[name]] = value
        elif name.rpartition(".")[0] in OUTER:
            stem, _, kind = name.rpartition(".")
            named[f"{OUTER[stem]}.{kind}"] = value
        elif ".layers." in name:
            side = "visual." if name.startswith("vision") else ""
            number, _, part = name.split(".layers.")[1].partition(".")
            stem, _, kind = part.rpartition(".")
            block = f"{side}transformer.resblocks.{number}"
            if stem == "self_attn.q_proj":
                parts = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                named[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
            elif stem in PARTS:
                named[f"{block}.{PARTS[stem]}.{kind}"] = value
    named["visual.proj"] = state["visual_projection.weight"].T
    named["text_projection"] = state["text_projection.weight"].T
    return {name: value.contiguous() for name, value in named.items()}


def describe(**changes):
    """Write an open_clip_config.json of the tiny model."""
    vision = dict(image_size=60, layers=4, width=32, patch_size=12, head_width=8)
    text = dict(context_length=32, vocab_size=1331, width=32, heads=4, layers=4)
    made = dict(embed_dim=16, quick_gelu=True, vision_cfg=vision, text_cfg=text)
    for name, value in changes.items():
        side, _, key = name.partition("__")
        (made[side] if key else made).__setitem__(key or name, value)
    return {"model_cfg": made, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}


@pytest.fixture(scope="module")
def model():
    config = make_config(2)
    for side in (config.text_config, config.vision_config):
        side.hidden_act = "quick_gelu"
    return randomise(CLIPModel(config))


@pytest.fixture
def folder(tmp_path, model, tokenizer):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(describe()))
    save_file(to_open_clip(model), tmp_path / "open_clip_model.safetensors")
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_becomes_the_same_model_to_the_bit(folder, model, pixel_values):
    clip = nib.load(folder)
    state = clip.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert tuple(clip.image_processor.image_mean) == (0.5, 0.4, 0.3)
    assert dict(clip.image_processor.crop_size)["height"] == 60
    pictures, ids = pixel_values.float(), torch.tensor([[1329, 5, 320, 1330, 0, 0]])
    assert torch.equal(clip.image.embed(pictures), model.eval().get_image_features(pictures).pooler_output)
    assert torch.equal(clip.text.embed(ids), model.get_text_features(ids).pooler_output)
    assert nib.attribute(clip, torch.zeros(3, 60, 60), "a dog").words == ["a", "dog"]


def test_a_bare_state_dict_says_its_own_shapes(tmp_path, pixel_values, subtests):
    wide = randomise(CLIPModel(make_config(2, hidden_size=64, num_attention_heads=1)))
    bare = to_open_clip(wide)
    wrapped = {f"module.{name}": value for name, value in bare.items()}
    saved = {
        "bare": bare,
        "bare, wrapped": wrapped,
        "training": {"epoch": 3, "state_dict": bare},
        "training, wrapped": {"epoch": 3, "state_dict": wrapped},
    }
    for number, (label, content) in enumerate(saved.items()):
        with subtests.test(label):
            path = tmp_path / f"model_{number}.pt"
            torch.save(content, path)
            with (
                pytest.warns(UserWarning, match="does not say its activation"),
                pytest.warns(UserWarning, match="no tokenizer"),
            ):
                clip = nib.load(path)
            assert clip.model.config.vision_config.hidden_act == "gelu"
            assert clip.model.config.vision_config.num_attention_heads == 1
            assert clip.grid(pixel_values) == (5, 5)
            state = clip.model.state_dict()
            assert all(torch.equal(state[name], value) for name, value in wide.state_dict().items())


def test_a_processor_of_another_model_serves_a_bare_state_dict(tmp_path, model, model_folder, recwarn):
    save_file(to_open_clip(model), tmp_path / "model.safetensors")
    clip = nib.load(tmp_path / "model.safetensors", processor=model_folder, quick_gelu=True)
    assert not recwarn
    assert clip.model.config.text_config.hidden_act == "quick_gelu"
    assert nib.attribute(clip, torch.zeros(3, 60, 60), "a dog", n_steps=1).words == ["a", "dog"]


REFUSED = {
    "BERT text": (dict(text_cfg__hf_model_name="microsoft/BiomedNLP"), "hf_model_name='microsoft/BiomedNLP'"),
    "timm picture": (dict(vision_cfg__timm_model_name="vit_base"), "timm_model_name='vit_base'"),
    "another pooling": (dict(vision_cfg__pool_type="avg"), "pool_type='avg'"),
    "no causal mask": (dict(text_cfg__no_causal_mask=True), "no_causal_mask=True"),
    "CoCa": (dict(multimodal_cfg={}), "multimodal_cfg"),
}


def test_other_architectures_are_refused_by_what_they_are(folder, subtests):
    for label, (changes, message) in REFUSED.items():
        (folder / "open_clip_config.json").write_text(json.dumps(describe(**changes)))
        with subtests.test(label), pytest.raises(ValueError, match=message):
            nib.load(folder)


def test_weights_that_do_not_fit_are_named(folder, model):
    state = to_open_clip(model)
    del state["transformer.resblocks.1.ln_1.bias"]
    save_file(state | {"another": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"layers\.1\.layer_norm1\.bias.*another"):
        nib.load(folder)
    save_file({"conv.weight": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match="no CLIP of OpenAI's architecture"):
        nib.load(folder)


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    for payload in (pickle.dumps(Path(), protocol=2), b"", b"nonsense"):
        path.write_bytes(payload)
        with pytest.raises(ValueError, match="must hold tensors alone"):
            nib.load(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="must hold a state dict"):
        nib.load(path)


def test_a_folder_without_weights_is_named(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(describe()))
    with pytest.raises(FileNotFoundError, match=r"open_clip_model\.safetensors"):
        nib.load(tmp_path)
