"""Training that is killed goes on as if it had not been."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONS = ["--scale", "0.003", "--batch-size", "8", "--checkpoint-every", "1"]


def start(output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "data.mini_clip.train", *OPTIONS, "--output", str(output)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    for _ in range(3):  # before growing, after it, in the last stage: wherever the time falls
        process = start(killed)
        while not (killed / "checkpoints" / "last.pt").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed).wait() == 0
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
