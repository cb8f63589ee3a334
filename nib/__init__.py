"""Narrowing Information Bottleneck attribution for CLIP. Names and submodules load when they are first used."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# Threads of OpenMP spin while they wait, on cores that others need. With three processes on two cores a call took up to
# 5.3 s, with this 0.15 s; with one, 0.025 and 0.027 s ("passive": 0.08 and 0.043 s). It is the count that libgomp takes
# where it knows that threads outnumber cores. It acts only where torch is not loaded yet.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

DATA = Path(__file__).with_name("data")  # the embedded model and scenes, in an installed package
if not DATA.is_dir():  # in a checkout
    DATA = Path(__file__).parents[1] / "data"

_MODULES = {
    "METHODS": "methods",
    "PRESETS": "methods",
    "Scores": "methods",
    "Attribution": "result",
    "Interactions": "interaction",
    "HookedCLIP": "clip",
    "attribute": "attribution",
    "evaluate": "evaluation",
    "interactions": "interaction",
    "load": "checkpoint",
    "save_figure": "plotting",
    "save_table": "files",
}
__version__ = "0.1.0"
__all__ = [*_MODULES, "datasets", "metrics"]


def __getattr__(name: str):
    if name in _MODULES:
        return globals().setdefault(name, getattr(import_module(f"nib.{_MODULES[name]}"), name))
    if name.startswith("_") or find_spec(f"nib.{name}") is None:
        raise AttributeError(f"module 'nib' has no attribute {name!r}")
    return import_module(f"nib.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
