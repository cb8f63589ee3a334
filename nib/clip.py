"""Open a CLIP model for attribution."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from numbers import Integral, Real
from operator import attrgetter
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PretrainedConfig

from nib.checks import is_changed
from nib.families import build_towers
from nib.shapes import PixelValues

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()  # one a model, however often it is opened


class HookedCLIP:
    """A frozen CLIP with an image tower and a text tower that can be cut at any block.

        clip = nib.HookedCLIP(model, processor.tokenizer, processor.image_processor)

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
        for name, given, is_tokenizer in (("tokenizer", tokenizer, True), ("image_processor", image_processor, False)):
            if given is not None and not (callable(given) and hasattr(given, "convert_ids_to_tokens") == is_tokenizer):
                raise TypeError(f"{name} must be the {name} of a model, or None, got {type(given).__name__}")
        if hasattr(image_processor, "image_processor"):
            kind = type(image_processor).__name__
            raise TypeError(f"image_processor must be that of the processor, processor.image_processor, got a {kind}")
        if quantised := [name for name, part in model.named_modules() if callable(getattr(part, "weight", None))]:
            raise ValueError(f"model must have weights that can be differentiated through, {quantised[0]} is quantised")
        _check_processor(image_processor)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image, self.text = build_towers(model, tokenizer)
        for name, tower in (("vision", self.image), ("text", self.text)):
            if not len(tower.blocks):
                raise ValueError(f"the {name} tower must have at least one block (num_hidden_layers), got none")

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("image", "text")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.image, self.text = build_towers(self.model, self.tokenizer)  # which refer to this model

    @property
    def lock(self) -> threading.RLock:
        return _LOCKS.setdefault(self.model, threading.RLock())

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Hold the model's lock, and keep out what is set around a call: dropout, autocast and forbidden gradients."""
        with self.lock:
            self.check_model()
            training = [module for module in self.model.modules() if module.training]
            self.model.eval()
            try:
                with torch.inference_mode(False), torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
                    yield
            finally:
                for module in training:
                    module.training = True

    def check_model(self) -> None:
        """Refuse a model that cannot run or be cut; take the towers anew where a module was replaced."""
        if torch.get_default_device().type == "meta":
            raise ValueError("torch's default device must be one that holds numbers, got meta")
        if any(weight.is_meta for weight in self.model.parameters()):
            raise ValueError("the model's weights must hold numbers, and some are on the meta device")
        if any(weight.is_inference() for weight in self.model.parameters()):
            raise ValueError("the model's weights must be made and cast outside of torch.inference_mode(), not so some")
        kinds = {weight.dtype for weight in self.model.parameters() if weight.is_floating_point() and weight.ndim}
        if len(kinds) > 1:
            found = ", ".join(sorted(map(str, kinds)))
            raise ValueError(f"the model's weights must be of one type, got {found}: cast it with model.to(dtype)")
        now = build_towers(self.model, self.tokenizer)
        parts = attrgetter("blocks", "norm", "projection", "head", "embeddings", "enter")
        pairs = [pair for old, new in zip((self.image, self.text), now) for pair in zip(parts(old), parts(new))]
        modules = [pair for pair in pairs if isinstance(pair[1], nn.Module)]
        same = (old is new or type(old) is type(new) is nn.Identity for old, new in modules)
        if not all(same) or self.text.padding_id != now[1].padding_id:
            self.image, self.text = now
        changed = ["the model"] if {"get_image_features", "get_text_features"} & set(vars(self.model)) else []
        for tower in now:
            path = next(path for path, module in tower.root.named_modules() if module is tower.blocks).split(".")
            holders = (tower.root.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1))
            if any(map(is_changed, holders)):
                changed += [name for name, part in self.model.named_children() if part is tower.root]
        if changed:
            raise ValueError(
                f"hooks and code of your own around the blocks of {changed[0]} would be left out where a tower is cut:"
                " put them on blocks, embeddings, the norm after the blocks, or the projection"
            )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def context_length(self) -> int:
        return self.text.context_length

    def grid(self, pixel_values: PixelValues) -> tuple[int, int]:
        """Count the patches of pictures of this size: (rows, columns)."""
        return self.image.grid(pixel_values)

    def layers(self, layer: int | tuple[int, int] | None, later: int = 0) -> tuple[int, int]:
        """Return the layer of each tower, from one for both, one each, or None for 3/4 of the blocks.

        `later` moves that default up by so many blocks, at most to before the last one. A ValueError refuses what is no
        layer of a tower.
        """
        pair = tuple(layer) if isinstance(layer, (tuple, list)) else (layer, layer)
        if len(pair) != 2:
            raise ValueError(f"layer must be one number or two, of image and text, got {layer!r}")
        found = []
        for tower, each in zip((self.image, self.text), pair):
            default = min(tower.default_layer + later, len(tower.blocks) - 1)
            found.append(tower.check_layer(default if each is None else each))
        return tuple(found)


def check_clip(clip: HookedCLIP) -> None:
    """Raise a TypeError for what is no `HookedCLIP`, such as a name, and a ValueError for one that cannot run."""
    if not isinstance(clip, HookedCLIP):
        raise TypeError(f"clip must be what nib.load or nib.HookedCLIP gives, got {type(clip).__name__}")
    clip.check_model()


def run_ready(function: Callable) -> Callable:
    """Wrap a function of a `HookedCLIP` and more so that it runs while the model is `ready`."""

    @wraps(function)
    def run(clip, *args, **kwargs):
        if not hasattr(clip, "image"):  # what only embeds, and has no model, may do without
            check_clip(clip)
        with clip.ready() if isinstance(clip, HookedCLIP) else nullcontext():
            return function(clip, *args, **kwargs)

    return run


def _check_processor(processor) -> None:
    """Raise a ValueError where an image processor would make nothing of a picture, or turn its colours round."""
    for name, least in (("image_mean", -math.inf), ("image_std", 0)):
        values = getattr(processor, name, None)
        values = list(values) if isinstance(values, Iterable) else [values] * 3
        fits = all(isinstance(value, Real) and least < value < math.inf for value in values) and len(values) == 3
        if getattr(processor, "do_normalize", False) and not fits:
            raise ValueError(f"{name} of the image processor must be 3 finite numbers, stds above 0, got {values}")
    if getattr(processor, "do_rescale", False) and not 0 < processor.rescale_factor < math.inf:
        raise ValueError(f"rescale_factor of the image processor must be above 0, got {processor.rescale_factor}")
    for name, flag in (("size", "do_resize"), ("crop_size", "do_center_crop")):
        sides = getattr(processor, name, None)
        sides = [side for side in dict(sides).values() if side is not None] if isinstance(sides, Iterable) else []
        if getattr(processor, flag, False) and not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise ValueError(f"{name} of the image processor must be whole numbers of at least 1, got {sides}")
