"""Name runs after all that their results depend on, keep each whole or not at all in a folder, and read them back.

    <run>/             notebook.ipynb, parameters.json, log.txt, figures/, result.parquet
    failed/<run>-*/    attempts that failed, until one is done
    partial/<id>/      attempts under way of one command, and those that were killed
    runs.json          the names of all runs, in order

An attempt works in a folder of its own, renamed when all is there. Where two do the same run, the first to end counts.
"""

import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

import nib
from nib.files import name_index
from nib.hashes import hash_all, hash_code

ROOT = Path(__file__).resolve().parents[1]  # the repository
EMBEDDED, SCENES = nib.DATA / "mini_clip", nib.DATA / "scenes"


@dataclass(frozen=True)
class Run:
    """One run: the parameters given, and in `hashes` what its result depends on besides all `settings`."""

    name: str
    notebook: str
    parameters: dict
    settings: dict
    hashes: dict


def name_run(notebook: Path, parameters: dict, settings: dict, hashes: dict) -> Run:
    """Make a run, named after its notebook and one hash of all that it depends on."""
    name = f"{notebook.stem}-{hash_all(json.dumps([settings, hashes], sort_keys=True))[:16]}"
    return Run(name, str(notebook), parameters, settings, hashes)


def hash_inputs(notebook: str | Path, drawn: bool = False) -> dict[str, str]:
    """Hash the notebook's code, the code that computes, and the embedded data; what only draws counts where `drawn`."""
    import nbformat  # here, as it takes over a second: a notebook that calls `locate` need not wait

    code = {*Path(nib.__file__).parent.rglob("*.py"), *ROOT.glob("studies/**/*.py")}
    drawing = {path for path in code if path.stem in ("plotting", "cases", "charts", "overview", "sheet", "style")}
    data = sorted([*EMBEDDED.glob("*.json"), *EMBEDDED.glob("*.safetensors")]) + sorted(SCENES.glob("*.parquet"))
    hashes = {"notebook": hash_cells(nbformat.read(notebook, as_version=4)), "nib": hash_code(code - drawing)}
    hashes["data"] = hash_all(*(path.read_bytes() for path in data))[:12]
    if drawn:
        shown = (path.read_bytes() for kind in ("csv", "png", "jpg") for path in sorted(ROOT.glob(f"data/**/*.{kind}")))
        hashes["figures"] = hash_all(hash_code(drawing), *shown)[:12]
    return hashes


def hash_cells(notebook: dict) -> str:
    """Hash the code cells of a notebook."""
    return hash_all(*(cell.source for cell in notebook.cells if cell.cell_type == "code"))[:16]


def locate(path: str | Path) -> Path:
    """Return a path as it is if it exists, else as one of the repository: `locate("data/published_results.csv")`."""
    return Path(path) if Path(path).exists() else ROOT / path


class Store:
    """A folder of runs; `parts`, the finished batches of evaluations, is shared by all such folders."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.parts, self.failed = self.folder.parents[1] / "parts", self.folder / "failed"

    def has(self, name: str) -> bool:
        """Tell whether a run is finished: its table has parquet's end, which is written last."""
        with suppress(OSError), (self.folder / name / "result.parquet").open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
        return False

    def open(self, command_id: str, runs: list[Run]) -> None:
        """Make the folder of a command's attempts, and write down which runs there are to be."""
        (place := self.folder / "partial" / command_id).mkdir(parents=True)
        self.failed.mkdir(exist_ok=True)
        (place / "runs.json").write_text(json.dumps([run.name for run in runs]))
        (place / "runs.json").replace(self.folder / "runs.json")

    def close(self, command_id: str) -> None:
        """Take the folder of a command's attempts away at once; what is under way ends itself when it is gone."""
        place = self.folder / "partial" / command_id
        with suppress(OSError):
            shutil.rmtree(place.rename(place.with_suffix(".old")), ignore_errors=True)

    def begin(self, run: Run, command_id: str) -> Path:
        """Make the folder of one attempt; a FileNotFoundError says that this machine does not see the command's."""
        (place := self.folder / "partial" / command_id / f"{run.name}-{uuid.uuid4().hex[:8]}").mkdir()
        (place / "figures").mkdir()
        (place / "parameters.json").write_text(json.dumps(asdict(run), indent=1))
        if (old := self.folder / run.name).is_dir() and not self.has(run.name):  # its table has been damaged
            old.rename(self.failed / f"{place.name}-old")
        return place

    def publish(self, attempt: Path, name: str) -> str:
        """Put an attempt into its place and return "done", or "cached" if another was the first to get there."""
        with (attempt / "result.parquet").open("rb") as file:
            os.fsync(file.fileno())  # a crash of the machine must not leave the name without the content
        try:
            attempt.rename(self.folder / name)
        except OSError:
            if not self.has(name):
                raise
            return "cached"
        for old in self.failed.glob(f"{name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        return "done"


def collect(folder: str | Path) -> pd.DataFrame:
    """Return the results of a grid's finished runs as one table, also while others are under way.

    Its columns are `run`, the grid's parameters (lists and mappings as JSON; `parameter_<name>` where the table has
    that name) and the table's. What an earlier grid has left is not read. `attrs` names the runs that are `missing`.
    """
    folder, path = Path(folder), (plan := Path(folder) / "runs.json")
    tables, cells, given = {}, {}, {}
    try:
        names = json.loads(plan.read_text()) if plan.exists() else []
        for name in (name for name in names if (folder / name / "result.parquet").exists()):
            tables[name] = name_index(pd.read_parquet(path := folder / name / "result.parquet"))
            run = json.loads((path := folder / name / "parameters.json").read_text())
            if run["name"] != name:
                raise ValueError(f"must be of the run {name}, got {run['name']}")
            texts = {key: json.dumps(cell) for key, cell in run["settings"].items() if isinstance(cell, list | dict)}
            given, cells[name] = given | run["parameters"], run["settings"] | texts | {"run": name}
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ValueError(f"{plan} or a run that it names cannot be read: {error!r} in {path}") from error
    if not tables:
        raise FileNotFoundError(f"no run in {folder} is finished" + ": no such folder" * (not folder.is_dir()))
    taken = {column for table in tables.values() for column in table.columns}
    labels = {key: f"parameter_{key}" if key in taken else key for key in ("run", *given)}
    if taken.intersection(labels.values()) or len(set(labels.values())) <= len(given):
        raise ValueError(f"columns must differ, got {[*labels.values()]} beside those of the tables, {sorted(taken)}")
    frames = [table.assign(**{labels[key]: cells[name][key] for key in labels}) for name, table in tables.items()]
    # Where tables differ in the type of a column, pandas makes floats of whole numbers: above 2**53 these are others.
    large = {key for t in frames for key in t.select_dtypes("integer", "timedelta") if (t[key].abs() > 2**53).any()}
    mixed = {key for key in large if len({table.dtypes.get(key) for table in frames}) > 1}
    frame = pd.concat([table.astype(dict.fromkeys(mixed & {*table}, object)) for table in frames], ignore_index=True)
    frame = frame[[*labels.values(), *(column for column in frame.columns if column not in labels.values())]]
    frame.attrs["missing"] = [name for name in names if name not in tables]
    return frame
