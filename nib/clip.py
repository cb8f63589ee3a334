"""Load a CLIP model and open it for attribution.

Exports `load` and `HookedCLIP`. What differs between model families is in `nib.families`.
"""

import pickle
import threading
import warnings
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import cached_file

from nib import DATA
from nib.families import FAMILIES, build_towers
from nib.hub import find_model
from nib.open_clip import CONFIG, WEIGHTS, read_open_clip
from nib.shapes import PixelValues

EMBEDDED = DATA / "mini_clip"


class HookedCLIP:
    """A frozen CLIP with an image tower and a text tower that can be cut at any block.

    Attributes:
        model: the transformers model, in eval mode, parameters frozen.
        tokenizer: or None where the model came without; then only token ids are understood.
        image_processor: or None where the model came without; then only pixel values are understood.
        image, text: the two `Tower`s.
        lock: held while a method runs: several threads may share a model, and take turns.
    """

    def __init__(self, model: nn.Module, tokenizer=None, image_processor=None):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image, self.text = build_towers(model, tokenizer)
        self.lock = threading.RLock()

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "lock"}  # a copy has its own

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"lock": threading.RLock()}

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def image_size(self) -> int:
        return self.image.image_size

    @property
    def context_length(self) -> int:
        return self.text.context_length

    def grid(self, pixel_values: PixelValues) -> tuple[int, int]:
        """Count the patches of pictures of this size: (rows, columns)."""
        return self.image.grid(pixel_values)

    def layers(self, layer: int | tuple[int, int] | None, later: int = 0) -> tuple[int, int]:
        """Return the layer of each tower, from one for both, one each, or None for 3/4 of the blocks.

        Args:
            later: blocks by which the default of a method is later than that, as far as there are such.

        Raises:
            ValueError: a tower has no such layer, or not two were given.
        """
        pair = tuple(layer) if isinstance(layer, (tuple, list)) else (layer, layer)
        if len(pair) != 2:
            raise ValueError(f"layer must be one number or two, of image and text, got {layer!r}")
        towers = self.image, self.text
        defaults = [min(tower.default_layer + later, len(tower.blocks) - 1) for tower in towers]
        pair = [default if each is None else each for each, default in zip(pair, defaults)]
        return tuple(tower.check_layer(each) for tower, each in zip(towers, pair))


def load(
    name: str | Path | None = None,
    device: str | torch.device | None = "cpu",
    dtype: str | torch.dtype = "float32",
    *,
    processor: str | Path | None = None,
    strict: bool = True,
    quick_gelu: bool | None = None,
) -> HookedCLIP:
    """Load a model for attribution.

        clip = nib.load("google/siglip2-base-patch16-224", device=None)
        clip = nib.load("RemoteCLIP-ViT-B-32.pt", processor="openai/clip-vit-base-patch32")

    Args:
        name: a hub id, a folder written by `save_pretrained`, one with an `open_clip_config.json`, a bare state dict of
            open_clip (`.pt`, `.bin` or `.safetensors`), or None for the embedded model.
        device: where it runs; None for the GPU where there is one.
        dtype: a floating-point torch dtype or its name, whatever the checkpoint was stored in.
        processor: a hub id or folder whose tokenizer and image processor serve a model that came without.
        strict: refuse a checkpoint that lacks weights of the model or has others; False warns instead, and what is
            missing is random.
        quick_gelu: the activation of a bare state dict; see `nib.open_clip.read_open_clip`.

    Raises:
        FileNotFoundError: neither such a folder or file nor a hub id that can be had.
        ValueError: a model family that is not in `nib.families.FAMILIES`, weights that do not fit or are not finite, a
            tokenizer of another model, or a dtype that is no floating-point type.
    """
    dtype = _parse_dtype(dtype)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = find_model(EMBEDDED if name is None else name)
    processor = None if processor is None else find_model(processor)
    config = None if Path(source).is_file() else _find(source, "config.json")
    if config is None:
        model, image_processor = _read_open_clip(source, quick_gelu)
    else:
        model, image_processor = _read_transformers(source, dtype, strict), None
    if broken := [key for key, value in model.named_parameters() if not value.isfinite().all()]:
        raise ValueError(f"the weights of {source!r} must be finite, got NaN or infinity in {', '.join(broken[:3])}")
    tokenizer = None
    if not Path(source).is_file():
        tokenizer = _load_or_none(AutoTokenizer, source, "tokenizer.json", "vocab.json", quiet=processor is not None)
        if image_processor is None:
            image_processor = _load_or_none(
                AutoImageProcessor, source, "preprocessor_config.json", quiet=processor is not None, backend="pil"
            )
    if processor is not None:
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(processor)
        image_processor = image_processor or AutoImageProcessor.from_pretrained(processor, backend="pil")
    elif tokenizer is None and Path(source).is_file():
        warnings.warn(
            f"{source!r} has no tokenizer: pass processor=, or only token ids will be understood", stacklevel=2
        )
    clip = HookedCLIP(model.to(device, dtype), tokenizer, image_processor)
    if tokenizer is not None and len(tokenizer) > clip.text.vocabulary:
        raise ValueError(
            f"the tokenizer and the model do not belong together: {len(tokenizer)} tokens, and the model of {source!r}"
            f" knows {clip.text.vocabulary}"
        )
    return clip


def _find(source: str, file: str) -> str | None:
    """Return the path of a file of a folder or hub id, or None where it has no such file.

    Raises:
        FileNotFoundError: the source itself cannot be had.
    """
    try:
        if Path(source).is_dir():
            path = Path(source) / file
            if not (path.exists() or (Path(source) / "config.json").exists() or (Path(source) / CONFIG).exists()):
                raise FileNotFoundError(f"the folder holds no config.json and no {CONFIG}")
            return str(path) if path.exists() else None
        return cached_file(source, file, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise FileNotFoundError(
            f"no model at {source!r}: it is neither a folder that holds a config.json nor a hub id that can be"
            " reached or is in the cache (offline, download it first with `hf download`)"
        ) from error


def _read_transformers(source: str, dtype: torch.dtype, strict: bool) -> nn.Module:
    try:
        config = AutoConfig.from_pretrained(source)
    except (ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"the config of {source!r} is of no model that transformers knows: {reason}") from error
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"model_type must be one of {sorted(FAMILIES)}, got {config.model_type!r} in {source!r}: a dual encoder of"
            " two transformers is needed (ALIGN's convolutions, fused encoders and decoders have no place to cut)"
        )
    kinds = [kind for kind in ("model.safetensors", "pytorch_model.bin") if (Path(source) / kind).exists()]
    if len(kinds) == 2:
        warnings.warn(f"{source!r} holds two kinds of weights: {kinds[0]} is read, {kinds[1]} is not", stacklevel=3)
    try:
        model, found = AutoModel.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"the weights of {source!r} must be tensors alone: {str(error).splitlines()[0]}") from error
    extra = [key for key in found["unexpected_keys"] if not key.startswith("decoder.")]  # CLIPSeg's is not used
    wrong = {"missing": found["missing_keys"], "not of this model": extra, "of another shape": found["mismatched_keys"]}
    if any(wrong.values()):
        named = "; ".join(f"{what}: {', '.join(map(str, sorted(keys)[:5]))}" for what, keys in wrong.items() if keys)
        message = f"the weights of {source!r} do not fit the model: {named}"
        if strict:
            raise ValueError(f"{message}. With strict=False what is missing is random")
        warnings.warn(message, stacklevel=3)
    return model


def _read_open_clip(source: str, quick_gelu: bool | None):
    if Path(source).is_file():
        return read_open_clip(None, Path(source), quick_gelu)
    config = _find(source, CONFIG)
    weights = next((found for file in WEIGHTS if (found := _find(source, file))), None)
    if config is None or weights is None:
        raise FileNotFoundError(
            f"no model at {source!r}: no config.json can be had there, from the hub, its cache or the folder (offline,"
            f" download it first with `hf download`), and no {CONFIG} with weights ({', '.join(WEIGHTS)}) either"
        )
    return read_open_clip(Path(config), Path(weights), quick_gelu)


def _parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch dtype such as 'float32' or 'bfloat16', got {dtype!r}")
    return parsed


def _load_or_none(loader, source: str, *files: str, quiet: bool = False, **options):
    """Load a processor; a model without one still loads, and says what it then understands."""
    folder = Path(source)
    if not folder.is_dir() or any((folder / file).exists() for file in files):
        try:
            return loader.from_pretrained(source, **options)
        except (OSError, ValueError) as error:
            warnings.warn(f"{loader.__name__} cannot read {source!r}: {error}", stacklevel=3)
    if quiet:
        return None
    kind, inputs = ("tokenizer", "token ids") if loader is AutoTokenizer else ("image processor", "pixel values")
    warnings.warn(f"{source!r} has no {kind} ({' or '.join(files)}): only {inputs} will be understood", stacklevel=3)
    return None
