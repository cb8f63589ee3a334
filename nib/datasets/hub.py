"""Open one split of a data set on the hub, in its cache, or in a folder of the same form.

Exports `find_split` and `open_split`.
"""

import re
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset, DatasetBuilder, Image, IterableDataset, load_dataset, load_dataset_builder
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from nib.hub import SECONDS, UNREACHABLE


def find_split(path: str | Path, split: str | None) -> tuple[DatasetBuilder, str, dict]:
    """Return what reads a data set, the name of a split (None: the only one), and where it lies."""
    with _explain(path):
        where = _locate(str(path))
        builder = load_dataset_builder(**where)
    splits = sorted(str(name) for name in builder.config.data_files)
    split = splits[0] if split is None and len(splits) == 1 else split
    if split not in splits:
        raise ValueError(f"split of {str(path)!r} must be one of {splits}, got {split!r}")
    return builder, split, where


def open_split(
    path: str | Path, split: str | None, columns: Sequence[str] = (), streamed: bool = False
) -> Dataset | IterableDataset:
    """Open one split, and download only that.

    Args:
        path: an id on the hub, or a folder of parquet files, tar shards or pictures.
        split: its name; None where there is only one.
        columns: those that must be there, the pictures' first; they alone are read, and pictures
            are left encoded. None named: all.
        streamed: return an `IterableDataset`.

    Raises:
        FileNotFoundError: it cannot be had, and how it can.
        ValueError: unknown split, or missing columns.
    """
    builder, split, where = find_split(path, split)
    files = builder.config.data_files
    with _explain(path):
        rows = builder.as_streaming_dataset(split=split)
        found = rows.column_names or list(next(iter(rows)))
        missing = [column for column in columns if column not in found]
        if missing:
            raise ValueError(f"{str(path)!r} must have the columns {list(columns)}, got {found}: no {missing}")
        if not streamed:
            rows = load_dataset(
                where["path"], split=split, data_files={split: list(files[split])}, features=rows.features,
                revision=where["revision"], verification_mode="no_checks",
            )  # fmt: skip
    return rows.select_columns(list(columns)).cast_column(columns[0], Image(decode=False)) if columns else rows


def _locate(path: str) -> dict[str, str | None]:
    """Say where to read: a folder, a state of the hub, or what an earlier session left in its cache."""
    if Path(path).is_dir():
        return {"path": str(Path(path).resolve()), "revision": None}
    try:
        return {"path": path, "revision": HfApi().dataset_info(path, timeout=SECONDS).sha}
    except UNREACHABLE:
        snapshots = Path(HF_HUB_CACHE, repo_folder_name(repo_id=path, repo_type="dataset"), "snapshots").glob("*/")
        newest = max(snapshots, key=lambda folder: folder.stat().st_mtime, default=None)
        if newest is None:
            raise
        kind = "webdataset" if any(newest.rglob("*.tar")) else "parquet"  # its card may name splits that are not there
        return {"path": kind, "data_dir": str(newest), "revision": None}


BRACKETS = "; and its name holds one of * ? [, which `datasets` takes for a pattern: rename it"


@contextmanager
def _explain(path: str | Path):
    """Say how a data set can be had when it cannot be reached."""
    path = str(path)
    try:
        yield
    except UNREACHABLE as error:
        raise FileNotFoundError(
            f"data set {path!r} cannot be reached and is not in the cache: where there is a network, run `hf download"
            f" --repo-type dataset {path} --local-dir FOLDER`, then pass path='FOLDER' ({_first_line(error)})"
        ) from error
    except (FileNotFoundError, RepositoryNotFoundError, HFValidationError) as error:
        # datasets turns the hub's error into one of its own and keeps only the words
        if isinstance(error, GatedRepoError) or re.search("gated dataset|is restricted", str(error)):
            raise FileNotFoundError(
                f"data set {path!r} is gated: accept its terms at https://huggingface.co/datasets/{path} and log in"
                f" with `hf auth login`, or pass path= a folder that holds it ({_first_line(error)})"
            ) from error
        raise FileNotFoundError(
            f"no data set at {path!r}: it is neither a folder of data files nor an id on the hub that you may read"
            f" ({_first_line(error)}){BRACKETS if re.search(r'[*?[]', path) else ''}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
