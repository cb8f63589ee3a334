"""Show how far a sweep has come.

Exports `Progress`.
"""

import sys
import time
from collections import Counter
from types import TracebackType

from tqdm import tqdm

FORM = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]{postfix}"


class Progress:
    """A bar with the numbers of runs done, cached, failed and running, and the time left.

    The time left is reckoned from the runs that this driver has seen end, not from those it has found finished.
    """

    def __init__(self, total: int, cached: int):
        self.counts = Counter(done=0, cached=cached, failed=0)
        self.refreshed = 0.0
        # In a file, a line every so often is enough.
        interval = 0.5 if sys.stderr.isatty() else 30
        self.bar = tqdm(
            total=total, initial=cached, unit="run", bar_format=FORM, mininterval=interval, dynamic_ncols=True
        )
        self.show(0)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.show(0)
        self.bar.close()

    def count(self, state: str) -> None:
        """Count one run that has ended."""
        self.counts[state] += 1
        self.bar.update()

    def show(self, running: int) -> None:
        """Show the numbers."""
        text = ", ".join(f"{number} {state}" for state, number in self.counts.items())
        self.bar.set_postfix_str(f"{text}, {running} running", refresh=sys.stderr.isatty())
        self.refreshed = time.monotonic()
