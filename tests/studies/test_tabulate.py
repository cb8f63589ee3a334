import numpy as np
import pandas as pd

from studies.tables import list_cells, tabulate


def test_cells_hold_mean_and_interval():
    summary = pd.DataFrame({"a": ["x", "y"], "b": "z", "mean": [0.5, -1.0], "low": 0.25, "high": [1.0, 2.00049]})
    table = tabulate(summary, "a", "b")
    assert table["z"].to_dict() == {"x": "0.500 [0.250, 1.000]", "y": "-1.000 [0.250, 2.000]"}
    assert tabulate(summary, "a", "b", ".1f").loc["y", "z"] == "-1.0 [0.2, 2.0]"


def test_every_cell_is_listed_with_all_its_digits():
    maps = {"one": np.array([[0.1, 2.0]], np.float32), "two": np.array([[1 / 3]])}
    found = list_cells(maps)
    assert found.values.tolist() == [[0, 0, "one", "0.1"], [0, 1, "one", "2.0"], [0, 0, "two", str(1 / 3)]]
