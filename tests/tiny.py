"""A notebook that takes no time, and fails in every way that one can."""

import time
from pathlib import Path

import nbformat

CELLS = [
    """rows = 4  # of the table
factor = 1.0  # of its values
do = "work"  # or raise, raise once, hang, die, nothing, peek
where = None  # a folder in which each execution leaves a file
seconds = 0.0  # of sleep
names = ["a"]  # a list
options = {}  # a mapping
label = ""  # a text
flag = False  # a switch
anything = None  # of any type
shard = [0, 1]  # rows i, i + n, ... alone
figures_dir = "figures"  # for figures
output = None  # for the table""",
    "import os, time, uuid\nfrom pathlib import Path\nimport pandas as pd",
    """if where:
    before = len(list(Path(where).iterdir()))
    (Path(where) / uuid.uuid4().hex).write_text(str(os.getpid()))
if do == "raise" or do == "raise once" and not before:
    raise ValueError("no such luck")
if do == "die":
    os.kill(os.getpid(), 9)
time.sleep(600 if do == "hang" else seconds)""",
    """ids = range(shard[0], rows, shard[1])
frame = pd.DataFrame({"id": ids, "value": [factor * (i + 0.1) for i in ids]})
if do == "peek":
    names = ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"]
    frame = pd.DataFrame({name: [os.environ.get(name)] for name in names})
    frame = frame.assign(folder=os.getcwd(), parts_dir=parts_dir)
(Path(figures_dir) / "figure.txt").write_text("drawn")
if output and do != "nothing":
    frame.to_parquet(output)""",
]


def write_notebook(path: Path, cells=tuple(CELLS)) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    return path


def wait_for(condition, seconds: float):
    """Wait until something holds, and give it; fail if it takes longer."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found
