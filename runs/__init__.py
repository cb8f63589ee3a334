"""Run notebooks, by a profile or by a grid of their parameters, and read what they have found: `runs.collect`."""

from runs.store import collect, locate

__all__ = ["collect", "locate"]
