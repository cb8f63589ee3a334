"""Load a CLIP model and open it for attribution.

Exports `load` and `HookedCLIP`. What differs between model families is in `nib.towers`.
"""

import warnings
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from nib import DATA
from nib.shapes import PixelValues
from nib.towers import FAMILIES, build_towers

EMBEDDED = DATA / "mini_clip"


class HookedCLIP:
    """A frozen CLIP with an image tower and a text tower that can be cut at any block.

    Attributes:
        model: the transformers model, in eval mode, parameters frozen.
        tokenizer: or None where the model came without; then only token ids are understood.
        image_processor: or None where the model came without; then only pixel values are understood.
        image, text: the two `Tower`s.
    """

    def __init__(self, model: nn.Module, tokenizer=None, image_processor=None):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image, self.text = build_towers(model)

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

    def layers(self, layer: int | tuple[int, int] | None) -> tuple[int, int]:
        """Return the layer of each tower, from one for both, one each, or None for 3/4 of the blocks.

        Raises:
            ValueError: a tower has no such layer, or not two were given.
        """
        pair = tuple(layer) if isinstance(layer, (tuple, list)) else (layer, layer)
        if len(pair) != 2:
            raise ValueError(f"layer must be one number or two, of image and text, got {layer!r}")
        return tuple(tower.check_layer(each) for tower, each in zip((self.image, self.text), pair))


def load(
    name: str | Path | None = None, device: str | torch.device | None = "cpu", dtype: str | torch.dtype = "float32"
) -> HookedCLIP:
    """Load a model for attribution.

    Args:
        name: a hub id, a folder written by `save_pretrained`, or None for the embedded model.
        device: where it runs; None for the GPU where there is one.
        dtype: a floating-point torch dtype or its name, whatever the checkpoint was stored in.

    Raises:
        FileNotFoundError: neither a folder with a config.json nor a hub id that can be had.
        ValueError: a model family that is not in `nib.towers.FAMILIES`, or a dtype that is no floating-point type.
    """
    dtype = _parse_dtype(dtype)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = str(EMBEDDED if name is None else name)
    try:
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            raise FileNotFoundError("the folder holds no config.json")
        config = AutoConfig.from_pretrained(source)
    except OSError as error:
        raise FileNotFoundError(
            f"no model at {source!r}: it is neither a folder that holds a config.json nor a hub id that can be"
            " reached or is in the cache (offline, download it first with `hf download`)"
        ) from error
    if config.model_type not in FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {config.model_type!r} in {source!r}")
    model = AutoModel.from_pretrained(source, dtype=dtype).to(device)
    tokenizer = _load_or_none(AutoTokenizer, source, "tokenizer.json", "vocab.json")
    image_processor = _load_or_none(AutoImageProcessor, source, "preprocessor_config.json", backend="pil")
    return HookedCLIP(model, tokenizer, image_processor)


def _parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch dtype such as 'float32' or 'bfloat16', got {dtype!r}")
    return parsed


def _load_or_none(loader, source: str, *files: str, **options):
    """Load a processor; a model without one still loads, and says what it then understands."""
    folder = Path(source)
    if not folder.is_dir() or any((folder / file).exists() for file in files):
        try:
            return loader.from_pretrained(source, **options)
        except (OSError, ValueError) as error:
            warnings.warn(f"{loader.__name__} cannot read {source!r}: {error}", stacklevel=3)
    kind, inputs = ("tokenizer", "token ids") if loader is AutoTokenizer else ("image processor", "pixel values")
    warnings.warn(f"{source!r} has no {kind} ({' or '.join(files)}): only {inputs} will be understood", stacklevel=3)
    return None
