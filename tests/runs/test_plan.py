"""A grid or a profile becomes its runs, or is refused with the line, the key and what is declared."""

import json
import shutil

import nbformat
import pytest
from tiny import CELLS, write_notebook

import nib
from runs.plan import PROFILES, Notebook, find_parameters, read_grid, read_profile
from runs.store import ROOT, hash_inputs

NOTEBOOKS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))


@pytest.fixture
def read(notebook):
    """Read a grid from its text, after a first line that names the notebook."""

    def read(text):
        path = notebook.with_name("grid.yaml")
        path.write_text(f"notebook: tiny.ipynb\n{text}")
        return read_grid(path)

    return read


def test_a_grid_is_the_product_of_its_axes_in_order(read, notebook):
    runs = read("parameters: {label: x}\naxes:\n  factor: [1, 2.5]\n  rows: [3, 4, 5]")
    assert {run.notebook for run in runs} == {str(notebook)}
    expected = [{"label": "x", "factor": factor, "rows": rows} for factor in (1.0, 2.5) for rows in (3, 4, 5)]
    assert [run.parameters for run in runs] == expected
    assert type(runs[0].parameters["factor"]) is float
    assert type(runs[-1].parameters["factor"]) is float
    assert len({run.name for run in runs}) == 6
    assert all(run.name.startswith("tiny-") for run in runs)
    assert runs[0].settings.items() >= {"factor": 1.0, "do": "work", "shard": [0, 1], "anything": None}.items()
    assert not {"output", "figures_dir"} & set(runs[0].settings)

    assert [run.parameters for run in read("")] == [{}]
    assert [run.parameters for run in read("axes:\nparameters:\n")] == [{}]


def test_an_axis_may_be_zipped_sharded_or_hold_lists_mappings_and_null(read):
    runs = read("axes:\n  zip: {rows: [1, 2], label: [a, b]}\n  factor: [3]")
    found = [(run.parameters["rows"], run.parameters["label"], run.parameters["factor"]) for run in runs]
    assert found == [(1, "a", 3.0), (2, "b", 3.0)]

    runs = read("axes: {shard: {of: 3}, factor: [1e-3, 2]}")
    assert [run.parameters["shard"] for run in runs] == [[0, 3], [0, 3], [1, 3], [1, 3], [2, 3], [2, 3]]
    assert runs[0].parameters["factor"] == 0.001

    runs = read("axes:\n  names: [[a], [a, b]]\n  options: [{m2ib: {beta: 1e-2}}]\n  anything: [null, 1, x]")
    assert len(runs) == 6
    assert runs[0].parameters["options"] == {"m2ib": {"beta": 0.01}}
    assert [run.parameters["factor"] for run in read("axes: {factor: [null]}")] == [None]


# text after the first line -> parts of the complaint
WRONG = {
    "axes:\n  factr: [1]": ["line 3, axes.factr", "tiny.ipynb takes no factr but rows, factor, do"],
    "parameters:\n  factr: 1": ["line 3, parameters.factr", "takes no factr"],
    "axes:\n  factor: []": ["line 3, axes.factor", "at least one value, got []"],
    "axes:\n  factor: 3": ["line 3, axes.factor", "must be a list", "got 3"],
    "axes:\n  factor: [1]\n  rows: [1]\n  factor: [2]": ["duplicate key", "line 3", "line 5"],
    "parameters:\n  options: {a: 1, a: 2}": ["duplicate key", "line 3"],
    "axes: {factor: [1" + 400 * "0" + "]}": ["line 2, axes.factor", "must be float, as factor = 1.0 in tiny.ipynb"],
    "axes:\n  rows: [1, 2.0]": ["line 3, axes.rows", "must be int, as rows = 4 in tiny.ipynb, got 2.0 (float)"],
    "axes:\n  factor: [x]": ["axes.factor", "must be float, as factor = 1.0", "got 'x' (str)"],
    "axes:\n  rows: [true]": ["axes.rows", "must be int", "got True (bool)"],
    "axes:\n  flag: [1]": ["axes.flag", "must be bool, as flag = False", "got 1 (int)"],
    "parameters:\n  names: a": ["parameters.names", "must be list, as names = ['a']", "got 'a' (str)"],
    "parameters: {label: 2020-01-01}": ["parameters.label", "numbers, text, lists and mappings"],
    "parameters: {options: {1: 2}}": ["parameters.options", "mappings from text"],
    "axes: {anything: [.nan]}": ["axes.anything", "got nan"],
    "parameters: {output: x}": ["parameters.output", "takes no output"],
    "axes: {figures_dir: [x]}": ["axes.figures_dir", "takes no figures_dir"],
    "axes: {shard: {of: 0}}": ["axes.shard", "n at least 1, got {'of': 0}"],
    "axes: {shard: {off: 2}}": ["axes.shard", "must be {of: n}"],
    "axes: {shard: [[0, 2], [0, 3]]}": ["axes.shard", "must be {of: n}"],
    "axes: {rows: {of: 2}}": ["axes.rows", "must be a list"],
    "axes: {zip: {rows: [1, 2], factor: [1]}}": ["axes.zip", "of one length, got {'rows': [1, 2], 'factor': [1]}"],
    "axes:\n  zip: {rows: [1, x]}": ["line 3, axes.zip.rows", "got 'x'"],
    "axes: {zip: [1]}": ["line 2, axes.zip", "must be lists of one length, got [1]: zip is a mapping of lists"],
    "axes: {zip: {}}": ["axes.zip", "must be lists of one length, got {}"],
    "axes: {rows: [1, 2, 1]}": ["axes.rows", 'given twice: {"rows": 1}'],
    "axes: {factor: [1, 1.0]}": ["axes.factor", "given twice"],
    "parameters: {rows: 1}\naxes: {rows: [1]}": ["line 3, axes", "set twice, by parameters or another axis: rows"],
    "axes: {rows: [1], zip: {rows: [2]}}": ["set twice, by parameters or another axis: rows"],
    "axes: [rows]": ["line 2, axes", "must be a mapping"],
    "axis: {rows: [1]}": ["line 2, axis", "must be one of notebook, parameters, axes"],
    "axes: {rows: [1": ["cannot be read", "line 2"],
    "parameters: {flag: &a true}": ["cannot be read: line 2: no &, *, !, << or %"],
    "parameters: {options: {<<: {a: 1}}}": ["cannot be read: line 2: no &"],
    "...\n%YAML 1.1\n---\nparameters: {flag: yes}": ["cannot be read: line 3: no &"],
    "axes: false": ["line 2, axes", "must be a mapping, got False"],
    "parameters: 0": ["line 2, parameters", "must be a mapping, got 0"],
    "parameters: {options: {2020-01-01: 1}}": ["parameters.options", "mappings from text"],
}


def test_a_wrong_grid_is_refused(read, subtests):
    for text in WRONG:
        with subtests.test(text):
            with pytest.raises(ValueError, match=r"grid\.yaml") as caught:
                read(text)
            for part in WRONG[text]:
                assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path, make_grid):
    with pytest.raises(ValueError, match=r"none\.yaml cannot be read: .*No such file"):
        read_grid(tmp_path / "none.yaml")
    path = make_grid()
    for text, reason in {
        "notebook: none.ipynb": "no notebook at .*none.ipynb",
        "notebook: grid.yaml": "no notebook at",
        "axes: {}": r"grid\.yaml, notebook: .*; notebook must be given",
        "notebook: [a]": r"notebook: must be text, got \['a'\]",
        "notebook:": "notebook: must be text, got None",
        "- 1": "must be a mapping",
        "": "must be a mapping",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_grid(path)


def test_a_notebook_has_one_cell_of_parameters_that_takes_what_a_sweep_sets(make_grid, notebook):
    """Papermill would set them behind the first, and the second set them back."""
    document = nbformat.read(notebook, as_version=4)
    document.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(document, notebook)
    with pytest.raises(ValueError, match=r"tiny\.ipynb must have one cell tagged parameters, got 2"):
        read_grid(make_grid())

    write_notebook(notebook, [CELLS[0].replace("output = None  # for the table", ""), *CELLS[1:]])
    with pytest.raises(ValueError, match=r"tiny\.ipynb must declare output"):
        read_grid(make_grid())


def test_a_default_is_read_as_python_reads_it_or_takes_any_value(make_grid, notebook):
    write_notebook(notebook, [CELLS[0] + "\nhalf = 1 / 2  # computed", *CELLS[1:]])
    assert len(read_grid(make_grid({"half": ["x", 1]}))) == 2

    write_notebook(notebook, [CELLS[0] + '\nhashed: str = "a # b"  # c', *CELLS[1:]])
    with pytest.raises(ValueError, match=r"must be str, as hashed = 'a # b' in tiny\.ipynb, got 1 \(int\)"):
        read_grid(make_grid({"hashed": [1]}))


def names(path):
    return [run.name for run in read_grid(path)]


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


def test_another_version_of_the_package_or_of_the_data_is_another_run(make_grid, tmp_path, monkeypatch):
    before = names(make_grid())
    shutil.copytree(nib.datasets.SCENES, tmp_path / "scenes", ignore=shutil.ignore_patterns("*.py"))
    monkeypatch.setattr("runs.store.SCENES", tmp_path / "scenes")
    assert names(make_grid()) == before
    with (tmp_path / "scenes" / "scenes.parquet").open("ab") as file:
        file.write(b"0")
    assert names(make_grid()) != before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of `nib` whose code the runs are named after."""
    copy = tmp_path / "nib"
    shutil.copytree(ROOT / "nib", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(nib, "__file__", str(copy / "__init__.py"))
    return copy


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_a_run_is_named_after_what_the_modules_do_not_after_what_they_say(package, notebook):
    before, drawn = hash_inputs(notebook), hash_inputs(notebook, drawn=True)
    edit(package / "heatmaps.py", '    """Interpolate', '    # a comment\n    """Enlarge')
    assert hash_inputs(notebook, drawn=True) == drawn
    edit(package / "plotting.py", 'COLOURS = "RdBu_r"', 'COLOURS = "PuOr"')
    assert hash_inputs(notebook) == before
    assert hash_inputs(notebook, drawn=True) != drawn
    edit(package / "heatmaps.py", "align_corners=False", "align_corners=True")
    assert hash_inputs(notebook) != before


def test_nothing_that_computes_imports_what_draws():
    """Numbers would depend on `plotting`, which their hash leaves out."""
    uses = {path.stem for path in ROOT.glob("nib/**/*.py") if "nib.plotting" in path.read_text()}
    assert uses <= {"__init__", "charts", "interaction", "result"}


def test_a_grid_of_the_repository_is_read(subtests):
    for path in sorted(ROOT.glob("notebooks/grids/*.yaml")):
        with subtests.test(path.stem):
            assert len(read_grid(path)) > 1


def test_a_profile_sets_what_the_notebooks_declare(subtests):
    for profile in sorted(file.stem for file in PROFILES.glob("*.yaml")):
        with subtests.test(profile):
            assert [run.notebook for run in read_profile(profile, NOTEBOOKS)] == list(map(str, NOTEBOOKS))


def test_the_embedded_profile_is_the_notebooks_own_parameters():
    for run in read_profile("embedded", NOTEBOOKS):
        assert run.settings == Notebook(ROOT / run.notebook).fill({})


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    monkeypatch.setattr("runs.plan.PROFILES", tmp_path)
    (tmp_path / "own.yaml").write_text(
        "common: {rows: 5, second_layer: 1}\ntiny:\n  factor: 2\n00_quickstart: {x: 1}\n"
    )
    (tmp_path / "more.yaml").write_text("extends: own\ntiny: {rows: 6}\n")
    return tmp_path


def test_a_profile_has_common_own_and_inherited_parameters(profiles, notebook):
    assert find_parameters("own", Notebook(notebook)) == {"rows": 5, "factor": 2.0}
    assert find_parameters("more", Notebook(notebook)) == {"rows": 6, "factor": 2.0}
    (run,) = read_profile("own", [notebook], [["label", "7"], ["rows", "8"], ["names", "[a, b]"]])
    assert run.parameters == {"rows": 8, "factor": 2.0, "label": "7", "names": ["a", "b"]}


def test_what_a_notebook_does_not_declare_is_refused_for_profiles_and_single_runs(profiles, notebook):
    with pytest.raises(ValueError, match=r"tiny\.ipynb takes no wrong but rows"):
        read_profile("own", [notebook], [["wrong", "1"]])
    with pytest.raises(ValueError, match=r"rows: must be int, as rows = 4 in tiny\.ipynb, got 'x'"):
        read_profile("own", [notebook], [["rows", "x"]])
    with pytest.raises(ValueError, match=r"rows must have one value, got \[''\]"):
        read_profile("own", [notebook], [["rows", ""]])
    with pytest.raises(ValueError, match=r"rows must have one value, got \['1', '2'\]"):
        read_profile("own", [notebook], [["rows", "1"], ["rows", "2"]])
    (profiles / "own.yaml").write_text("tiny:\n  rows: 5\n  wrong: 1\n")
    with pytest.raises(ValueError, match=r"own\.yaml, line 3, tiny\.wrong: tiny\.ipynb takes no wrong"):
        read_profile("more", [notebook])
    with pytest.raises(ValueError, match=r"profile must be one of \['more', 'own'\], got 'no such'"):
        read_profile("no such", [notebook])
    with pytest.raises(ValueError, match="no notebook at"):
        read_profile("own", [notebook.with_name("none.ipynb")])


def test_one_notebook_in_two_places_is_refused(profiles, notebook):
    copy = shutil.copytree(notebook.parent, notebook.parents[1] / "copy") / notebook.name
    with pytest.raises(ValueError, match="notebooks must differ, got two of one name and content"):
        read_profile("own", [notebook, copy])
