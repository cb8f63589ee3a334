"""Load a CLIP model and open it at any block.

Exports `load`, `HookedCLIP`, `Tower` and `Split`. A tower is cut once: the blocks before the cut
run without gradients, the rest is a function of the hidden states. Nothing of transformers'
forwards is written again: the blocks are called with the very arguments that they get in a real
forward pass, which a hook captures and which stops there. Only the last block is run in a shorter
form of our own, where that gives the same; see `nib.last_block`.
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

from nib import last_block
from nib.folders import find_data
from nib.shapes import AttentionMask, Embeds, HiddenStates, InputIds, PixelValues

EMBEDDED = find_data() / "mini_clip"
FAMILIES = {"clip": CLIPModel}


@dataclass
class Split:
    """A tower cut before block `layer`, for one batch of inputs.

    Call it with hidden states to get embeddings. Their rows may be any multiple of the batch,
    step-major: row s * batch + b belongs to input b.

    Attributes:
        hidden_states: (batch, tokens, width), what enters block `layer`, without gradient.
        pool_index: (batch,), the token that the tower pools.
        tower: the tower that was cut.
        layer: how many blocks ran before the cut.
        arguments: what a block receives beside hidden states, masks among it.
    """

    hidden_states: HiddenStates
    pool_index: Tensor
    tower: "Tower"
    layer: int
    arguments: tuple[tuple, dict[str, Any]]

    def __len__(self) -> int:
        return len(self.hidden_states)

    def __getitem__(self, rows: slice) -> "Split":
        """Cut some inputs out of the batch."""
        args, kwargs = self.arguments

        def select(value):
            return value[rows] if self._is_batched(value) else value

        chosen = tuple(map(select, args)), {name: select(value) for name, value in kwargs.items()}
        return Split(self.hidden_states[rows], self.pool_index[rows], self.tower, self.layer, chosen)

    def __call__(self, hidden_states: HiddenStates) -> Embeds:
        """Run the rest of the tower: (steps * batch, tokens, width) -> (steps * batch, embed)."""
        steps, remainder = divmod(len(hidden_states), len(self))
        if remainder or not steps or hidden_states.shape[1:] != self.hidden_states.shape[1:]:
            raise ValueError(
                f"hidden_states must have shape (k * {len(self)}, {', '.join(map(str, self.hidden_states.shape[1:]))}),"
                f" got {tuple(hidden_states.shape)}"
            )
        args, kwargs = self.arguments

        def repeat(value):
            return value.repeat(steps, *[1] * (value.ndim - 1)) if self._is_batched(value) else value

        args, kwargs = tuple(map(repeat, args)), {name: repeat(value) for name, value in kwargs.items()}
        pool_index = self.pool_index.repeat(steps)
        *blocks, last = self.tower.blocks[self.layer :] or [None]
        for block in blocks:
            hidden_states = block(hidden_states, *args, **kwargs)  # (steps * batch, tokens, width)
        if last is not None and last_block.fits(last):
            pooled = last_block.run_pooled(last, hidden_states, pool_index, *args, **kwargs)  # (steps * batch, width)
        else:
            hidden_states = last(hidden_states, *args, **kwargs) if last is not None else hidden_states
            pooled = hidden_states[torch.arange(len(pool_index), device=pool_index.device), pool_index]
        return self.tower.projection(self.tower.norm(pooled))

    def _is_batched(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 1 and len(value) == len(self)


class _Stop(Exception):
    """Ends a forward pass at the block whose arguments are wanted."""


@dataclass
class Tower:
    """One encoder of the model, image or text.

    Attributes:
        encode: the model's own function from inputs to its output object.
        blocks: the transformer blocks.
        norm: the layer norm between the last block and the projection.
        projection: from the tower's width to the shared space.
        pool: from the inputs to the index of the pooled token, (batch,).
    """

    encode: Callable
    blocks: nn.ModuleList
    norm: nn.Module
    projection: nn.Module
    pool: Callable

    def embed(self, inputs: Tensor, attention_mask: AttentionMask | None = None) -> Embeds:
        """Run the whole tower as transformers does: (batch, embed), not normalised."""
        return self.encode(inputs, attention_mask).pooler_output

    @torch.no_grad()
    def split(self, inputs: PixelValues | InputIds, layer: int, attention_mask: AttentionMask | None = None) -> Split:
        """Run the first `layer` blocks and return the rest as a function.

        Args:
            inputs: pixel values or token ids.
            layer: blocks run before the cut, from 0 to the number of blocks. (For NIB the paper's
                "layer 9" is 9 here; what the released code calls layer 9 for M2IB and Grad-CAM is 10.)
            attention_mask: for text, 1 at tokens and 0 at padding.

        Raises:
            ValueError: `layer` is out of range.
        """
        self.check_layer(layer)
        last = min(layer, len(self.blocks) - 1)
        with self._capture(self.blocks[last]) as captured:
            self.encode(inputs, attention_mask)
        (hidden_states, *args), kwargs = captured["args"], captured["kwargs"]
        if layer == len(self.blocks):
            hidden_states = self.blocks[last](hidden_states, *args, **kwargs)
        pool_index = self.pool(inputs)
        return Split(hidden_states, pool_index, self, layer, (tuple(args), kwargs))

    def check_layer(self, layer: int) -> None:
        """Raise a ValueError unless the tower can be cut before block `layer`."""
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer <= len(self.blocks):
            raise ValueError(f"layer must be a whole number from 0 to {len(self.blocks)}, got {layer!r}")

    @staticmethod
    @contextmanager
    def _capture(block: nn.Module):
        """Catch the arguments of the first call of `block` and stop the forward pass there."""
        captured: dict[str, Any] = {}

        def hook(module, args, kwargs):
            hidden_states = (kwargs.pop("hidden_states"),) if not args else ()
            captured.update(args=(*hidden_states, *args), kwargs=kwargs)
            raise _Stop

        handle = block.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield captured
        except _Stop:
            pass
        finally:
            handle.remove()


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
        vision, text = model.vision_model, model.text_model
        self.image = Tower(
            self._encode_images, vision.encoder.layers, vision.post_layernorm, model.visual_projection,
            lambda pixel_values: torch.zeros(len(pixel_values), dtype=torch.long, device=pixel_values.device),
        )  # fmt: skip
        self.text = Tower(
            self._encode_texts, text.encoder.layers, text.final_layer_norm, model.text_projection, self._end_index
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def image_size(self) -> int:
        return self.model.config.vision_config.image_size

    @property
    def context_length(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def grid(self, pixel_values: PixelValues) -> tuple[int, int]:
        """Count the patches of pictures of this size: (rows, columns)."""
        patch = self.model.config.vision_config.patch_size
        return pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch

    def _encode_images(self, pixel_values, attention_mask=None):
        other_size = tuple(pixel_values.shape[-2:]) != (self.image_size, self.image_size)
        return self.model.get_image_features(pixel_values=pixel_values, interpolate_pos_encoding=other_size)

    def _encode_texts(self, input_ids, attention_mask=None):
        return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)

    def _end_index(self, input_ids: InputIds) -> Tensor:
        # The hub's CLIP configs say 2, which no tokenizer uses: those models pool at the largest id.
        end = self.model.config.text_config.eos_token_id
        return (input_ids if end == 2 else (input_ids == end).int()).argmax(-1)


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
        ValueError: a model family other than CLIP, or a dtype that is no floating-point type.
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
    model = FAMILIES[config.model_type].from_pretrained(source, dtype=dtype).to(device)
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
