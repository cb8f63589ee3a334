"""Draw the training curve of `log.csv` for the card: `python -m data.mini_clip.plot_curve`."""

from pathlib import Path

import pandas as pd

from nib.plotting import new_figure

HERE = Path(__file__).parent

if __name__ == "__main__":
    log = pd.read_csv(HERE / "log.csv")
    grown = log.step[log.depth == log.depth.max()].min()
    figure = new_figure(7, 2.6)
    for axes, column, label in zip(
        figure.subplots(1, 2), ("loss", "batch_accuracy"), ("loss", "accuracy in the batch")
    ):
        axes.plot(log.step, log[column], color="#0072B2")
        axes.axvline(grown, color="0.5", linestyle="--", linewidth=0.8)
        axes.annotate(" grown to 12 + 12", (grown, axes.get_ylim()[1]), va="top", color="0.3", fontsize=8)
        axes.set(xlabel="step", ylabel=label)
    figure.savefig(HERE / "curve.png", dpi=100, metadata={"Software": None})
