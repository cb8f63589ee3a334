"""Make tables to read and to keep: `tabulate`, of means with their intervals, and `list_cells`, of maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def tabulate(
    summary: pd.DataFrame, index: str | Sequence[str], columns: str | Sequence[str], form: str = ".3f"
) -> pd.DataFrame:
    """Turn a tidy table of means into one to read, with cells such as "0.236 [0.160, 0.338]".

    Args:
        summary: columns `mean`, `low` and `high`, and those of `index` and `columns`.
        index: what makes a row.
        columns: what makes a column.
        form: of the numbers, as Python's `format` takes it.
    """
    cells = summary.apply(lambda row: f"{row['mean']:{form}} [{row['low']:{form}}, {row['high']:{form}}]", axis=1)
    return summary.assign(cells=cells).pivot(index=index, columns=columns, values="cells")


def list_cells(maps: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """List every cell of some maps, a row a cell.

    Args:
        maps: name -> (grid_h, grid_w).

    Returns:
        Columns `row`, `column`, `map`, and `score`, as text with all its digits.
    """
    rows = []
    for name, found in maps.items():
        rows += [(row, column, name, str(score)) for (row, column), score in np.ndenumerate(found)]
    return pd.DataFrame(rows, columns=["row", "column", "map", "score"])
