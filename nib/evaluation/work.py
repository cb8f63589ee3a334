"""Measure one method on one batch of pairs, and keep what was measured.

A part is a parquet file whose name holds the hash of all that it depends on. What is there is read, not computed again.
"""

import inspect
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import nib
from nib.checks import is_changed, shorten
from nib.clip import HookedCLIP
from nib.evaluation.batches import Batch, Resolved, to_bytes
from nib.evaluation.released import attribute_text_to_batch
from nib.files import make_folder, save_table
from nib.hashes import hash_all, hash_code
from nib.methods import METHODS, PRESETS
from nib.methods.pairs import guard
from nib.methods.scores import Scores
from nib.metrics import METRICS, Case
from nib.metrics.confidence import confidence, is_constant
from nib.shapes import PairValues

# How `confidence` weighs the text under each; they differ too in what NIB's text is attributed against.
PROTOCOLS = {"paper": "paper", "released": "released", "released_own": "released"}
MADE = (ModuleType, type, FunctionType, BuiltinFunctionType, np.ufunc)  # of other modules, which are taken as they are
NO_ROWS = pd.DataFrame({"id": ["-"], "protocol": ["-"], "metric": ["-"], "value": [0.0]})[:0]  # for the types


@dataclass
class Work:
    """One method on one batch."""

    clip: HookedCLIP
    batch: Batch
    setting: Resolved
    protocols: list[str]
    metrics: list[str]

    def measure(self) -> pd.DataFrame:
        """Return columns `id`, `protocol`, `metric` and `value`; what a protocol does not touch is under each."""
        clip, batch, arguments = self.clip, self.batch, self.batch.arguments()
        _, function, parameters = self.setting
        if function is None:
            explain, scores = None, batch.true_masks(clip)  # a mask cannot be asked again
        else:

            def explain(model=clip, pixel_values=arguments[0], text=arguments[1:]):
                return function(model, pixel_values, *text, **parameters)

            scores = explain()
        case = Case(clip, arguments, scores, batch.masks, batch.other_masks, batch.absent, explain)
        if any(METRICS[name].needs == "masks" for name in self.metrics):
            batch.check_masks()
        shared = {}  # the same under every protocol
        for name, metric in METRICS.items():
            if name in self.metrics and metric.measure is not None:
                shared |= metric.read(case)
        frames, pictures = [], {}
        for protocol in self.protocols:
            values = dict(shared)
            if "confidence" in self.metrics:
                way = PROTOCOLS[protocol] if is_constant(scores.image_map).any() else "paper"  # else they are alike
                if way not in pictures:
                    pictures[way] = self.measure_side("image", scores, way)
                values |= pictures[way]
                if function is not None:
                    values |= self.measure_side("text", self.explain_text(scores, protocol), protocol)
            for metric, numbers in values.items():
                frame = dict(id=batch.ids, protocol=protocol, metric=metric, value=numbers.double().cpu().numpy())
                frames.append(pd.DataFrame(frame))
        return pd.concat(frames or [NO_ROWS], ignore_index=True)

    def measure_side(self, side: str, scores: Scores, protocol: str) -> dict[str, PairValues]:
        """Measure the confidence of one modality."""
        arguments, embeds = self.batch.arguments(), self.batch.embeds(self.clip)
        return confidence(self.clip, *arguments, scores, PROTOCOLS[protocol], sides=(side,), embeds=embeds)

    def explain_text(self, scores: Scores, protocol: str) -> Scores:
        """Return the scores; under "released" NIB's of the text are against all pictures of the batch."""
        if self.setting.given["method"] != "nib" or protocol != "released":
            return scores
        embeds, _ = self.batch.embeds(self.clip)
        text = attribute_text_to_batch(
            self.clip, *self.batch.arguments(), image_embeds=embeds, **self.setting.parameters
        )
        return replace(scores, text=text)

    def name(self, made_by: str) -> str:
        """Name the part after the method and the hash of all that its numbers depend on."""
        given = self.setting.given
        preset = PRESETS.get(given.get("preset"))  # what a name stands for may change
        depends = [made_by, given, preset, self.protocols, self.metrics, _read_own(given["method"])]
        depends += [_read_code(name, METRICS[name].measure) for name in self.metrics if METRICS[name].measure]
        return f"{given['method']}-{hash_all(describe(depends), self.batch.hash())}.parquet"


class Parts:
    """The folder of finished parts."""

    def __init__(self, folder: Path, clip: HookedCLIP):
        self.folder = folder
        make_folder(folder)
        modules = [path for path in Path(nib.__file__).parent.rglob("*.py") if path.name != "plotting.py"]
        settings = clip.model.config.to_json_string()  # models of equal weights may differ in activation or heads
        weights = map(to_bytes, [*clip.model.state_dict().values(), *clip.model.buffers()])
        self.made_by = hash_all(*weights, settings, _describe_modules(clip.model), hash_code(modules))

    def get(self, work: Work) -> pd.DataFrame:
        """Read a part, or compute and write it."""
        path = self.folder / work.name(self.made_by)
        if path.exists():
            try:
                return _read_part(path, work.batch.ids)
            except Exception as error:  # whatever readers make of a damaged file
                reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            warnings.warn(f"{path} is no part of this evaluation and is computed again: {reason}", stacklevel=3)
        frame = work.measure()
        frame.attrs["sum"] = _sum_up(frame, path.name)
        save_table(frame, path)
        return _read_part(path, work.batch.ids)


def _describe_modules(model: nn.Module) -> str:
    """Write down the numbers that modules hold beside weights, such as an eps."""
    if changed := [name or "the model" for name, module in model.named_modules() if is_changed(module)]:
        raise ValueError(
            "output must be None with hooks or code of your own on the model, which no part can be told by: they are on"
            f" {shorten(changed)}"
        )
    kept = []
    for name, module in model.named_modules():
        numbers = {key: value for key, value in vars(module).items() if isinstance(value, (int, float, tuple))}
        plain = {key: value for key, value in numbers.items() if key != "training" and not key.startswith("_")}
        kept.append((name, type(module).__name__, plain))
    return repr(kept)


def _read_own(method: str) -> str:
    """Return the code of the file of a method that is none of nib's, whose own code is hashed with its modules."""
    return _read_code(method, METHODS.get(method, guard))


def _read_code(name: str, function: Callable) -> str:
    """Return the code of the file of a function that is none of nib's."""
    home = str(Path(nib.__file__).parent)
    ours = home, str(Path(torch.__file__).parent)  # such as `torch.no_grad()` around a method
    while hasattr(function, "__wrapped__"):
        if not getattr(function, "__code__", guard.__code__).co_filename.startswith(ours):
            break
        function = function.__wrapped__
    with suppress(OSError, TypeError):
        if not getattr(function, "__closure__", True):  # what it holds of where it was made is not in its code
            if function.__code__.co_filename.startswith(home):
                return ""
            source, file = inspect.getsource(function), Path(function.__code__.co_filename)
            return source + (file.read_text() if file.is_file() else "") + _read_globals(function, set())
    raise ValueError(
        "output must be None with a method or metric that code at the top of a file does not define, or that uses what"
        f" is neither code nor numbers nor text, got {name}"
    )


def _read_globals(function: FunctionType, seen: set[str]) -> str:
    """Return what a function uses of its module: the code of functions, and values, which a notebook may set anew."""
    codes, text = [function.__code__], describe([function.__defaults__, function.__kwdefaults__])
    for code in codes:  # those of inner functions come behind
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    for name in sorted({name for code in codes for name in code.co_names} & set(function.__globals__) - seen):
        value = function.__globals__[name]
        seen.add(name)
        if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
            text += inspect.getsource(value) + _read_globals(value, seen)
        elif not isinstance(value, MADE) or getattr(value, "__module__", "") == function.__module__:
            text += f"{name} = {describe(value)}"  # raises a TypeError for what may hold anything
    return text


def _read_part(path: Path, ids: list[str]) -> pd.DataFrame:
    """Read a part; a ValueError says why it is not a whole one of these pairs."""
    kept = pd.read_parquet(path)
    if list(kept) != list(NO_ROWS) or kept["value"].dtype != float:
        raise ValueError(f"it has the columns {dict(kept.dtypes.map(str))}")
    if kept["id"].tolist() != ids * (len(kept) // len(ids)):
        raise ValueError("it is of other pairs")
    if kept.attrs.pop("sum", None) != _sum_up(kept, path.name):
        raise ValueError("its numbers are not those that were written")
    return kept


def _sum_up(part: pd.DataFrame, name: str) -> str:
    return hash_all(name, *(repr(part[name].tolist()) for name in part))


def describe(setting: Any) -> str:
    """Write a setting as text that tells it from others; a tensor is told by its numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Tensor | np.ndarray):
            return hash_all(to_bytes(torch.as_tensor(value)))
        raise TypeError(f"a parameter must be numbers, text, lists or tensors, got {type(value).__name__}")

    return json.dumps(setting, sort_keys=True, default=plain)
