"""Check the arguments that many functions share, before any work.

Exports `check_count`, `check_number` and `shorten`.
"""

import math
from numbers import Integral, Real


def check_count(name: str, value: int, fewest: int = 1, most: int | None = None) -> None:
    """Raise a ValueError unless the value is a whole number of at least `fewest`, and at most `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < fewest:
        raise ValueError(f"{name} must be a whole number of at least {fewest}, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {value!r}")


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
