"""Race `nib` against a plain loop and captum, and against what the machine can do.

    python -m benchmarks.speed                          # `make bench`: both models, 2 threads, six rounds
    python -m benchmarks.speed --models embedded        # in a minute or two
    python -m benchmarks.speed --devices cuda           # float32 and bfloat16; by default run too where there is a GPU

ViT-B/32's geometry with random weights, and the embedded model; picture, text, both; 1, 8 and 32 pairs; one picture
with 1, 10 and 100 captions; layer 9, 10 steps. All contenders run in one process, in turns. The interval of a
ratio runs from the smallest to the largest of its rounds: of six, that holds the true median with 97 %.

Beside the times stand the floating-point operations of `nib` (torch's FlopCounterMode), the machine's rate at
matrix products of the same shapes, measured before each case, and the fraction of it that is reached.
`--tune` tries how many rows should go through the suffix at once.

Writes benchmarks/speed.csv and speed.png (on a GPU: speed_cuda), and speed_precision.csv: how far bfloat16's maps
agree with float32's.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import nib
from benchmarks.contenders import CONTENDERS, Case, explain_with_nib, make_clip, make_pairs, timed
from nib.plotting import new_figure

FOLDER = Path(__file__).parent
MODELS = ("ViT-B/32", "embedded")
BATCH_SIZES = {"cpu": 32, "cuda": 512}  # on two CPU threads by `--tune`, where 16 to 64 are alike; on a GPU a guess


def list_cases() -> list[dict]:
    """Name the cases: sides, pictures and captions."""
    pairs = [dict(sides=sides, pictures=n, captions=n) for sides in ("both", "image", "text") for n in (1, 8, 32)]
    return pairs + [dict(sides="image", pictures=1, captions=n) for n in (10, 100)]


def measure_matmul(clip: nib.HookedCLIP, rows: int) -> float:
    """Return the rate of the matrix product of an MLP's first layer, operations a second: the best of 20."""
    config = clip.model.config.vision_config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    left = torch.randn(rows * tokens, config.hidden_size, device=clip.device, dtype=clip.dtype)
    right = torch.randn(config.hidden_size, config.intermediate_size, device=clip.device, dtype=clip.dtype)
    seconds = min(timed(clip, lambda: left @ right)[0] for _ in range(20))
    return 2 * left.numel() * right.shape[1] / seconds


class AllAsOne(nullcontext):
    """Stands in for FlopCounterMode's tracker of modules, which stops at `torch.autograd.grad` of a leaf."""

    parents = ("Global",)


def count_flops(case: Case) -> int:
    """Count the operations of matrix products and convolutions in `nib`, attention written out."""
    case.clip.model.set_attn_implementation("eager")
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = AllAsOne()
    with counter:
        explain_with_nib(case)
    case.clip.model.set_attn_implementation("sdpa")
    return counter.get_total_flops()


def race(clip: nib.HookedCLIP, case: Case, repeats: int) -> pd.DataFrame:
    """Time the contenders in turns: one row a contender and round, with the ratio to `nib` in that round."""
    rows = []
    for repeat in range(repeats):
        seconds = {name: timed(clip, lambda: explain(case))[0] for name, explain in CONTENDERS.items()}  # noqa: B023
        rows += [
            dict(contender=name, repeat=repeat, seconds=taken, ratio=taken / seconds["nib"])
            for name, taken in seconds.items()
        ]
    return pd.DataFrame(rows)


def summarise(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return medians, and the range of the ratio."""
    found = rounds.groupby("contender", sort=False).agg(
        seconds=("seconds", "median"), ratio=("ratio", "median"), low=("ratio", "min"), high=("ratio", "max")
    )
    return found.reset_index()


def run(model: str, device: str, dtype: str, batch_size: int, repeats: int) -> list[pd.DataFrame]:
    """Run all cases of one model and precision."""
    clip = make_clip(device, dtype) if model == MODELS[0] else nib.load(device=device, dtype=dtype)
    for explain in CONTENDERS.values():  # warms up
        explain(Case(clip, **make_pairs(clip, 2), batch_size=batch_size))
    tables = []
    for named in tqdm(list_cases(), desc=f"{model}, {dtype}"):
        inputs = make_pairs(clip, named["pictures"], named["captions"])
        case = Case(clip, **inputs, sides=named["sides"], batch_size=batch_size)
        rate, flops = measure_matmul(clip, batch_size), count_flops(case)
        table = summarise(race(clip, case, repeats))
        nib_seconds = float(table.loc[table["contender"] == "nib", "seconds"].iloc[0])
        about = dict(model=model, device=device, dtype=dtype, threads=torch.get_num_threads(), **named)
        speed = dict(gflop=flops / 1e9, matmul_gflops=rate / 1e9, fraction=flops / nib_seconds / rate)
        tables.append(table.assign(repeats=repeats, **about, **speed))
    return tables


def compare_precisions(device: str) -> pd.DataFrame:
    """Correlate bfloat16's maps with float32's by rank, on 64 pairs of the embedded data."""
    data = nib.datasets.load("scenes", limit=64)
    found = {}
    for dtype in ("float32", "bfloat16"):
        clip = nib.load(device=device, dtype=dtype)
        results = nib.attribute(clip, list(data["image"]), list(data["text"]), progress=False)
        found[dtype] = [(result.image_scores.ravel(), result.token_scores) for result in results]
    rows = []
    for side, name in enumerate(("image", "text")):
        ranks = [spearmanr(one[side], other[side])[0] for one, other in zip(*found.values())]
        low, high = nib.metrics.bootstrap_interval(np.array(ranks))
        rows.append(
            dict(device=device, side=name, pairs=len(data), rank_correlation=np.mean(ranks), low=low, high=high)
        )
    return pd.DataFrame(rows)


def tune(clip: nib.HookedCLIP, repeats: int) -> pd.DataFrame:
    """Time captum and `nib` on 8 pairs with several batch sizes, in turns."""
    pairs, rows = make_pairs(clip, 8), []
    for _ in range(repeats):
        for size in (8, 16, 32, 64, 128):
            case = Case(clip, **pairs, batch_size=size)
            for name in ("captum", "nib"):
                seconds = timed(clip, lambda: CONTENDERS[name](case))[0]  # noqa: B023
                rows.append(dict(contender=name, batch_size=size, seconds=seconds))
    by = ["contender", "batch_size"]
    return pd.DataFrame(rows).groupby(by)["seconds"].agg(["median", "min", "max"]).reset_index()


def draw(frame: pd.DataFrame) -> plt.Figure:
    """Draw how many times as long the others take, a row a case."""
    figure = new_figure(11, 4.6)
    models = list(frame.model.unique())
    for axes, model in zip(figure.subplots(1, len(models), sharey=True, squeeze=False).flat, models):
        part = frame[frame.model == model]
        labels = list(dict.fromkeys(part.label))
        for number, (name, rows) in enumerate(part[part.contender != "nib"].groupby("contender", sort=False)):
            places = [labels.index(label) + 0.18 * (2 * number - 1) for label in rows.label]
            errors = [rows.ratio - rows.low, rows.high - rows.ratio]
            axes.errorbar(rows.ratio, places, xerr=errors, fmt="os"[number], ms=5, label=name, color=f"C{number}")
        axes.axvline(1, color="0.4", linewidth=0.8)
        axes.set(title=model, xlabel="seconds relative to nib", xscale="log")
        ticks = [tick for tick in (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50) if tick <= frame.high.max() * 1.1]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(labels)), labels)
        axes.grid(axis="both", color="0.92")
    figure.axes[0].invert_yaxis()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def label(row) -> str:
    """Name a case for a reader."""
    side = {"both": "picture and text", "image": "picture", "text": "text"}[row.sides]
    many = (
        f"{row.pictures} pair{'s' * (row.pictures > 1)}" if row.captions == row.pictures else f"{row.captions} captions"
    )
    return f"{side}, {many}"


def main(args) -> None:
    torch.set_num_threads(args.threads)
    for device in args.devices or ["cpu"] + ["cuda"] * torch.cuda.is_available():
        batch_size = args.batch_size or BATCH_SIZES[device]
        if args.tune:
            print(tune(make_clip(device), args.repeats).round(3).to_string(index=False))
            continue
        stem = FOLDER / ("speed" if device == "cpu" else f"speed_{device}")
        tables = []
        for model in args.models:
            for dtype in ("float32",) if device == "cpu" else ("float32", "bfloat16"):
                tables += run(model, device, dtype, batch_size, args.repeats)
                save(pd.concat(tables, ignore_index=True), stem)
        report(pd.concat(tables, ignore_index=True), stem)
        precisions = compare_precisions(device)
        save(precisions, stem.with_name(f"{stem.name}_precision"))
        print(precisions.round(4).to_string(index=False))


def save(frame: pd.DataFrame, stem: Path) -> None:
    frame.to_csv(f"{stem}.csv", index=False, float_format="%.4g", lineterminator="\n")


def report(frame: pd.DataFrame, stem: Path) -> None:
    """Print the table and what a further caption costs, and draw the ratios."""
    single = frame[frame["dtype"] == "float32"]
    figure = draw(single.assign(label=[label(row) for row in single.itertuples()]))
    figure.savefig(f"{stem}.png", metadata={"Software": None})
    print(frame.drop(columns=["device", "repeats"]).round(3).to_string(index=False))
    for model, part in single[(single.contender == "nib") & (single.sides == "image")].groupby("model", sort=False):
        seconds = part[part.pictures == 1].set_index("captions")["seconds"]
        for more in (10, 100):
            share = (seconds[more] - seconds[1]) / (more - 1) / seconds[1]
            print(f"{model}: a further caption of {more} on one picture costs {share:.0%} of the first")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batch-size", type=int, help=f"rows in the suffix at once, for captum and nib: {BATCH_SIZES}")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--devices", nargs="+", help="cpu, and cuda where there is a GPU")
    parser.add_argument("--tune", action="store_true", help="only find the batch size")
    main(parser.parse_args())
