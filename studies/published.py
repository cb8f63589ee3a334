"""Read and draw the values that the paper reports, in the form of our own tables.

Exports `read_published` and `plot_published`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from studies.charts import arrange, plot_lines, plot_rows
from studies.style import THEME

METRICS = ["image_drop", "image_increase", "text_drop", "text_increase"]
NOTE = "The paper's values: another model, other pictures; compare trends, not levels."


def read_published(path: str | Path, *tables: int) -> pd.DataFrame:
    """Return the values of some tables of the paper under the names of metrics and data sets here.

    Args:
        path: of published_results.csv.
        tables: their numbers in the paper; a value that stands in several is kept once.

    Returns:
        Columns `dataset`, `method`, `n_steps`, `layer`, `beta`, `metric` and `mean`; `low` and `high` are the mean.
    """
    found = pd.read_csv(path)
    found = found[found["table"].isin(tables)].drop(columns="table").rename(columns={"value": "mean"})
    found["metric"] = found["metric"].str.replace("confidence_", "")
    found = found.replace({"dataset": {"imagenet": "tiny_imagenet"}}).drop_duplicates()
    return found.assign(low=found["mean"], high=found["mean"])


@plt.rc_context(THEME)
def plot_published(published: pd.DataFrame, x: str, **options) -> Figure:
    """Draw Drop and Increase against a number, or with a row for each method where `x` is "method".

    Args:
        published: what `read_published` returns.
        options: of `studies.charts.plot_lines`.
    """
    shown = arrange(published, METRICS)
    if x == "method":
        figure = plot_rows(shown, x, "metric", "dataset", list(shown[x].unique()), best="low")
    else:
        figure = plot_lines(shown, x, "metric", "dataset", **options)
    figure.suptitle(NOTE, fontsize=8)
    return figure
