"""Write files and tables that are whole or not there, and say what is no path."""

import csv
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
import torch

from nib.checks import shorten

if TYPE_CHECKING:
    import pandas as pd


def to_path(name: str, path: str | os.PathLike) -> Path:
    """Return a path with its ~ written out, or raise a TypeError or ValueError that names the argument."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {type(path).__name__}")
    if not str(path).strip() or "\0" in str(path):
        raise ValueError(f"{name} must be a path, got {str(path)!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} must be a path, got {shorten(str(path))}: {error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, with those that it lies in; a ValueError says that a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{str(folder)!r} must be a folder, and a file of that name is in the way") from error


def check_file(path: Path) -> None:
    """Raise a ValueError where a path names a folder, or is too long for a file."""
    try:
        taken = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        taken = False
    except OSError as error:  # a name that is longer than the system takes
        raise ValueError(f"path cannot name a file: {error.strerror}, got {shorten(str(path))}") from error
    if taken:
        raise ValueError(f"path must name a file, got the folder {str(path)!r}")


@contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield another name to write under, and move what is written into its place, or take it away on an error."""
    path = to_path("path", path)
    check_file(path)
    make_folder(path.parent)
    partial = path.with_name(f".{uuid.uuid4().hex}")  # short: the name itself may be as long as one can be
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename != str(partial):
            raise
        raise type(error)(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def choose_quoting(columns: Iterable[Iterable]) -> int:
    """Return which fields a CSV must quote: the few that need it, or all text where one holds a carriage return.

    Neither csv nor pandas quotes that, and both read it as the end of a row.
    """
    returns = any(isinstance(value, str) and "\r" in value for column in columns for value in column)
    return csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL


def name_index(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table whose index, where it has a name, is a column; a ValueError refuses to lose one of text."""
    names = [name for name in frame.index.names if name is not None]
    if taken := [name for name in names if name in frame.columns]:
        raise ValueError(f"the index must not be called like a column, got {taken[0]!r} twice")
    if not names and len(frame) and (frame.index.nlevels > 1 or frame.index.dtype.kind not in "iu"):
        raise ValueError(f"an index that is no row number must have a name, got {shorten(frame.index[0])}")
    return frame.reset_index() if names else frame


def write_csv(frame: "pd.DataFrame", path: Path, **options) -> None:
    """Write a table as CSV; a ValueError refuses columns with names of several levels, which would be rows."""
    if frame.columns.nlevels > 1:
        raise ValueError(f"columns must have one name each, got {frame.columns.nlevels} levels: join them")
    if len(set(map(str, frame))) < frame.shape[1]:
        raise ValueError(f"columns must have one name each, got two of one among {shorten(list(frame))}")
    for name, column in frame.items():
        if column.dtype == object and any(isinstance(value, (np.ndarray, torch.Tensor)) for value in column):
            raise ValueError(f"cells of a CSV must be numbers or text, column {name!r} holds arrays: they would be cut")
    texts = frame.select_dtypes(exclude="number")
    quoting = choose_quoting([frame.columns, *(column for _, column in texts.items())])
    frame.to_csv(path, index=False, lineterminator="\n", quoting=quoting, **options)


def save_table(frame: "pd.DataFrame", path: str | Path) -> None:
    """Write a table, by the ending of its path as .parquet or .csv, whole or not at all.

    A column that parquet cannot hold, such as layers that are numbers and pairs, is written as text. An index that has
    a name is written as a column.

        nib.save_table(table, "build/table.csv")

    Raises:
        TypeError: no table.
        ValueError: another ending, a path that cannot be a file, or a table that the file would not give back.
    """
    import pandas as pd  # here, so that `import nib` does not wait for it

    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a table (DataFrame) is written, got {type(frame).__name__}")
    path = to_path("path", path)
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"a table is written as .parquet or .csv, got {str(path)!r}")
    frame = name_index(frame)
    with write_whole(path) as partial:
        if path.suffix == ".csv":
            write_csv(frame, partial)
        else:
            if tensors := [name for name in frame if any(isinstance(value, torch.Tensor) for value in frame[name])]:
                raise ValueError(f"column {shorten(tensors[0])} holds tensors: make them numbers or lists")
            texts = {name: column.map(str, na_action="ignore") for name, column in frame.items() if _is_mixed(column)}
            try:  # names must be text, and attrs what JSON holds
                if len(set(map(str, frame))) < frame.shape[1]:
                    raise ValueError("two columns have one name")
                if unlike := [name for name, column in frame.items() if _count_keys(column) > 1]:
                    raise ValueError(f"mappings of column {shorten(unlike[0])} have unlike keys")
                frame.assign(**texts).to_parquet(partial, index=False)
            except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
                raise ValueError(f"parquet cannot hold the table, its names or its attrs: {error}") from error


def _is_mixed(column: "pd.Series") -> bool:
    kinds = {type(value) for value in column.dropna()} if column.dtype == object else set()
    numbers = all(issubclass(kind, (int, float, np.number)) and kind is not bool for kind in kinds)
    return any(issubclass(kind, PurePath) for kind in kinds) or (len(kinds) > 1 and not numbers)


def _count_keys(column: "pd.Series") -> int:
    # parquet would give each mapping the keys of all
    return len({frozenset(value) for value in column if isinstance(value, dict)}) if column.dtype == object else 0
