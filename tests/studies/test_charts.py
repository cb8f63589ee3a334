"""Charts show the means and intervals that they are given."""

import numpy as np
import pandas as pd
import pytest

from studies.charts import label_metrics, note_pairs, plot_bars, plot_counts, plot_lines, plot_rows, plot_signs
from studies.overview import plot_marks, plot_table
from studies.style import CONTROLS, GREY, NIB, PAGE, colour_methods


@pytest.fixture
def summary():
    rows = [
        dict(x=x, panel=panel, line=line, mean=x + shift, low=x + shift - 1, high=x + shift + 2)
        for panel in ("first", "second")
        for line, shift in (("a", 0.0), ("b", 10.0))
        for x in (3, 1, 2)
    ]
    return pd.DataFrame(rows)


def test_lines_and_references_are_the_means_and_unused_panels_are_empty(summary):
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

    level = pd.DataFrame([dict(panel="second", line="b", mean=7.0)])
    figure = plot_lines(summary, "x", "panel", "line", references=level)
    first, second = figure.axes
    assert len(first.lines) == 2
    assert set(second.lines[2].get_ydata()) == {7.0}
    assert second.lines[2].get_color() == second.lines[1].get_color()

    figure = plot_lines(summary.assign(panel=summary.panel + summary.line), "x", "panel", "line", columns=3)
    assert len(figure.axes) == 6
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


def test_rows_stand_in_the_given_order_and_their_marks_apart(summary):
    table = summary[summary.x == 1].rename(columns={"line": "method"}).assign(mark="data")
    figure = plot_rows(table, "method", "panel", "mark", ["b", "a"], {"first": "one"})
    one, second = figure.axes
    assert (one.get_title(), second.get_title()) == ("one", "second")
    assert [label.get_text() for label in one.get_yticklabels()] == ["b", "a"]
    line = one.containers[0].lines[0]
    assert dict(zip(line.get_ydata(), line.get_xdata())) == {0: 11.0, 1: 1.0}
    (segments,) = (bars.get_segments() for bars in one.containers[0].lines[2])
    assert sorted(tuple(segment[:, 0]) for segment in segments) == [(0, 3), (10, 13)]

    table = summary[summary.x == 1].rename(columns={"line": "mark"}).assign(method="nib")
    figure = plot_rows(table, "method", "panel", "mark", ["nib"])
    places = [container.lines[0].get_ydata()[0] for container in figure.axes[0].containers]
    assert len(set(places)) == 2
    assert sum(places) == pytest.approx(0)


def test_marks_stand_where_their_row_says_and_their_names_do_not_meet():
    table = pd.DataFrame({"dark": [0.1, 0.7], "drop": [3.0, 9.0], "more": [0, 0]}, index=["nib", "m2ib"])
    (axes,) = plot_marks(table, "dark", "drop", {"drop": "Drop (points)"}).axes
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines] == [(0.1, 3.0), (0.7, 9.0)]
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("nib", (0.1, 3.0)), ("m2ib", (0.7, 9.0))]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dark", "Drop (points)")

    names = ["nib", "m2ib", "gradcam", "rise"]
    table = pd.DataFrame({"x": [1.0, 1.01, 1.02, 5.0], "y": [1.0, 1.0, 1.01, 5.0]}, index=names)
    (axes,) = plot_marks(table, "x", "y").axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == list(table.index)
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


ORDERS = {"low": ["b", "nib", "a"], "high": ["a", "nib", "b"], None: ["nib", "a", "b"]}


def test_rows_are_sorted_by_the_first_panel_and_controls_stand_apart(subtests):
    for best, order in ORDERS.items():
        with subtests.test(f"{best}, {order}"):
            means = {"random": 0.0, "nib": 2.0, "a": 3.0, "b": 1.0}
            cells = [
                (name, panel, value * sign) for name, value in means.items() for panel, sign in (("p", 1), ("q", -1))
            ]
            table = pd.DataFrame(cells, columns=["method", "panel", "mean"]).assign(mark="data")
            table = table.assign(low=table["mean"], high=table["mean"])
            figure = plot_rows(table, "method", "panel", "mark", ["random", "nib", "a", "b"], best=best)
            labels = figure.axes[0].get_yticklabels()
            assert [label.get_text() for label in labels] == [*order, "random"]
            colours = {label.get_text(): label.get_color() for label in labels}
            assert (colours["nib"], colours["random"]) == (NIB, GREY)
            assert colours["a"] == colours["b"] not in (NIB, GREY)
            assert figure.axes[0].lines[-1].get_ydata()[0] == 2.5  # the line above the controls
            assert figure.get_size_inches()[0] == PAGE


def test_colours_are_of_methods_and_not_of_places():
    alone, among = colour_methods(["m2ib"]), colour_methods(["nib", "rise", "random", "m2ib"])
    assert alone["m2ib"] == among["m2ib"] != among["rise"]
    assert among["nib"] == NIB
    assert NIB not in (among["rise"], among["m2ib"])
    assert {colour_methods(CONTROLS)[name] for name in CONTROLS} == {GREY}


def test_pairs_are_counted(summary):
    assert note_pairs(summary) == ""
    assert note_pairs(summary.assign(n=5)) == "mean and 95 % interval, n = 5"
    assert (
        note_pairs(summary.assign(n=range(1, len(summary) + 1))) == f"mean and 95 % interval, n = 1 to {len(summary)}"
    )
    figure = plot_lines(summary.assign(n=5), "x", "panel", "line")
    assert figure.legends[0].get_title().get_text() == "mean and 95 % interval, n = 5"


def test_a_table_shows_its_numbers_and_a_metric_its_better_side():
    table = pd.DataFrame([[1.0, np.nan], [2.0, 3.0]], ["nib", "m2ib"], ["image_drop", "auc"])
    figure = plot_table(table, "rank", "viridis", (1, 3))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["image drop", "auc"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nib", "m2ib"]

    names = {"image_drop": "image drop ↓ (points)", "text_increase": "text increase ↑ (%)", "auc": "auc ↑"}
    names |= {"dark_share": "dark share", "image_gap": "image gap"}  # neither side is better
    assert label_metrics(list(names)) == names


def test_signed_bars_and_shares_point_to_their_sides():
    table = pd.DataFrame({"word": ["dog", "near"], "mean": [0.2, -0.1], "low": [0.1, -0.3], "high": [0.3, 0.0]})
    table["n"] = [9, 8]
    (axes,) = plot_bars(table, "word", "score").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog (9)", "near (8)"]
    assert [bar.get_width() for bar in axes.patches] == [0.2, -0.1]
    (red, _, blue, _), (other_red, _, other_blue, _) = (bar.get_facecolor() for bar in axes.patches)
    assert red > blue
    assert other_red < other_blue

    cells = [("asked", "nib", "for", 0.6), ("asked", "nib", "against", 0.2), ("other", "nib", "for", 0.1)]
    table = pd.DataFrame([*cells, ("other", "nib", "against", 0.4)], columns=["region", "method", "sign", "mean"])
    table = table.assign(low=table["mean"] - 0.05, high=table["mean"] + 0.05)
    asked, other = plot_signs(table, {"asked": 0.3, "other": 0.25}).axes
    assert [bar.get_width() for bar in asked.patches] == [0.6, -0.2]
    assert [bar.get_width() for bar in other.patches] == [0.1, -0.4]
    assert {abs(line.get_xdata()[0]) for line in asked.lines if line.get_linestyle() == ":"} == {0.3}


def test_counts_are_bars_with_what_was_published():
    counts = pd.DataFrame({"forward": [3.5, 501.0], "backward": [2.5, 0.0]}, index=["nib", "rise"])
    published = pd.DataFrame({"forward": [12.0], "backward": [10.0]}, index=["nib"])
    figure = plot_counts(counts, published, "passes")
    for axes, name in zip(figure.axes, counts):
        assert (axes.get_title(), axes.get_xscale(), axes.get_xlabel()) == (name, "log", "passes")
        widths = [bar.get_width() for bar in axes.patches if bar.get_facecolor()[3] == 1]
        assert [0 if np.isnan(width) else width for width in widths] == list(counts[name])
        (diamonds,) = (line for line in axes.lines if line.get_marker() == "D")
        assert np.array_equal(diamonds.get_xdata(), [published.loc["nib", name], np.nan], equal_nan=True)
        assert [text.get_text() for text in axes.texts] == [f"{value:.3g}" for value in counts[name]]
