"""A count that is no count is refused with its name, what it must be and what it is."""

import pytest

from nib.checks import check_count


def test_what_is_no_count_is_refused(subtests):
    for value in [0, -1, 2.0, "3", True, None]:
        with subtests.test(repr(value)):
            with pytest.raises(ValueError, match=f"steps must be a whole number of at least 1, got {value!r}"):
                check_count("steps", value)


def test_the_fewest_are_enough(subtests):
    for value, fewest in [(1, 1), (0, 0), (5, 5)]:
        with subtests.test(f"{value} {fewest}"):
            assert check_count("steps", value, fewest) is None
            with pytest.raises(ValueError, match=f"at least {fewest + 1}, got {value}"):
                check_count("steps", value, fewest + 1)
