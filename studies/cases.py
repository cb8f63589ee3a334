"""Draw single cases: the picture, its map with the outline of what is named, and its words.

Exports `draw_cases` and `tabulate_case`.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nib.plotting import draw_map, draw_words, new_figure
from nib.result import Attribution
from studies.style import PAGE, THEME


@plt.rc_context(THEME)
def draw_cases(cases: Mapping[str, tuple[Attribution, np.ndarray | None]], columns: int = 3) -> Figure:
    """Draw each case in a panel of its own, with scales of its own.

    Args:
        cases: title -> a result, and the mask (height, width) that is outlined, or None.
        columns: panels in a row.
    """
    rows, longest = -(-len(cases) // columns), max(len(result.words) for result, _ in cases.values())
    upper, lower = PAGE / columns / 2, 0.14 * max(longest, 6)
    figure = new_figure(PAGE, rows * (upper + lower + 0.45))
    for panel, (title, (result, mask)) in zip(figure.subfigures(rows, columns, squeeze=False).flat, cases.items()):
        grid = panel.add_gridspec(2, 2, height_ratios=(upper, lower))
        left, right, below = (panel.add_subplot(grid[place]) for place in ((0, 0), (0, 1), (1, slice(None))))
        left.imshow(result.picture)
        left.set_axis_off()
        draw_map(right, result.picture, result.image_scores)
        for axes in (left, right) if mask is not None else ():
            axes.contour(mask, [0.5], colors="black", linewidths=0.6)
        draw_words(below, result.words, result.word_scores)
        below.set(xlabel="")
        panel.suptitle(title, fontsize=8)
    return figure


def tabulate_case(result: Attribution, **labels) -> pd.DataFrame:
    """Return a row a patch (columns `of`, `row`, `column`, `score`) and a row a word (`of`, `word`, `score`).

    Args:
        labels: further columns, the same in every row.
    """
    rows, columns = np.indices(result.image_scores.shape)
    places = {"row": rows.ravel(), "column": columns.ravel(), "score": result.image_scores.ravel()}
    words = {"word": result.words, "score": result.word_scores}
    return pd.concat(
        [pd.DataFrame({**labels, "of": "patch", **places}), pd.DataFrame({**labels, "of": "word", **words})]
    )
