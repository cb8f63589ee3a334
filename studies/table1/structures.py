"""Build models of other structure, with random weights, on which each system of Table 1 is tried.

Exports `build`: a CLIP of another depth, width and patch size; a SigLIP, which pools by attention; and a residual
network in the place of the image tower, which has neither class token nor tokens.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, SiglipConfig, SiglipModel

import nib
from nib.clip import HookedCLIP

SHAPE = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4)


def build(clip: HookedCLIP, seed: int = 0) -> dict[str, object]:
    """Return, by name, models that read the same pictures and tokens as `clip`.

    The convolutional one embeds, and says why it cannot be cut.
    """
    makers = {"another CLIP": _build_clip, "SigLIP": _build_siglip, "no class token": _build_convolutional}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: make(clip) for name, make in makers.items()}


def _sides(clip: HookedCLIP) -> dict:
    size, vocabulary = clip.image.image_size, clip.model.config.text_config
    ids = {name: getattr(vocabulary, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size")}
    text = SHAPE | ids | dict(max_position_embeddings=clip.context_length)
    return dict(text_config=text, vision_config=SHAPE | dict(image_size=size, patch_size=size // 6))


def _build_clip(clip: HookedCLIP) -> HookedCLIP:
    model = CLIPModel(CLIPConfig(**_sides(clip), projection_dim=32))
    return HookedCLIP(model, clip.tokenizer, clip.image_processor)


def _build_siglip(clip: HookedCLIP) -> HookedCLIP:
    model = SiglipModel(SiglipConfig(**_sides(clip))).eval().requires_grad_(False)
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(model.config.to_dict()))
        save_file(model.state_dict(), Path(folder, "model.safetensors"))
        clip.tokenizer.save_pretrained(folder)
        clip.image_processor.save_pretrained(folder)
        return nib.load(folder)


def _build_convolutional(clip: HookedCLIP) -> "EmbedsAlone":
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 32], depths=[1, 1, 1], layer_type="basic")
    network = ResNetModel(config).eval().requires_grad_(False)
    projection = nn.Linear(32, clip.model.config.projection_dim).requires_grad_(False)
    model = nn.ModuleDict({"image": network, "projection": projection, "text": clip.model.text_model})

    def feature_map(pixel_values: Tensor) -> Tensor:
        return network(pixel_values).last_hidden_state  # (batch, channels, height, width)

    def embed(pixel_values: Tensor) -> Tensor:
        return projection(feature_map(pixel_values).mean((2, 3)))

    reason = "a convolutional tower has no blocks through which tokens pass"
    alone = EmbedsAlone(clip, model, embed, reason)
    alone.image.feature_map = feature_map
    return alone


class EmbedsAlone:
    """A model that embeds pictures and texts, and refuses to be cut, with a reason."""

    def __init__(self, clip: HookedCLIP, model: nn.Module, embed: Callable, reason: str):
        self.model, self.tokenizer, self.image_processor = model, clip.tokenizer, clip.image_processor
        self.device, self.dtype, self.context_length = clip.device, clip.dtype, clip.context_length
        if not hasattr(model, "config"):
            model.config = clip.model.config  # `nib.inputs` reads the padding id there

        def refuse(*_, **__):
            raise ValueError(reason)

        self.layers, self.text, self.ready = refuse, clip.text, nullcontext  # it is at rest already
        self.image = SimpleNamespace(embed=embed, split=refuse, check_layer=refuse, blocks=(), channels=3, patch=1)
        self.grid = refuse
