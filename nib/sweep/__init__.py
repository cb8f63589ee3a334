"""Run grids of notebook parameters on one machine or on a Dask cluster, and read the results.

    python -m nib.sweep notebooks/grids/beta.yaml --workers 2
    nib.sweep.collect("build/sweeps/beta")

Exports `collect`. What runs a sweep is imported only then: papermill and Dask take their time.
"""

from nib.sweep.results import collect

__all__ = ["collect"]
