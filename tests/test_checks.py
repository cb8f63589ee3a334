"""A count that is no count is refused with its name, what it must be and what it is."""

import pytest

from nib.checks import check_count


def test_counts(subtests):
    for value in (0, -1, 2.0, "3", True, None):
        message = f"steps must be a whole number of at least 1, got {value!r}"
        with subtests.test(repr(value)), pytest.raises(ValueError, match=message):
            check_count("steps", value)
    for value, fewest in ((1, 1), (0, 0), (5, 5)):
        with subtests.test(f"{value} of {fewest}"):
            assert check_count("steps", value, fewest) is None
            with pytest.raises(ValueError, match=f"at least {fewest + 1}, got {value}"):
                check_count("steps", value, fewest + 1)
