"""Write files that are whole or not there, and say what is no path."""

import csv
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    """Raise a ValueError where a file cannot get its name."""
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
    """Return which fields a CSV must quote: the few that need it, or all text where a return alone is in one.

    Neither csv nor pandas quote a return, and both read it as the end of a row.
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
