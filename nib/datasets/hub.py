"""Open one split of a data set on the hub, in its cache, or in a folder of the same form."""

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
    """Open one split of an id on the hub or of a folder of parquet files, tar shards or pictures; download only that.

    Where `columns` are named, the pictures' first, they must be there and they alone are read, pictures left encoded.
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


@contextmanager
def _explain(path: str | Path):
    """Say how a data set can be had when it cannot be reached."""
    path = str(path)
    try:
        yield
    except (*UNREACHABLE, FileNotFoundError, RepositoryNotFoundError, HFValidationError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        pattern = ""
        if isinstance(error, UNREACHABLE):
            why = (
                f"data set {path!r} cannot be reached and is not in the cache: where there is a network, run `hf"
                f" download --repo-type dataset {path} --local-dir FOLDER`, then pass path='FOLDER'"
            )
        # datasets turns the hub's error into one of its own and keeps only the words
        elif isinstance(error, GatedRepoError) or re.search("gated dataset|is restricted", str(error)):
            why = (
                f"data set {path!r} is gated: accept its terms at https://huggingface.co/datasets/{path} and log in"
                " with `hf auth login`, or pass path= a folder that holds it"
            )
        else:
            why = (
                f"no data set at {path!r}: it is neither a folder of data files nor an id on the hub that you may read"
            )
            if re.search(r"[*?[]", path):
                pattern = "; and its name holds one of * ? [, which `datasets` takes for a pattern: rename it"
        raise FileNotFoundError(f"{why} ({first_line}){pattern}") from error
