"""Narrowing Information Bottleneck attribution for CLIP, and what it is measured against.

Public names and submodules load when they are first used (PEP 562).
"""

from importlib import import_module
from importlib.util import find_spec

_HOMES = {
    "METHODS": "nib.methods",
    "PRESETS": "nib.methods",
    "Attribution": "nib.result",
    "HookedCLIP": "nib.clip",
    "Scores": "nib.methods",
    "attribute": "nib.attribution",
    "evaluate": "nib.evaluation",
    "load": "nib.clip",
    "save_figure": "nib.plotting",
    "save_table": "nib.evaluation",
}
__version__ = "0.1.0"
__all__ = [*_HOMES, "datasets", "metrics"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_") and find_spec(f"nib.{name}"):
        return import_module(f"nib.{name}")
    raise AttributeError(f"module 'nib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
