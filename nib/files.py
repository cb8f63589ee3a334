"""Write files that are whole or not there, and say what is no path.

Exports `to_path`, `make_folder` and `write_whole`.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def to_path(name: str, path: str | os.PathLike) -> Path:
    """Return a path with its ~ written out, or raise a TypeError or ValueError that names the argument."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {type(path).__name__}")
    if not str(path).strip() or "\0" in str(path):
        raise ValueError(f"{name} must be a path, got {str(path)!r}")
    return Path(path).expanduser()


def make_folder(folder: Path) -> None:
    """Make a folder, with those that it lies in; a ValueError says that a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{str(folder)!r} must be a folder, and a file of that name is in the way") from error


@contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield another name to write under, and move what is written into its place, or take it away on an error."""
    path = to_path("path", path)
    if path.is_dir():
        raise ValueError(f"path must name a file, got the folder {str(path)!r}")
    make_folder(path.parent)
    partial = path.with_name(f".{uuid.uuid4().hex}")  # short: the name itself may be as long as one can be
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
