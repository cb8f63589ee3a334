"""Read the results of a sweep into one table.

Exports `collect`.
"""

import itertools
import json
import math
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from nib.sweep.runs import Run
from nib.sweep.store import PARAMETERS, PLAN, RESULT


def collect(folder: str | Path, edition: str | None = None) -> pd.DataFrame:
    """Give the results of all finished runs as one table, also while the sweep is under way.

    Args:
        folder: of a grid, such as `build/sweeps/beta`.
        edition: which results to take, where the folder holds those of several versions of the notebook, of
            `nib` or of the data; the error that says so lists them.

    Returns:
        The rows of all runs, in the order of the grid. The columns are `run` (its folder), the parameters
        that the grid gives (lists and mappings as JSON text) and those of the notebook's table; where that
        has a column of the same name, the former is called `parameter_<name>`. `attrs` holds `edition`,
        `missing` (the runs that have no result yet) and `duplicates` (those whose rows others have too).

    Raises:
        FileNotFoundError: no such folder, or no finished run in it.
        ValueError: results of several editions, or of shards that overlap.

    Warns:
        UserWarning: different shards have rows in common, which their union counts twice.
    """
    folder = Path(folder)
    plan = _read_plan(folder)
    runs = _choose(_read_runs(folder, plan), edition, folder)
    groups = _group_shards(runs)
    _refuse_overlaps(groups)
    tables = {run.name: pd.read_parquet(folder / run.name / RESULT) for run in runs}
    taken = {column for table in tables.values() for column in table.columns}
    names = {key: f"parameter_{key}" if key in taken else key for run in runs for key in ("run", *run.parameters)}
    frames = []
    for run in runs:
        settings = {"run": run.name} | {key: _to_cell(run.settings[key]) for key in names if key != "run"}
        frames.append(tables[run.name].assign(**{names[key]: value for key, value in settings.items()}))
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[[*names.values(), *(column for column in frame.columns if column not in names.values())]]
    duplicates = _find_duplicates(frame, groups, names)
    if duplicates:
        warnings.warn(f"{folder}: rows of these runs are the same: {', '.join(duplicates)}", stacklevel=2)
    missing = [name for name in plan if not (folder / name / RESULT).exists()]
    frame.attrs = {"edition": _describe(runs[0]), "missing": missing, "duplicates": duplicates}
    return frame


def _read_plan(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of a sweep at {folder}")
    return json.loads((folder / PLAN).read_text()) if (folder / PLAN).exists() else []


def _read_runs(folder: Path, plan: list[str]) -> list[Run]:
    order = {name: index for index, name in enumerate(plan)}
    names = sorted(path.parent.name for path in folder.glob(f"*/{RESULT}"))
    if not names:
        raise FileNotFoundError(f"no run in {folder} is finished")
    names.sort(key=lambda name: order.get(name, len(order)))  # those of an earlier grid last
    return [Run(**json.loads((folder / name / PARAMETERS).read_text())) for name in names]


def _describe(run: Run) -> str:
    return f"{Path(run.notebook).name} {run.edition['notebook']}, nib {run.edition['nib']}, data {run.edition['data']}"


def _choose(runs: list[Run], edition: str | None, folder: Path) -> list[Run]:
    counts = Counter(map(_describe, runs))
    if (edition or len(counts) > 1) and edition not in counts:
        listed = "".join(f"\n  {count} runs of edition={text!r}" for text, count in counts.items())
        raise ValueError(f"{folder} holds{listed}\nedition must be one of them, got {edition!r}")
    return [run for run in runs if edition in (None, _describe(run))]


def _group_shards(runs: list[Run]) -> list[list[Run]]:
    """Put runs together that differ in nothing but their shard."""
    groups = defaultdict(list)
    for run in runs:
        groups[json.dumps({**run.settings, "shard": None}, sort_keys=True)].append(run)
    return [group for group in groups.values() if len(group) > 1]


def _refuse_overlaps(groups: list[list[Run]]) -> None:
    for group in groups:
        if len({run.settings["shard"][1] for run in group}) == 1:
            continue
        for first, second in itertools.combinations(group, 2):
            (i, n), (j, m) = first.settings["shard"], second.settings["shard"]
            if (i - j) % math.gcd(n, m) == 0:  # then some batch is i modulo n and j modulo m
                raise ValueError(
                    f"run {first.name} of shard {[i, n]} and run {second.name} of shard {[j, m]} have batches in"
                    " common, which would count twice: remove the folders of one division"
                )


def _find_duplicates(frame: pd.DataFrame, groups: list[list[Run]], names: dict[str, str]) -> list[str]:
    """Name the runs that have a row in common with another shard of the same run."""
    run = names["run"]
    columns = [column for column in frame.columns if column not in (run, names.get("shard"))]
    found = []
    for group in groups:
        rows = frame[frame[run].isin([member.name for member in group])]
        # lists and arrays in a table cannot be compared as they are
        rows = rows.assign(**{name: rows[name].map(repr) for name in columns if rows[name].dtype == object})
        rows = rows.drop_duplicates([*columns, run])
        found += rows.loc[rows.duplicated(columns, keep=False), run].unique().tolist()
    return found


def _to_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
