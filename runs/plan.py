"""Plan the runs of a profile or a grid, and refuse wrong parameters before any run, with their line.

A profile sets parameters of each notebook, and in `common` of all that declare them, over those that it `extends`.
"""

import ast
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import nbformat
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken

from runs.store import ROOT, Run, hash_inputs, name_run

PROFILES = ROOT / "notebooks" / "profiles"
TYPED, RESERVED = ("image", "text"), ("figures_dir", "output", "parts_dir")  # no YAML; what the runner sets
ODD = AliasToken | AnchorToken | DirectiveToken | TagToken  # make gigabytes of a few lines, or another value of `true`


def read_profile(name: str, notebooks: Sequence[Path], given: Iterable[tuple[str, str]] = ()) -> list[Run]:
    """Plan a run of each notebook with a profile's parameters, and over them those given as text."""
    runs, given, make_error = [], list(given), lambda keys, text: ValueError(f"{keys[0]}: {text}")
    for notebook in map(Notebook, dict.fromkeys(notebooks)):
        parameters = find_parameters(name, notebook)
        for key, text in given:
            typed = key in TYPED or isinstance(notebook.defaults.get(key), str)
            if (values := [value for name, value in given if name == key]) != [text] or not (typed or text.strip()):
                raise ValueError(f"{key} must have one value, got {values}")
            parameters[key] = notebook.check((key,), text if typed else _parse(f"{key}={text}", text), make_error)
        runs.append(name_run(notebook.path, parameters, notebook.fill(parameters), hash_inputs(notebook.path, True)))
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f"notebooks must differ, got two of one name and content in {[run.notebook for run in runs]}")
    return runs


def find_parameters(name: str, notebook: "Notebook", above: tuple[str, ...] = ()) -> dict:
    """Return the parameters that a profile has for a notebook; those `above` it extend it."""
    if not (path := PROFILES / f"{name}.yaml").exists() or name in above:
        known, found = sorted(p.stem for p in PROFILES.glob("*.yaml")), " extended by ".join((name, *above))
        raise ValueError(f"profile must be one of {known}, got {found!r}")
    profile, make_error = read_yaml(path)
    others = list((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if unknown := set(profile) - {"extends", "common", notebook.path.stem, *(file.stem for file in others)}:
        raise make_error((min(unknown, key=str),), "must be extends, common or the name of a notebook")
    found = find_parameters(profile["extends"], notebook, (name, *above)) if "extends" in profile else {}
    for part in ("common", notebook.path.stem):
        for key, value in (profile.get(part) or {}).items():
            if part != "common" or key in notebook.defaults:
                found[key] = notebook.check((part, key), value, make_error)
            elif not any(key in Notebook(other).defaults for other in others):
                raise make_error((part, key), "no notebook has such a parameter")
    return found


def read_grid(path: Path) -> list[Run]:
    """Plan the runs of a grid (`notebooks/grids/README.md`); a ValueError says what is wrong, with line and key."""
    grid, make_error = read_yaml(path)
    if wrong := set(grid) - {"notebook", "parameters", "axes"} or {"notebook"} - set(grid):
        raise make_error((min(wrong, key=str),), "must be one of notebook, parameters, axes; notebook must be given")
    notebook = Notebook(path.parent / grid["notebook"])
    fixed, axes = ((grid.get(key) or {}).items() for key in ("parameters", "axes"))
    fixed = {key: notebook.check(("parameters", key), value, make_error) for key, value in fixed}
    axes = [_read_axis(key, values, notebook, make_error) for key, values in axes]
    names = [*fixed, *(key for axis in axes for key in axis[0])]
    if twice := {key for key in names if names.count(key) > 1}:
        raise make_error(("axes",), f"set twice, by parameters or another axis: {', '.join(sorted(twice))}")
    if (n_runs := math.prod(map(len, axes))) > 100_000:
        raise make_error(("axes",), f"must make at most 100,000 runs, got {n_runs:,}: divide them among files")
    hashes = hash_inputs(notebook.path)
    sets = (fixed | {key: part[key] for part in parts for key in part} for parts in itertools.product(*axes))
    return [name_run(notebook.path, given, notebook.fill(given), hashes) for given in sets]


def _read_axis(axis: str, lists: object, notebook: "Notebook", make_error: Callable) -> list[dict]:
    """Turn an axis, or the lists of `zip` that go together, into one mapping of parameters each."""
    columns = {}
    for key, values in [(axis, lists)] if axis != "zip" else lists.items() if isinstance(lists, dict) else []:
        keys = ("axes", axis) if key == axis else ("axes", axis, key)
        if key == "shard":  # all of them, so that no two of a grid overlap
            fits = isinstance(values, dict) and list(values) == ["of"] and type(values["of"]) is int
            if not fits or not 1 <= values["of"] <= 100_000:
                raise make_error(keys, f"must be {{of: n}}, n at least 1, got {values!r}, and at most 100,000")
            values = [[i, values["of"]] for i in range(values["of"])]
        if not isinstance(values, list) or not values:
            raise make_error(keys, f"must be a list of at least one value, got {values!r}")
        columns[key] = [notebook.check(keys, value, make_error) for value in values]
    if len({len(values) for values in columns.values()}) != 1:
        raise make_error(("axes", axis), f"must be lists of one length, got {lists!r}: zip is a mapping of lists")
    texts = [json.dumps(dict(zip(columns, row))) for row in zip(*columns.values())]
    if len(set(texts)) < len(texts):
        raise make_error(("axes", axis), f"is given twice: {max(texts, key=texts.count)}")
    return [json.loads(text) for text in texts]


class Notebook:
    """The path of a notebook and the parameters that it declares, with their defaults."""

    def __init__(self, path: Path):
        if path.suffix != ".ipynb" or not path.is_file():
            raise ValueError(f"no notebook at {path}")
        try:
            self.path, cells = path.resolve(), nbformat.read(path, as_version=4).cells
            sources = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
            body = ast.parse("\n".join(sources)).body
        except (ValueError, TypeError, AttributeError, SyntaxError, nbformat.ValidationError) as error:
            raise ValueError(f"{path} is no notebook: {error}") from error
        if len(sources) > 1:  # papermill sets parameters behind the first, and another would set them back
            raise ValueError(f"{path} must have one cell tagged parameters, got {len(sources)}")
        self.defaults = {}
        for node in (node for node in body if isinstance(node, ast.Assign | ast.AnnAssign)):
            name = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
            self.defaults[name] = None  # takes any value: in the place of code that is no literal, too
            with suppress(ValueError, TypeError):
                self.defaults[name] = json.loads(json.dumps(ast.literal_eval(node.value)))
        if lacking := set(RESERVED[:2]) - set(self.defaults):
            raise ValueError(f"{path.name} must declare {' and '.join(sorted(lacking))} in a cell tagged parameters")

    def check(self, keys: tuple, value: object, make_error: Callable) -> object:
        """Return a value of the parameter that the last key names, as the notebook gets it, or raise the error."""
        name, plain = keys[-1], json.loads(json.dumps(value, default=str, skipkeys=True), parse_constant=str)
        if name not in self.fill({}):
            raise make_error(keys, f"{self.path.name} takes no {name} but {', '.join(self.fill({}))}")
        if plain != value:  # a date, a mapping from numbers, NaN, infinity
            raise make_error(keys, f"must be numbers, text, lists and mappings from text, got {value!r}")
        with suppress(OverflowError):  # a number of more than 308 digits is refused below
            plain = float(plain) if isinstance(default := self.defaults[name], float) and type(plain) is int else plain
        if None not in (plain, default) and type(plain) is not type(default):
            must = f"must be {type(default).__name__}, as {name} = {default!r} in {self.path.name}"
            raise make_error(keys, f"{must}, got {plain!r} ({type(plain).__name__})")
        return plain

    def fill(self, given: dict) -> dict:
        """Return all settings: what is given, and the defaults of the rest, without what the runner sets."""
        return {name: value for name, value in (self.defaults | given).items() if name not in RESERVED}


def _parse(name: str | Path, source: str | Path) -> object:
    try:
        text = source.read_text() if isinstance(source, Path) else source
        if odd := [part for part in YAML().scan(text) if isinstance(part, ODD) or getattr(part, "value", "") == "<<"]:
            raise ValueError(f"line {odd[0].start_mark.line + 1}: no &, *, !, << or %: write out what they stand for")
        return YAML().load(text)
    except (OSError, ValueError, YAMLError, RecursionError) as error:  # also a key that is given twice
        raise ValueError(f"{name} cannot be read: {error}") from error


def read_yaml(path: Path) -> tuple[dict, Callable]:
    """Return a YAML file of texts and mappings, and the function that makes an error which names a key and its line."""
    values = _parse(path, path)

    def make_error(keys: tuple, text: str) -> ValueError:
        node, line = values, ""
        with suppress(AttributeError, KeyError, TypeError):  # what is not in a mapping has the line of what it is in
            for key in keys:
                node, line = node[key], f", line {node.lc.data[key][0] + 1}"
        return ValueError(f"{path}{line}, {'.'.join(map(str, keys))}: {text}")

    for key, value in values.items() if isinstance(values, dict) else [("the file", [values])]:
        kind, what = (str, "text") if key in ("extends", "notebook") else (dict, "a mapping")
        if not isinstance(value, kind) and (value is not None or kind is str):
            raise make_error((key,), f"must be {what}, got {value!r}")
    return values, make_error
