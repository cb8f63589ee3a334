"""Read checkpoints of open_clip that have OpenAI's architecture, as the `CLIPModel` that they are.

LAION's models come as a folder or hub id with an `open_clip_config.json`; RemoteCLIP and GeoRSCLIP publish a bare state
dict, whose shapes say all but the activation. Weights are renamed and the fused query, key and value taken apart; not a
number changes.
"""

import json
import pickle
import warnings
from pathlib import Path

import torch
from PIL.Image import Resampling
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from nib.checks import check_count, check_flag

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
RESIZE_MODES = ("shortest", "squash")
RESAMPLE = {name.lower(): Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")}
HEAD = 64  # width of an attention head, where no config says otherwise
HEADS = {1280: 80, 1408: 88, 1664: 104}  # by the width of a picture tower: open_clip's ViT-H-14, -g-14 and -bigG-14
# What a config may say beside shapes without changing the architecture, and the value that it must have.
PLAIN = {"pool_type": ("tok", "argmax"), "ls_init_value": (None,), "mlp_ratio": (4.0, 4), "proj_bias": (False,)}
PLAIN |= dict.fromkeys(("attentional_pool", "no_ln_pre", "no_causal_mask", "embed_cls", "output_tokens"), (False, None))
SHAPES = {"image_size", "layers", "width", "patch_size", "head_width", "context_length", "vocab_size", "heads"}
WEIGHT_NAMES = {  # replaced in this order
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
}
BLOCK = {
    ".ln_1.": ".layer_norm1.", ".ln_2.": ".layer_norm2.", ".attn.out_proj.": ".self_attn.out_proj.",
    ".attn.in_proj_": ".self_attn.in_proj_", ".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2.",
}  # fmt: skip


def read_open_clip(
    config: Path | None, weights: Path, quick_gelu: bool | None = None
) -> tuple[CLIPModel, CLIPImageProcessorPil]:
    """Read the model in float32, and its image processor.

    Args:
        config: the path of its `open_clip_config.json`; None for a bare state dict, whose shapes are read instead.
        weights: a safetensors file, or a PyTorch file that holds tensors alone.
        quick_gelu: whether the blocks' activation is OpenAI's x sigmoid(1.702 x). None for what the config says; a bare
            state dict does not say, and gets gelu, open_clip's own default, with a warning.

    Raises:
        ValueError: another architecture, weights that are missing or too many, or a file that holds more than tensors.
    """
    state = _read_state(weights)
    try:
        described = {} if config is None else json.loads(config.read_text())
    except ValueError as error:
        raise ValueError(f"{config} must be JSON: {error}") from error
    shape = _read_shape(state, weights)
    made, prepared = (_read_part(described, part, config) for part in ("model_cfg", "preprocess_cfg"))
    towers = {side: _read_part(made, f"{side}_cfg", config) for side in ("vision", "text")}
    usual = {"vision": HEADS.get(shape["vision_width"], HEAD) if config is None else HEAD, "text": HEAD}
    heads = {}
    for side, tower in towers.items():
        width = tower.get("head_width", usual[side])
        check_count(f"head_width of {side}_cfg", width)
        heads[side] = max(1, shape[f"{side}_width"] // width)
    heads["text"] = towers["text"].get("heads") or heads["text"]
    _check_architecture(made, towers, shape, heads, config or weights)
    if quick_gelu is None:
        quick_gelu = made.get("quick_gelu", False)
        check_flag("quick_gelu", quick_gelu)
        if config is None:
            warnings.warn(
                f"{weights.name} does not say its activation: gelu is taken, as in open_clip's own models; pass"
                " quick_gelu=True for weights that were trained from OpenAI's with its activation. Nor does it say its"
                f" heads: {heads} are taken; a folder with an {CONFIG} says both",
                stacklevel=4,
            )
    vision, text = (
        dict(
            hidden_size=shape[f"{side}_width"],
            intermediate_size=shape[f"{side}_mlp"],
            num_hidden_layers=shape[f"{side}_layers"],
            num_attention_heads=heads[side],
            hidden_act="quick_gelu" if quick_gelu else "gelu",
        )
        for side in towers
    )
    vision |= dict(image_size=shape["image_size"], patch_size=shape["patch_size"])
    text |= dict(max_position_embeddings=shape["context_length"], vocab_size=shape["vocab_size"])
    # open_clip pools the largest id, which transformers does where the end id is 2.
    text |= dict(eos_token_id=2, bos_token_id=0, pad_token_id=0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape["embed_dim"]))
    _load(model, _rename(state), weights)
    return model, _make_processor(shape["image_size"], prepared)


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, out of a training checkpoint where it lies in one."""
    if path.suffix == ".json":
        raise ValueError(f"{path} holds no weights: pass the folder that it lies in")
    try:
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{path} must hold tensors alone, as safetensors or a PyTorch state dict: {reason}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state dict of tensors by name, got {type(state).__name__}")
    for name, value in state.items():
        if not name.endswith("attn_mask") and not (value.is_floating_point() and value.layout == torch.strided):
            raise ValueError(f"{path} must hold dense floating-point weights, got {value.dtype} in {name!r}")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    state = {name: value.float() for name, value in state.items() if not name.endswith("attn_mask")}
    # Where the text tower is a module of its own, its weights have its name before them.
    return {name.removeprefix("text."): value for name, value in state.items()}


def _read_shape(state: dict[str, Tensor], path: Path) -> dict[str, int]:
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "token_embedding.weight",
              "positional_embedding", "text_projection", "visual.transformer.resblocks.0.mlp.c_fc.weight",
              "transformer.resblocks.0.mlp.c_fc.weight")  # fmt: skip
    if any(name.startswith(("text_model.", "vision_model.")) for name in state):
        raise ValueError(f"{path} holds weights by transformers' names: pass the folder, with its config.json")
    if lacking := [name for name in needed if name not in state]:
        raise ValueError(
            f"{path} is no CLIP of OpenAI's architecture (two transformers, a class token): it has no {lacking[0]!r}."
            " Of open_clip's models those with a BERT text tower (BiomedCLIP), a timm or ResNet picture tower, or"
            " CoCa's decoder cannot be opened"
        )

    for name, dimensions in zip(needed, (4, 2, 2, 2, 2, 2, 2, 2)):
        if state[name].ndim != dimensions:
            raise ValueError(f"{path}: {name!r} must have {dimensions} dimensions, got {tuple(state[name].shape)}")

    def count(prefix):
        return len({name.split(".")[prefix.count(".")] for name in state if name.startswith(prefix)})

    vision_width, _, patch, _ = state["visual.conv1.weight"].shape
    places = len(state["visual.positional_embedding"])
    return {
        "vision_width": vision_width,
        "patch_size": patch,
        "image_size": round((places - 1) ** 0.5) * patch,
        "vision_layers": count("visual.transformer.resblocks."),
        "vision_mlp": len(state["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
        "text_width": state["token_embedding.weight"].shape[1],
        "vocab_size": len(state["token_embedding.weight"]),
        "context_length": len(state["positional_embedding"]),
        "text_layers": count("transformer.resblocks."),
        "text_mlp": len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
        "embed_dim": state["text_projection"].shape[1],
    }


def _read_part(config: dict, part: str, path: Path | None) -> dict:
    """Return a part of a config, empty where it is not there."""
    found = config.get(part, {}) if isinstance(config, dict) else config
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold {part} as an object of names and values, got {found!r}")
    return found


def _check_architecture(made: dict, towers: dict[str, dict], shape: dict[str, int], heads: dict, path: Path) -> None:
    """Raise a ValueError where a config says what `CLIPModel` has no place for, or other shapes than the weights."""
    for side, tower in towers.items():
        own = shape | {"width": shape[f"{side}_width"], "layers": shape[f"{side}_layers"], "heads": heads[side]}
        for name, value in tower.items():
            if name in own and value not in (own[name], [own[name]] * 2):
                raise ValueError(f"{path}: {side}_cfg says {name}={value!r}, and the weights say {own[name]}")
            if name not in SHAPES and value not in PLAIN.get(name, ()):
                raise ValueError(
                    f"{path}: {side}_cfg has {name}={value!r}, which is not OpenAI's architecture. Of open_clip's"
                    " models those with a Hugging Face text tower (hf_model_name), a timm picture tower"
                    " (timm_model_name) or other changes to the towers cannot be opened"
                )
    if made.get("embed_dim", shape["embed_dim"]) != shape["embed_dim"]:
        raise ValueError(f"{path} says embed_dim={made['embed_dim']!r}, and the weights say {shape['embed_dim']}")
    for name in set(made) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}:
        raise ValueError(f"{path}: model_cfg has {name!r}, which is not OpenAI's architecture")


def _rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the weights as `CLIPModel` does; what has no name there keeps its own."""
    renamed = {}
    for name, value in state.items():
        for old, new in WEIGHT_NAMES.items():
            name = name.replace(old, new)
        for old, new in BLOCK.items() if ".encoder.layers." in name else ():
            name = name.replace(old, new)
        if name in ("visual.proj", "text_projection"):
            renamed["visual_projection.weight" if name == "visual.proj" else "text_projection.weight"] = value.T
        elif ".self_attn.in_proj_" in name:
            for letter, piece in zip("qkv", value.chunk(3)):
                renamed[name.replace("in_proj_", f"{letter}_proj.")] = piece
        else:
            renamed[name] = value
    return renamed


def _load(model: CLIPModel, state: dict[str, Tensor], path: Path) -> None:
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    other = [name for name, value in state.items() if name in shapes and value.shape != shapes[name]]
    if other:
        raise ValueError(
            f"{path} does not fit: {other[0]} has the shape {tuple(state[other[0]].shape)}, and the others ask for"
            f" {tuple(shapes[other[0]])}"
        )
    found = model.load_state_dict(state, strict=False)
    if found.missing_keys or found.unexpected_keys:
        raise ValueError(
            f"{path} does not fit: missing {found.missing_keys[:5]},"
            f" not of this architecture {found.unexpected_keys[:5]}"
        )


def _make_processor(side: int, settings: dict) -> CLIPImageProcessorPil:
    way, resample = settings.get("resize_mode", "shortest"), settings.get("interpolation", "bicubic")
    for name, value, known in (("resize_mode", way, RESIZE_MODES), ("interpolation", resample, RESAMPLE)):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} of preprocess_cfg must be one of {sorted(known)}, got {value!r}")
    if (size := settings.get("size", side)) not in (side, [side, side]):
        raise ValueError(f"size of preprocess_cfg must be that of the model, {side}, got {size!r}")
    squash = way == "squash"
    return CLIPImageProcessorPil(
        resample=RESAMPLE[resample],
        size={"height": side, "width": side} if squash else {"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_center_crop=not squash,
        image_mean=settings.get("mean", list(OPENAI_CLIP_MEAN)),
        image_std=settings.get("std", list(OPENAI_CLIP_STD)),
    )
