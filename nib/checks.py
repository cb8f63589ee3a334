"""Check the arguments that many functions share, before any work.

Exports `check_count`.
"""


def check_count(name: str, value: int, fewest: int = 1) -> None:
    """Raise a ValueError unless the value is a whole number of at least `fewest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < fewest:
        raise ValueError(f"{name} must be a whole number of at least {fewest}, got {value!r}")
