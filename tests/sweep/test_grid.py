"""A grid becomes its runs, or is refused with the line, the key and what is declared."""

import json
import re
import shutil

import pytest
from tiny import CELLS, write_notebook

import nib
from nib.sweep.grid import read_grid
from nib.sweep.runs import read_edition


@pytest.fixture
def read(notebook):
    """Read a grid from its text, after a first line that names the notebook."""

    def read(text, name="grid"):
        path = notebook.with_name(f"{name}.yaml")
        path.write_text(f"notebook: tiny.ipynb\n{text}")
        return read_grid(path)

    return read


def test_a_grid_is_the_product_of_its_axes_in_order(read, notebook):
    grid = read("parameters: {label: x}\naxes:\n  factor: [1, 2.5]\n  rows: [3, 4, 5]")
    assert (grid.name, grid.notebook, grid.axes) == ("grid", notebook, ("factor", "rows"))
    expected = [{"label": "x", "factor": factor, "rows": rows} for factor in (1.0, 2.5) for rows in (3, 4, 5)]
    assert [run.parameters for run in grid.runs] == expected
    assert type(grid.runs[0].parameters["factor"]) is float
    assert len({run.name for run in grid.runs}) == 6
    assert grid.runs[0].settings.items() >= {"factor": 1.0, "do": "work", "shard": [0, 1], "anything": None}.items()
    assert not {"output", "figures_dir"} & set(grid.runs[0].settings)


def test_a_grid_without_axes_is_one_run(read):
    assert [run.parameters for run in read("name: alone\n").runs] == [{}]
    assert read("name: alone\n").name == "alone"


def test_lists_of_a_zip_group_go_together(read):
    grid = read("axes:\n  zip: {rows: [1, 2], label: [a, b]}\n  factor: [3]")
    found = [(run.parameters["rows"], run.parameters["label"], run.parameters["factor"]) for run in grid.runs]
    assert found == [(1, "a", 3.0), (2, "b", 3.0)]
    grid = read("axes:\n  zip:\n  - {rows: [1, 2], label: [a, b]}\n  - {factor: [3, 4], flag: [true, false]}")
    assert len(grid.runs) == 4
    assert grid.axes == ("rows", "label", "factor", "flag")


def test_shards_are_all_of_n(read):
    grid = read("axes: {shard: {of: 3}, factor: [1e-3, 2]}")
    assert [run.parameters["shard"] for run in grid.runs] == [[0, 3], [0, 3], [1, 3], [1, 3], [2, 3], [2, 3]]
    assert grid.runs[0].parameters["factor"] == 0.001


def test_lists_and_mappings_are_values_too(read):
    grid = read("axes:\n  names: [[a], [a, b]]\n  options: [{m2ib: {beta: 1e-2}}]\n  anything: [null, 1, x]")
    assert len(grid.runs) == 6
    assert grid.runs[0].parameters["options"] == {"m2ib": {"beta": 0.01}}


# text after the first line -> parts of the complaint
WRONG = {
    "axes:\n  factr: [1]": ["line 3, axes.factr", "does not declare factr", "it declares rows, factor, do"],
    "parameters:\n  factr: 1": ["line 3, parameters.factr", "does not declare factr"],
    "axes:\n  factor: []": ["line 3, axes.factor", "at least one value, got []"],
    "axes:\n  factor: 3": ["line 3, axes.factor", "must be a list", "got 3"],
    "axes:\n  factor: [1]\n  rows: [1]\n  factor: [2]": ["line 3, axes.factor", "given again in line 5"],
    "parameters:\n  options: {a: 1, a: 2}": ["line 3, parameters.options.a", "given again in line 3"],
    "axes:\n  rows: [1, 2.0]": ["line 3, axes.rows", "declares rows = 4 (int), got 2.0 (float)"],
    "axes:\n  factor: [x]": ["axes.factor", "declares factor = 1.0 (float), got 'x' (str)"],
    "axes:\n  rows: [true]": ["axes.rows", "(int), got True (bool)"],
    "axes:\n  flag: [1]": ["axes.flag", "declares flag = False (bool), got 1 (int)"],
    "axes:\n  factor: [null]": ["axes.factor", "got None (NoneType)"],
    "parameters:\n  names: a": ["parameters.names", "declares names = ['a'] (list), got 'a' (str)"],
    "parameters: {label: 2020-01-01}": ["parameters.label", "numbers, text, lists and mappings"],
    "parameters: {options: {1: 2}}": ["parameters.options", "mappings from text"],
    "axes: {anything: [.nan]}": ["axes.anything", "got nan"],
    "parameters: {output: x}": ["parameters.output", "is set by the sweep"],
    "axes: {figures_dir: [x]}": ["axes.figures_dir", "is set by the sweep"],
    "axes: {shard: {of: 0}}": ["axes.shard", "n at least 1, got {'of': 0}"],
    "axes: {shard: {off: 2}}": ["axes.shard", "must be {of: n}"],
    "axes: {rows: {of: 2}}": ["axes.rows", "must be a list"],
    "axes: {zip: {rows: [1, 2], factor: [1]}}": ["axes.zip", "equally long, got {'rows': 2, 'factor': 1}"],
    "axes: {zip: [1]}": ["axes.zip.0", "must be a mapping"],
    "axes: {zip: {}}": ["axes.zip", "must be a mapping"],
    "axes: {rows: [1, 2, 1]}": ["axes.rows", 'given twice: {"rows": 1}'],
    "axes: {factor: [1, 1.0]}": ["axes.factor", "given twice"],
    "parameters: {rows: 1}\naxes: {rows: [1]}": ["rows is set by parameters too"],
    "axes: {rows: [1], zip: {rows: [2]}}": ["rows is set by another axis too"],
    "axes: [rows]": ["line 2, axes", "must be a mapping"],
    "axis: {rows: [1]}": ["line 2, axis", "must be one of name, notebook, parameters, axes"],
    "name: a/b": ["line 2, name", "must name a folder", "'a/b'"],
    "name: 3": ["line 2, name", "got 3"],
    "axes: {rows: [1": ["is not YAML", "line 2"],
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_grid_is_refused(read, text):
    with pytest.raises(ValueError, match=r"grid\.yaml") as caught:
        read(text)
    for part in WRONG[text]:
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path, make_grid):
    with pytest.raises(FileNotFoundError, match=r"no grid at .*none\.yaml"):
        read_grid(tmp_path / "none.yaml")
    path = make_grid()
    for text, reason in {
        "notebook: none.ipynb": "line 1, notebook: no notebook at .*none.ipynb",
        "notebook: grid.yaml": "no notebook at",
        "axes: {}": "must be the path of a notebook, got None",
        "- 1": "must be a mapping",
        "": "must be a mapping, got None",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_grid(path)


def test_a_notebook_must_take_what_a_sweep_sets(make_grid, notebook):
    write_notebook(notebook, [CELLS[0].replace("output = None  # for the table", ""), *CELLS[1:]])
    with pytest.raises(ValueError, match=r"tiny\.ipynb must declare output"):
        read_grid(make_grid())


def test_a_default_that_is_no_literal_takes_any_value(make_grid, notebook):
    write_notebook(notebook, [CELLS[0] + "\nhalf = 1 / 2  # computed", *CELLS[1:]])
    assert len(read_grid(make_grid({"half": ["x", 1]})).runs) == 2


def names(path):
    return [run.name for run in read_grid(path).runs]


def test_the_name_of_a_run_is_that_of_its_content(make_grid, notebook, tmp_path):
    first = names(make_grid({"factor": [1, 2]}, label="x"))
    assert names(make_grid({"factor": [2.0, 1.0]}, "other", label="x")) == first[::-1]
    assert names(make_grid({"factor": [1]})) == names(make_grid(rows=4)) == names(make_grid()), (
        "defaults count as given"
    )
    assert not set(first) & set(names(make_grid({"factor": [1, 2]}, label="y")))
    copy = shutil.copytree(notebook.parent, tmp_path / "elsewhere")
    assert names(copy / "other.yaml") == first[::-1]
    document = json.loads(notebook.read_text())
    document["cells"].append({"cell_type": "markdown", "id": "m", "metadata": {}, "source": ["only words"]})
    notebook.write_text(json.dumps(document))
    assert names(make_grid({"factor": [1, 2]}, label="x")) == first
    document["cells"][3]["source"] = ["frame = None"]
    notebook.write_text(json.dumps(document))
    assert not set(first) & set(names(make_grid({"factor": [1, 2]}, label="x")))


def test_another_version_of_the_package_or_of_the_data_is_another_run(make_grid, notebook, tmp_path, monkeypatch):
    before, edition = names(make_grid()), read_edition(notebook)
    assert re.fullmatch(re.escape(nib.__version__) + r"\+[0-9a-f]{12}", edition["nib"])
    monkeypatch.setattr(nib, "__version__", "9.9.9")
    assert read_edition(notebook)["nib"].startswith("9.9.9+")
    assert names(make_grid()) != before
    monkeypatch.undo()
    shutil.copytree(nib.datasets.SCENES, tmp_path / "scenes", ignore=shutil.ignore_patterns("*.py"))
    monkeypatch.setattr("nib.sweep.runs.SCENES", tmp_path / "scenes")
    assert names(make_grid()) == before
    with (tmp_path / "scenes" / "scenes.parquet").open("ab") as file:
        file.write(b"0")
    assert names(make_grid()) != before


@pytest.mark.parametrize("package", ["nib", "studies"])
def test_another_source_is_another_run(package, notebook, tmp_path, monkeypatch):
    for name in ("nib", "studies"):
        (tmp_path / "source" / name).mkdir(parents=True)
    monkeypatch.setattr(nib, "__file__", str(tmp_path / "source" / "nib" / "__init__.py"))
    before = read_edition(notebook)["nib"]
    (tmp_path / "source" / package / "part.py").write_text("columns = 4\n")
    assert read_edition(notebook)["nib"] != before
