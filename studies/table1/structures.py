"""Build models of other structure, with random weights, on which each system of Table 1 is tried.

Exports `build`: a CLIP of another depth, width and patch size; a SigLIP, which pools by attention; and a residual
network in the place of the image tower, which has neither class token nor tokens.
"""

from collections.abc import Callable
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, SiglipConfig, SiglipModel

import nib
from nib.clip import HookedCLIP

SHAPE = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4)


def build(clip: HookedCLIP, seed: int = 0) -> dict[str, Callable]:
    """Return, by name, functions that build a model which reads the same pictures and tokens as `clip`.

    Building one raises a ValueError where `nib` does not know the family.
    """
    return {
        "another CLIP": lambda: _seeded(seed, lambda: _build_clip(clip)),
        "SigLIP": lambda: _seeded(seed, lambda: _build_siglip(clip)),
        "no class token": lambda: _seeded(seed, lambda: Convolutional(clip)),
    }


def _seeded(seed: int, make: Callable):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _sides(clip: HookedCLIP) -> dict:
    size, vocabulary = clip.image_size, clip.model.config.text_config
    ids = {name: getattr(vocabulary, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size")}
    text = SHAPE | ids | dict(max_position_embeddings=clip.context_length)
    return dict(text_config=text, vision_config=SHAPE | dict(image_size=size, patch_size=size // 6))


def _build_clip(clip: HookedCLIP) -> HookedCLIP:
    model = CLIPModel(CLIPConfig(**_sides(clip), projection_dim=32))
    return HookedCLIP(model, clip.tokenizer, clip.image_processor)


def _build_siglip(clip: HookedCLIP):
    model = SiglipModel(SiglipConfig(**_sides(clip))).eval().requires_grad_(False)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        clip.tokenizer.save_pretrained(folder)
        clip.image_processor.save_pretrained(folder)
        return nib.load(folder)


class Convolutional:
    """A residual network beside the text tower of a CLIP: it embeds, and has no blocks through which tokens pass."""

    def __init__(self, clip: HookedCLIP):
        config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 32], depths=[1, 1, 1], layer_type="basic")
        network = ResNetModel(config).eval().requires_grad_(False)
        projection = nn.Linear(32, clip.model.config.projection_dim).requires_grad_(False)
        self.model = nn.ModuleDict({"image": network, "projection": projection, "text": clip.model.text_model})
        self.text, self.tokenizer, self.image_processor = clip.text, clip.tokenizer, clip.image_processor
        self.device, self.dtype, self.context_length = clip.device, clip.dtype, clip.context_length
        self.model.config = clip.model.config

        def feature_map(pixel_values: Tensor) -> Tensor:
            return network(pixel_values).last_hidden_state  # (batch, channels, height, width)

        def embed(pixel_values: Tensor) -> Tensor:
            return projection(feature_map(pixel_values).mean((2, 3)))

        def split(*_):
            raise ValueError("a convolutional tower has no blocks through which tokens pass")

        self.image = SimpleNamespace(embed=embed, feature_map=feature_map, split=split, check_layer=split, blocks=())
