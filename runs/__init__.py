"""Run notebooks, by a profile or by a grid of their parameters, and read what they have found.

python -m runs notebooks/04_quantitative.ipynb --profile paper
runs.collect("build/sweeps/beta")
"""

from runs.store import collect, locate

__all__ = ["collect", "locate"]
