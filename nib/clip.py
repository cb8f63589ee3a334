"""Load a CLIP model and open it for attribution.

Exports `load`, `HookedCLIP` and `check_clip`. What differs between model families is in `nib.families`.
"""

import json
import math
import pickle
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, PretrainedConfig
from transformers.utils import cached_file

from nib import DATA
from nib.checks import check_flag
from nib.families import FAMILIES, build_towers
from nib.hub import find_model
from nib.open_clip import CONFIG, WEIGHTS, read_open_clip
from nib.shapes import PixelValues

EMBEDDED = DATA / "mini_clip"
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()  # one a model, however often it is opened


class HookedCLIP:
    """A frozen CLIP with an image tower and a text tower that can be cut at any block.

    Attributes:
        model: the transformers model, in eval mode, parameters frozen.
        tokenizer: or None where the model came without; then only token ids are understood.
        image_processor: or None where the model came without; then only pixel values are understood.
        image, text: the two `Tower`s.
        lock: held while a method runs: several threads may share a model, and take turns. See `ready`.
    """

    def __init__(self, model: nn.Module, tokenizer=None, image_processor=None):
        if not isinstance(getattr(model, "config", None), PretrainedConfig):
            raise TypeError(f"model must be a transformers model, which has a config, got {type(model).__name__}")
        _check_processor(image_processor)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image, self.text = build_towers(model, tokenizer)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("image", "text")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.image, self.text = build_towers(self.model, self.tokenizer)  # a copy's are of its own model

    @property
    def lock(self) -> threading.RLock:
        return _LOCKS.setdefault(self.model, threading.RLock())

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Hold the model's lock, and keep out what is set around a call: dropout, autocast and forbidden gradients."""
        with self.lock:
            training = [module for module in self.model.modules() if module.training]
            self.model.eval()
            try:
                with torch.inference_mode(False), torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
                    yield
            finally:
                for module in training:
                    module.training = True

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


def check_clip(clip: HookedCLIP) -> None:
    """Raise a TypeError for what is no `HookedCLIP`, such as a name or a model of transformers."""
    if not isinstance(clip, HookedCLIP):
        raise TypeError(f"clip must be what nib.load or nib.HookedCLIP gives, got {type(clip).__name__}")


def _check_processor(processor) -> None:
    """Raise a ValueError where an image processor would make nothing of a picture, or turn its colours round."""
    for name, flag in (("image_mean", "do_normalize"), ("image_std", "do_normalize")):
        values = getattr(processor, name, None)
        values = list(values) if isinstance(values, Iterable) else [values] * 3
        least = 0 if name == "image_std" else -math.inf
        fits = all(isinstance(value, Real) and least < value < math.inf for value in values) and len(values) == 3
        if getattr(processor, flag, False) and not fits:
            raise ValueError(f"{name} of the image processor must be 3 finite numbers, stds above 0, got {values}")
    for name, flag in (("size", "do_resize"), ("crop_size", "do_center_crop")):
        sides = getattr(processor, name, None)
        sides = [side for side in dict(sides).values() if side is not None] if isinstance(sides, Iterable) else []
        if getattr(processor, flag, False) and not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise ValueError(f"{name} of the image processor must be whole numbers of at least 1, got {sides}")


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
        quick_gelu: the activation of open_clip's weights; see `nib.open_clip.read_open_clip`.

    Raises:
        FileNotFoundError: neither such a folder or file nor a hub id that can be had.
        TypeError: a name that is neither a str nor a path.
        ValueError: a model family that is not in `nib.families.FAMILIES`, a config or weights that cannot be read, do
            not fit or are not finite, a tokenizer of another model, a dtype that is no floating-point type of at least
            16 bits, or a device that is not there.
    """
    dtype, device = _parse_dtype(dtype), _parse_device(device)
    check_flag("strict", strict)
    if quick_gelu is not None:
        check_flag("quick_gelu", quick_gelu)
    source = find_model(EMBEDDED if name is None else name)
    processor = None if processor is None else find_model(processor)
    if processor is not None and Path(processor).is_file():
        raise ValueError(f"processor must be a hub id or a folder, got the file {processor!r}")
    config = None if Path(source).is_file() else _find(source, "config.json")
    if config is not None and quick_gelu is not None:
        raise ValueError(f"quick_gelu is for weights of open_clip, and the config of {source!r} says its activation")
    with torch.inference_mode(False):  # weights that were made inside could not be differentiated through
        with _reading(source):
            if config is None:
                model, image_processor = _read_open_clip(source, quick_gelu)
            else:
                model, image_processor = _read_transformers(source, dtype, strict), None
        model = model.to(device, dtype)
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
        with _reading(processor):
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(processor)
            image_processor = image_processor or AutoImageProcessor.from_pretrained(processor, backend="pil")
    elif tokenizer is None and Path(source).is_file():
        warnings.warn(
            f"{source!r} has no tokenizer: pass processor=, or only token ids will be understood", stacklevel=2
        )
    clip = HookedCLIP(model, tokenizer, image_processor)
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


# What transformers, safetensors and torch raise of a config or weights that are broken, beside a ValueError.
BROKEN = (OSError, EOFError, LookupError, TypeError, AttributeError, ZeroDivisionError, RuntimeError)
BROKEN += (pickle.UnpicklingError, SafetensorError, StrictDataclassError)


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Say of which model the files cannot be read, and why."""
    try:
        yield
    except FileNotFoundError:
        raise
    except BROKEN as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"the files of {source!r} are broken, or of no model that can be had: {reason}") from error


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
    options = dict(dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    model, found = AutoModel.from_pretrained(source, **options)
    _check_kinds(source, model)
    extra = [key for key in found["unexpected_keys"] if not key.startswith("decoder.")]  # CLIPSeg's is not used
    wrong = {"missing": found["missing_keys"], "not of this model": extra, "of another shape": found["mismatched_keys"]}
    if any(wrong.values()):
        named = "; ".join(f"{what}: {', '.join(map(str, sorted(keys)[:5]))}" for what, keys in wrong.items() if keys)
        message = f"the weights of {source!r} do not fit the model: {named}"
        if strict:
            raise ValueError(f"{message}. With strict=False what is missing is random")
        warnings.warn(message, stacklevel=3)
    return model


def _check_kinds(source: str, model: nn.Module) -> None:
    """Raise a ValueError where a stored weight is no floating-point number: casting it would make another model."""
    folder = Path(source) if Path(source).is_dir() else Path(cached_file(source, "config.json")).parent
    kinds: dict[str, str] = {}
    for path in folder.glob("model*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        kinds |= {name: entry["dtype"] for name, entry in header.items() if "dtype" in entry}
    for path in [] if kinds else folder.glob("pytorch_model*.bin"):
        state = torch.load(path, map_location="meta", weights_only=True)
        kinds |= {name: "F" if value.is_floating_point() else str(value.dtype) for name, value in state.items()}
    weights = {name for name, _ in model.named_parameters()}
    if wrong := [f"{name} {kind}" for name, kind in kinds.items() if name in weights and "F" not in kind]:
        raise ValueError(f"the weights of {source!r} must be floating-point numbers, got {', '.join(wrong[:3])}")


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
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point or torch.finfo(parsed).bits < 16:
        raise ValueError(f"dtype must be a floating-point torch dtype such as 'float32' or 'bfloat16', got {dtype!r}")
    return parsed


def _parse_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device must be one that is there, got {device!r}: {str(error).splitlines()[0]}") from error
    if found.type == "meta":
        raise ValueError(f"device must be one that computes, got {device!r}")
    return found


def _load_or_none(loader, source: str, *files: str, quiet: bool = False, **options):
    """Load a processor; a model without one still loads, and says what it then understands."""
    folder = Path(source)
    if not folder.is_dir() or any((folder / file).exists() for file in files):
        try:
            return loader.from_pretrained(source, **options)
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            warnings.warn(f"{loader.__name__} cannot read {source!r}: {error}", stacklevel=3)
    if quiet:
        return None
    kind, inputs = ("tokenizer", "token ids") if loader is AutoTokenizer else ("image processor", "pixel values")
    warnings.warn(f"{source!r} has no {kind} ({' or '.join(files)}): only {inputs} will be understood", stacklevel=3)
    return None
