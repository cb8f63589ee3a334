"""Keep finished work in files that are whole or not there."""

from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from torch import Tensor, uint8

from nib.checks import shorten
from nib.files import name_index, to_path, write_csv, write_whole


def save_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table, by the ending of its path as .parquet or .csv, whole or not at all.

    A column that parquet cannot hold, such as layers that are numbers and pairs, is written as text. An index that has
    a name is written as a column.

    Raises:
        TypeError: no table.
        ValueError: another ending, a path that cannot be a file, or a table that the file would not give back.
    """
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
            if tensors := [name for name in frame if any(isinstance(value, Tensor) for value in frame[name])]:
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


def _is_mixed(column: pd.Series) -> bool:
    kinds = {type(value) for value in column.dropna()} if column.dtype == object else set()
    numbers = all(issubclass(kind, (int, float, np.number)) and kind is not bool for kind in kinds)
    return any(issubclass(kind, PurePath) for kind in kinds) or (len(kinds) > 1 and not numbers)


def _count_keys(column: pd.Series) -> int:
    # parquet would give each mapping the keys of all
    return len({frozenset(value) for value in column if isinstance(value, dict)}) if column.dtype == object else 0


def to_bytes(values: Tensor) -> bytes:
    shape = f"{values.dtype}{tuple(values.shape)}".encode()
    return shape + values.detach().cpu().contiguous().flatten().view(uint8).numpy().tobytes()
