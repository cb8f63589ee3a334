"""Charts show the means and intervals that they are given."""

import numpy as np
import pandas as pd
import pytest

from studies.charts import plot_lines, plot_marks, plot_rows


@pytest.fixture
def summary():
    rows = [
        dict(x=x, panel=panel, line=line, mean=x + shift, low=x + shift - 1, high=x + shift + 2)
        for panel in ("first", "second")
        for line, shift in (("a", 0.0), ("b", 10.0))
        for x in (3, 1, 2)
    ]
    return pd.DataFrame(rows)


def test_lines_are_the_means_in_order_of_x(summary):
    figure = plot_lines(summary, "x", "panel", "line", label="steps")
    assert [axes.get_title() for axes in figure.axes] == ["first", "second"]
    for axes in figure.axes:
        assert axes.get_xlabel() == "steps"
        for line, shift in zip(axes.lines, (0, 10)):
            assert np.array_equal(line.get_xdata(), [1, 2, 3])
            assert np.array_equal(line.get_ydata(), np.array([1, 2, 3]) + shift)
        bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
        assert [(band.min(), band.max()) for band in bands] == [(0, 5), (10, 15)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_references_are_level_lines_of_their_line_and_panel(summary):
    level = pd.DataFrame([dict(panel="second", line="b", mean=7.0)])
    figure = plot_lines(summary, "x", "panel", "line", references=level)
    first, second = figure.axes
    assert len(first.lines) == 2
    assert set(second.lines[2].get_ydata()) == {7.0}
    assert second.lines[2].get_color() == second.lines[1].get_color()


def test_unused_panels_are_empty(summary):
    figure = plot_lines(summary.assign(panel=summary.panel + summary.line), "x", "panel", "line", columns=3)
    assert len(figure.axes) == 6
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


def test_rows_stand_in_the_given_order_with_their_intervals(summary):
    table = summary[summary.x == 1].rename(columns={"line": "method"}).assign(mark="data")
    figure = plot_rows(table, "method", "panel", "mark", ["b", "a"], {"first": "one"})
    one, second = figure.axes
    assert (one.get_title(), second.get_title()) == ("one", "second")
    assert [label.get_text() for label in one.get_yticklabels()] == ["b", "a"]
    line = one.containers[0].lines[0]
    assert dict(zip(line.get_ydata(), line.get_xdata())) == {0: 11.0, 1: 1.0}
    (segments,) = (bars.get_segments() for bars in one.containers[0].lines[2])
    assert sorted(tuple(segment[:, 0]) for segment in segments) == [(0, 3), (10, 13)]


def test_marks_of_one_row_stand_apart(summary):
    table = summary[summary.x == 1].rename(columns={"line": "mark"}).assign(method="nib")
    figure = plot_rows(table, "method", "panel", "mark", ["nib"])
    places = [container.lines[0].get_ydata()[0] for container in figure.axes[0].containers]
    assert len(set(places)) == 2
    assert sum(places) == pytest.approx(0)


def test_marks_stand_where_their_row_says():
    table = pd.DataFrame({"dark": [0.1, 0.7], "drop": [3.0, 9.0], "more": [0, 0]}, index=["nib", "m2ib"])
    (axes,) = plot_marks(table, "dark", "drop", {"drop": "Drop (points)"}).axes
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines] == [(0.1, 3.0), (0.7, 9.0)]
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("nib", (0.1, 3.0)), ("m2ib", (0.7, 9.0))]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dark", "Drop (points)")
