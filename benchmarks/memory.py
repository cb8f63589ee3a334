"""Measure the memory that an attribution takes: bounded by `batch_size`, flat in pairs and steps?

    python -m benchmarks.memory        # part of `make bench`; Linux

Each measurement is a process of its own, whose allocator hands memory back at once: the peak of the resident
memory during the call less what was resident before it, after a small call. ViT-B/32's geometry with random weights,
picture and text, layer 9; then `nib.attribute` on the embedded model, with pictures given as paths, where the results
themselves are kept. Writes benchmarks/memory.csv.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

import nib
from benchmarks.contenders import CONTENDERS, Case, make_clip, make_pairs

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


def read_status(name: str) -> float:
    """Return an entry of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure(call) -> float:
    """Return the peak of a call in MiB over what was there before it."""
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    result = call()  # what it returns is part of the peak
    peak = read_status("VmHWM") - before
    del result
    return peak


def measure_contender(contender: str, pairs: int, n_steps: int, batch_size: int) -> float:
    """Measure one contender on some pairs."""
    clip = make_clip()
    small = Case(clip, **make_pairs(clip, 1), n_steps=2, batch_size=2)
    CONTENDERS[contender](small)
    case = Case(clip, **make_pairs(clip, pairs), n_steps=n_steps, batch_size=batch_size)
    return measure(lambda: CONTENDERS[contender](case))


def measure_attribute(pairs: int, n_steps: int, batch_size: int) -> float:
    """Measure `nib.attribute` on many pairs: few pictures on disk, over and over."""
    clip, data = nib.load(), nib.datasets.load("scenes", limit=20)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(data))]
        for path, image in zip(paths, data["image"]):
            image.save(path)
        pictures = [paths[number % len(paths)] for number in range(pairs)]
        texts = ["a red car under a tree"] * pairs
        options = dict(n_steps=n_steps, batch_size=batch_size, progress=False)
        nib.attribute(clip, pictures[:2], texts[:2], **options)
        return measure(lambda: nib.attribute(clip, pictures, texts, **options))


def list_cases() -> list[dict]:
    """Name what is measured."""
    cases = [
        dict(contender=contender, pairs=pairs, n_steps=n_steps, batch_size=32)
        for contender in CONTENDERS
        for pairs, n_steps in ((8, 10), (8, 50), (32, 10))
    ]
    cases += [dict(contender="nib", pairs=32, n_steps=10, batch_size=size) for size in (8, 128)]
    return cases + [
        dict(contender="nib.attribute", pairs=pairs, n_steps=n_steps, batch_size=32)
        for pairs, n_steps in ((100, 5), (100, 20), (500, 5), (2000, 5))
    ]


def main(args) -> None:
    if args.case:
        torch.set_num_threads(args.threads)
        case = json.loads(args.case)
        kind = measure_attribute if case["contender"] == "nib.attribute" else measure_contender
        case = {name: value for name, value in case.items() if kind is measure_contender or name != "contender"}
        print(kind(**case))
        return
    rows = []
    for case in tqdm(list_cases(), desc="memory"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.memory",
            "--case",
            json.dumps(case),
            "--threads",
            str(args.threads),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        run = subprocess.run(command, env=environment | GIVE_BACK, capture_output=True, text=True, check=True)
        rows.append({**case, "peak_mib": float(run.stdout.split()[-1])})
    frame = pd.DataFrame(rows)
    frame.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.0f", lineterminator="\n")
    print(frame.round(0).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", help="measure this one alone, given as JSON, and print its MiB")
    main(parser.parse_args())
