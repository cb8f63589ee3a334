"""Check the arguments that many functions share, before any work.

Exports `check_count`, `check_seed`, `check_number`, `check_flag`, `check_dense`, `to_floats`, `to_real`,
`name_place` and `shorten`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch

from nib import limits

LARGEST = 1e30  # of a parameter: float32 ends at 3e38


def check_count(name: str, value: int, fewest: int = 1, limit: str | None = None) -> None:
    """Raise a ValueError unless the value is a whole number, at least `fewest` and within a limit of `nib.limits`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < fewest:
        raise ValueError(f"{name} must be a whole number of at least {fewest}, got {value!r}")
    if limit is not None and value > (most := getattr(limits, limit)):
        raise ValueError(f"{name} must be at most {most:,}, got {value!r}: raise nib.limits.{limit} if it is meant")


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
    """Raise a ValueError unless the value is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {shorten(value)}")


def check_dense(what: str, values: torch.Tensor) -> None:
    """Refuse a tensor that holds no numbers in rows and columns."""
    if values.layout != torch.strided or values.is_meta or values.is_quantized or values.is_nested:
        raise ValueError(f"{what} must be a dense tensor, got one that is sparse, quantised, nested or on meta")


def to_floats(name: str, values) -> np.ndarray:
    """Return numbers as a float64 array; a ValueError refuses what hides some of them or has an imaginary part."""
    if isinstance(values, torch.Tensor):
        values = to_real(name, values).detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: fill it, or leave out what is masked")
    try:
        complex_ones = np.iscomplexobj(values)
        found = np.asarray(values) if complex_ones else np.asarray(values, float)
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
        values = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be numbers, got {type(values).__name__}: {shorten(values)}") from error
    check_dense(name, values)
    if values.is_complex():
        raise ValueError(f"{name} must be real numbers, got {values.dtype}")
    return values


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
