"""Check the arguments that many functions share, before any work."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from numbers import Integral, Real

import numpy as np
import torch
from torch import nn

from nib import limits

LARGEST = 1e30  # of a parameter: float32 ends at 3e38
FURTHEST = 20.0  # of a normalised pixel from 0; black and white lie within 3


def check_count(name: str, value: int, fewest: int = 1, limit: str | None = None) -> None:
    """Raise a ValueError unless the value is a whole number, at least `fewest` and within a limit of `nib.limits`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < fewest:
        raise ValueError(f"{name} must be a whole number of at least {fewest}, got {value!r}")
    if limit is not None and value > (most := read_limit(limit)):
        raise ValueError(f"{name} must be at most {most:,}, got {value!r}: raise nib.limits.{limit} if it is meant")


def read_limit(name: str) -> float:
    """Return a limit of `nib.limits`, or raise a ValueError where it was set to what is no number."""
    if isinstance(most := getattr(limits, name), bool) or not isinstance(most, Real) or not most > 0:
        raise ValueError(f"nib.limits.{name} must be a number above 0, got {shorten(most)}")
    return most


def check_seed(seed: int) -> None:
    """Raise a ValueError unless a generator of torch takes the seed."""
    check_count("seed", seed, -(2**63))
    if seed >= 2**64:
        raise ValueError(f"seed must be less than 2**64, got {seed!r}")


def check_number(name: str, value: float, least: float, open_end: bool = False) -> float:
    """Return the value as a float, or raise a ValueError unless it is a number of at least `least`, or more than it."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not least <= value <= LARGEST or (open_end and value == least):
        largest = f", at most {LARGEST:g}" if is_number and value > LARGEST else ""
        least_said = f"{'more than' if open_end else 'at least'} {least:g}"
        raise ValueError(f"{name} must be {least_said} and finite{largest}, got {shorten(value)}")
    return float(value)


def check_flag(name: str, value: bool) -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {shorten(value)}")


def check_choice(name: str, values: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the values as a list, or raise a ValueError unless they are some of those that are known, each once."""
    is_list = isinstance(values, Iterable) and not isinstance(values, str)
    chosen = list(islice(values, len(known) + 1)) if is_list else []  # an iterator may have no end
    if not chosen or any(not isinstance(one, str) or one not in known or chosen.count(one) > 1 for one in chosen):
        raise ValueError(f"{name} must be some of {list(known)}, got {shorten(values)}")
    return chosen


def check_dense(what: str, values: torch.Tensor) -> None:
    if values.layout != torch.strided or values.is_meta or values.is_quantized or values.is_nested:
        raise ValueError(f"{what} must be a dense tensor, got one that is sparse, quantised, nested or on meta")


def check_tensor(what: str, values: torch.Tensor, ndim: int | None = None) -> None:
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{what} must be a tensor, got {type(values).__name__}: {shorten(values)}")
    check_dense(what, values)
    if ndim not in (None, values.ndim):
        raise ValueError(f"{what} must have {ndim} dimensions, got the shape {tuple(values.shape)}")


def check_finite(what: str, values: torch.Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(f"{what} must be finite, got NaN or infinity")


def check_normalised(what: str, pixel_values: torch.Tensor) -> None:
    """Refuse pixels that lie too far from 0 to be normalised."""
    if pixel_values.numel() and (furthest := float(pixel_values.abs().max())) > FURTHEST:
        raise ValueError(
            f"{what} must be normalised, within {FURTHEST:g} of 0, got up to {furthest:.4g}: pass a picture of 0"
            " to 255 as a uint8 array (height, width, 3)"
        )


def to_floats(name: str, values) -> np.ndarray:
    """Return numbers as a float64 array; a ValueError refuses what hides some of them or has an imaginary part."""
    if isinstance(values, torch.Tensor):
        values = to_real(name, values).detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: fill it, or leave out what is masked")
    try:
        complex_ones = np.iscomplexobj(values)
        raw = np.asarray(values)
        found = raw if complex_ones else np.asarray(raw, float)
        if raw.dtype.kind in "USmM" or (raw.dtype == object and any(isinstance(one, str) for one in raw.flat)):
            raise TypeError("text and dates are no numbers")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers in one shape, got {shorten(values)}") from error
    if complex_ones:
        raise ValueError(f"{name} must be real numbers, got {shorten(values)}")
    return found


def to_real(name: str, values) -> torch.Tensor:
    """Return a tensor of an array, a list or a tensor; a ValueError refuses other things and imaginary parts."""
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: fill it, or leave out what is masked")
    try:
        if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":  # in any order and precision
            kinds = {"f": np.float64, "u": np.int64} if values.dtype.itemsize > 8 or values.dtype.kind == "u" else {}
            values = np.ascontiguousarray(values, kinds.get(values.dtype.kind, values.dtype.newbyteorder("=")))
        values = torch.as_tensor(values)
        if values.dtype in (torch.uint16, torch.uint32, torch.uint64):
            values = values.long()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be numbers, got {type(values).__name__}: {shorten(values)}") from error
    check_dense(name, values)
    if values.is_complex():
        raise ValueError(f"{name} must be real numbers, got {values.dtype}")
    return values


def is_changed(module: nn.Module) -> bool:
    """Say whether a module does more than its class in torch or transformers: by hooks, or by other code."""
    if (kind := type(module)).__module__.startswith("torch._dynamo"):  # what torch.compile wraps comes after it
        return False
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    replaced = any(callable(getattr(kind, name, None)) for name in vars(module))
    of_others = kind.forward.__module__.partition(".")[0] not in ("torch", "transformers")
    return replaced or of_others or any(vars(module)[name] for name in hooks)


@contextmanager
def name_place(what: str, of: int) -> Iterator[None]:
    """Say in an error which of several things is at fault."""
    try:
        yield
    except (FileNotFoundError, TypeError, ValueError) as error:
        if of == 1:
            raise
        raise type(error)(f"{what}: {error}") from error


def shorten(value: object, most: int = 300) -> str:
    """Return how a value is written, cut to a length that an error message can show."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
