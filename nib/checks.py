"""Check the arguments that many functions share, before any work.

Exports `check_count`, `check_number` and `shorten`.
"""

import math
from numbers import Integral, Real

from nib import limits


def check_count(name: str, value: int, fewest: int = 1, limit: str | None = None) -> None:
    """Raise a ValueError unless the value is a whole number, at least `fewest` and within a limit of `nib.limits`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < fewest:
        raise ValueError(f"{name} must be a whole number of at least {fewest}, got {value!r}")
    if limit is not None and value > (most := getattr(limits, limit)):
        raise ValueError(f"{name} must be at most {most:,}, got {value!r}: raise nib.limits.{limit} if it is meant")


def check_number(name: str, value: float, least: float, open_end: bool = False) -> None:
    """Raise a ValueError unless the value is a finite number of at least `least`, or more than it."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < least or (open_end and value == least):
        raise ValueError(
            f"{name} must be {'more than' if open_end else 'at least'} {least:g} and finite, got {value!r}"
        )


def shorten(value: object, most: int = 300) -> str:
    """Return how a value is written, cut to a length that an error message can show."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
