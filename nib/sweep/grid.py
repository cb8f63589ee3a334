"""Read a grid of notebook parameters, and refuse it before any run if anything in it is wrong.

Exports `read_grid` and `Grid`. A grid is YAML:

    name: beta                              # of the folder of results; default: the file's name
    notebook: ../07_beta_sensitivity.ipynb  # relative to this file
    parameters: {n_pairs: 100}              # the same in each run
    axes:                                   # every combination is a run
      beta: [0.01, 0.1, 1]
      zip: {dataset: [scenes, aerial], layer: [9, 10]}   # these go together; several groups: a list of mappings
      shard: {of: 4}                        # shard = [0, 4], [1, 4], [2, 4], [3, 4]
"""

import ast
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill

from nib.sweep.runs import RESERVED, Run, name_run, read_edition
from nib.sweep.source import Source

KEYS = ("name", "notebook", "parameters", "axes")


@dataclass(frozen=True)
class Grid:
    """A checked grid: its name, its notebook, the parameters that differ between runs, and the runs in order."""

    name: str
    notebook: Path
    axes: tuple[str, ...]
    runs: tuple[Run, ...]


def read_grid(path: str | Path) -> Grid:
    """Read a grid and name its runs.

    Args:
        path: the YAML file; its notebook is found relative to it.

    Raises:
        FileNotFoundError: no such grid.
        ValueError: anything else that is wrong, with file, line and key, and what the notebook declares.
    """
    source = Source(Path(path))
    for key in source.values:
        if key not in KEYS:
            raise source.error((key,), f"must be one of {', '.join(KEYS)}")
    name = source.values.get("name", source.path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise source.error(("name",), f"must name a folder (letters, digits, '_', '-', '.'), got {name!r}")
    notebook = _find_notebook(source)
    checks = _Checks(source, notebook)
    fixed = source.get_mapping("parameters")
    fixed = {key: checks.check(("parameters", key), key, value) for key, value in fixed.items()}
    axes = [checks.read_group(keys, group) for keys, group in _list_groups(source)]
    _check_set_once(source, fixed, axes)
    edition = read_edition(notebook)
    runs = []
    for parts in itertools.product(*axes):
        given = fixed | {key: value for part in parts for key, value in part.items()}
        settings = {key: value for key, value in (checks.declared | given).items() if key not in RESERVED}
        runs.append(Run(name_run(settings, edition), name, str(notebook), given, settings, edition))
    return Grid(name, notebook, tuple(key for axis in axes for key in axis[0]), tuple(runs))


def _find_notebook(source: Source) -> Path:
    name = source.values.get("notebook")
    if not isinstance(name, str):
        raise source.error(("notebook",), f"must be the path of a notebook, got {name!r}")
    notebook = (source.path.parent / name).resolve()
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        raise source.error(("notebook",), f"no notebook at {notebook}")
    return notebook


def _list_groups(source: Source) -> list[tuple[tuple, Any]]:
    """Give the axes as groups of lists that go together, each with its place in the file; most hold one list."""
    groups = []
    for key, value in source.get_mapping("axes").items():
        if key != "zip":
            groups.append((("axes",), {key: value}))
        elif isinstance(value, list):
            groups += [(("axes", "zip", index), group) for index, group in enumerate(value)]
        else:
            groups.append((("axes", "zip"), value))
    return groups


def _check_set_once(source: Source, fixed: dict, axes: list[list[dict]]) -> None:
    seen = dict.fromkeys(fixed, "parameters")
    for parameter in (parameter for axis in axes for parameter in axis[0]):
        if parameter in seen:
            raise source.error(("axes",), f"{parameter} is set by {seen[parameter]} too")
        seen[parameter] = "another axis"


class _Checks:
    """What a notebook declares, against which the values of a grid are checked."""

    def __init__(self, source: Source, notebook: Path):
        self.source, self.notebook = source, notebook
        inspected = papermill.inspect_notebook(str(notebook))
        self.declared = {name: _parse(parameter["default"]) for name, parameter in inspected.items()}
        for parameter in RESERVED:
            if parameter not in self.declared:
                raise source.error(("notebook",), f"{notebook.name} must declare {parameter}, which a sweep sets")

    def read_group(self, keys: tuple, group: Any) -> list[dict[str, Any]]:
        """Turn lists that go together into one mapping of parameters each."""
        if not isinstance(group, dict) or not group:
            raise self.source.error(keys, f"must be a mapping of parameters to lists, got {group!r}")
        columns = {key: self._read_values((*keys, key), key, values) for key, values in group.items()}
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise self.source.error(keys, f"lists that go together must be equally long, got {lengths}")
        settings = [dict(zip(columns, row)) for row in zip(*columns.values())]
        texts = [json.dumps(setting) for setting in settings]
        if twice := sorted({text for text in texts if texts.count(text) > 1}):
            raise self.source.error((*keys, next(iter(columns))), f"is given twice: {', '.join(twice)}")
        return settings

    def _read_values(self, keys: tuple, parameter: str, values: Any) -> list:
        if parameter == "shard" and isinstance(values, dict):
            n = values.get("of")
            if list(values) != ["of"] or type(n) is not int or n < 1:
                raise self.source.error(keys, f"must be {{of: n}} with n at least 1, got {values!r}")
            values = [[i, n] for i in range(n)]
        if not isinstance(values, list) or not values:
            raise self.source.error(keys, f"must be a list of at least one value, got {values!r}")
        return [self.check(keys, parameter, value) for value in values]

    def check(self, keys: tuple, parameter: str, value: Any) -> Any:
        """Give a value as the notebook will get it, or say why it cannot."""
        if parameter in RESERVED:
            raise self.source.error(keys, f"is set by the sweep: each run has its own {parameter}")
        if parameter not in self.declared:
            names = ", ".join(name for name in self.declared if name not in RESERVED)
            raise self.source.error(keys, f"{self.notebook.name} does not declare {parameter}; it declares {names}")
        default = self.declared[parameter]
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if not _is_json(value):
            raise self.source.error(keys, f"must be numbers, text, lists and mappings from text, got {value!r}")
        if not (default is None or isinstance(default, _Code) or type(value) is type(default)):
            declares = f"{self.notebook.name} declares {parameter} = {default!r} ({type(default).__name__})"
            raise self.source.error(keys, f"{declares}, got {value!r} ({type(value).__name__})")
        return value


class _Code(str):
    """A default that is no literal: any value will do in its place."""


def _parse(default: str) -> Any:
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return _Code(default)
    return value if _is_json(value) else _Code(default)


def _is_json(value: Any) -> bool:
    """Tell whether a value comes back from JSON as it was: dates do not, nor mappings from numbers, nor NaN."""
    try:
        return json.loads(json.dumps(value)) == value
    except TypeError:
        return False
