"""An evaluation that is killed again and again ends with the table of one that is not."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from nib.metrics import METRICS

ROOT = Path(__file__).parents[1]
KILLS = 10
# Arguments: the model, the folder of parts, the table. Files are written in two halves with a pause
# between them, so that a kill can meet one that is half written.
PROGRAM = """
import io, sys, time
import pandas as pd
import nib

write = pd.DataFrame.to_parquet

def write_slowly(self, path, **options):
    buffer = io.BytesIO()
    write(self, buffer, **options)
    data = buffer.getvalue()
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(0.1)
        file.write(data[len(data) // 2 :])

pd.DataFrame.to_parquet = write_slowly
model, parts, output = sys.argv[1:]
settings = ["random", "saliency", {"method": "nib", "layer": 2}, {"method": "rise", "n_masks": 30, "text_masks": 10}]
settings.append({"method": "m2ib", "layer": 3, "n_steps": 3, "n_noise": 4})
frame = nib.evaluate(
    nib.load(model), nib.datasets.load("scenes", limit=40), settings, ["paper", "released"],
    metrics=["confidence", "localisation"], batch_size=4, output=parts, progress=False,
)
nib.save_table(frame, output)
"""


@pytest.fixture
def start(model_folder, tmp_path):
    """Start the program on a copy of the code: where that is edited meanwhile, parts are done again."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "nib", copy / "nib", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "data").symlink_to(ROOT / "data")

    def start(folder: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", PROGRAM, model_folder, folder / "parts", folder / "table.parquet"]
        return subprocess.Popen(list(map(str, command)), cwd=copy, stderr=subprocess.DEVNULL)

    return start


def finished(folder: Path) -> dict[str, tuple]:
    """Give each part with what would change if it were written again."""
    states = {path.name: path.stat() for path in (folder / "parts").glob("[!.]*")}
    return {name: (state.st_mtime_ns, state.st_ino) for name, state in states.items()}


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "parts").glob(".*"))


@pytest.mark.slow
def test_a_killed_evaluation_ends_with_the_table_of_an_uninterrupted_one(start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    (killed / "parts").mkdir(parents=True)
    for name in finished(whole):  # no partial file is ever read, whatever it holds
        (killed / "parts" / f".{name}.0123").write_bytes(b"PAR1")
    planted, done = len(leftovers(killed)), {}
    rng = random.Random(0)
    for kill in range(KILLS):
        process, partial = start(killed), len(leftovers(killed))
        new_parts = rng.randint(0, 3)
        while len(finished(killed)) < len(done) + new_parts:
            assert process.poll() is None
            time.sleep(0.01)
        while kill % 2 and len(leftovers(killed)) == partial:  # every second kill meets a file that is half written
            assert process.poll() is None
            time.sleep(0.01)
        if not kill % 2:  # the others any point, or the start
            time.sleep(rng.uniform(0, 0.3) if new_parts else rng.uniform(0, 8))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert done.items() <= finished(killed).items()  # nothing is lost or done again
        done = finished(killed)
        assert not (killed / "table.parquet").exists()
    assert 0 < len(done) < len(finished(whole))
    assert len(leftovers(killed)) > planted
    assert start(killed).wait() == 0
    assert done.items() <= finished(killed).items()
    assert finished(killed).keys() == finished(whole).keys()
    tables = [pd.read_parquet(folder / "table.parquet") for folder in (killed, whole)]
    assert len(tables[0]) == 40 * 5 * 2 * sum(len(METRICS[name].values) for name in ("confidence", "localisation"))
    assert_frame_equal(*tables, check_exact=True)
    assert (killed / "table.parquet").read_bytes() == (whole / "table.parquet").read_bytes()
