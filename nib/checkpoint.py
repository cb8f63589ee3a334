"""Read a model from a hub id, a folder or a file, or say what is wrong with it."""

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import cached_file

from nib import DATA
from nib.checks import check_flag
from nib.clip import HookedCLIP
from nib.families import FAMILIES, UNUSED
from nib.hub import find_model
from nib.open_clip import CONFIG, WEIGHTS, read_open_clip

EMBEDDED = DATA / "mini_clip"


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
    is_file = Path(source).is_file()
    processor = None if processor is None else find_model(processor)
    if processor is not None and Path(processor).is_file():
        raise ValueError(f"processor must be a hub id or a folder, got the file {processor!r}")
    config = None if is_file else _find(source, "config.json")
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
    tokenizer, quiet = None, processor is not None
    if not is_file:
        tokenizer = _load_or_none(AutoTokenizer, source, quiet, "tokenizer.json", "vocab.json")
        if image_processor is None:
            image_processor = _load_or_none(
                AutoImageProcessor, source, quiet, "preprocessor_config.json", backend="pil"
            )
    if processor is not None:
        try:
            with _reading(processor):
                tokenizer = tokenizer or AutoTokenizer.from_pretrained(processor)
                image_processor = image_processor or AutoImageProcessor.from_pretrained(processor, backend="pil")
        except ValueError as error:
            lacking = "image processor" if tokenizer else "tokenizer"
            raise ValueError(f"processor {processor!r} holds no {lacking} that can be read: {error}") from error
    elif is_file:
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
    """Return the path of a file of a folder or hub id, or None where it has no such file."""
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
BROKEN = (OSError, EOFError, LookupError, TypeError, AttributeError, ZeroDivisionError, RuntimeError, ImportError)
BROKEN += (pickle.UnpicklingError, SafetensorError, StrictDataclassError)


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except BROKEN as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if isinstance(error, pickle.UnpicklingError):
            reason = "weights must be a state dict of tensors, as model.state_dict() gives, and are another object"
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
    kinds = "model.safetensors", "pytorch_model.bin"
    if all((Path(source) / kind).exists() for kind in kinds):
        warnings.warn(f"{source!r} holds two kinds of weights: {kinds[0]} is read, {kinds[1]} is not", stacklevel=3)
    options = dict(dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    model, found = AutoModel.from_pretrained(source, **options)
    _check_kinds(source, model)
    extra = [key for key in found["unexpected_keys"] if not key.startswith(UNUSED)]
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
        with safe_open(path, "pt") as file:
            kinds |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    for path in [] if kinds else folder.glob("pytorch_model*.bin"):
        state = torch.load(path, map_location="meta", weights_only=True)
        if nested := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
            raise ValueError(f"{path} must hold tensors by name, as model.state_dict() gives, got {nested[:3]}")
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


def _load_or_none(loader, source: str, quiet: bool, *files: str, **options):
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
