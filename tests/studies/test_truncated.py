"""Paths above zero: what is followed, listed, measured, chosen and drawn is what the functions say."""

import itertools

import numpy as np
import pandas as pd
import pytest

from nib.evaluation import Batch, read_pairs
from nib.methods import METHODS
from studies import truncated
from studies.theory import profile

HALF = dict(quadrature="gausslegendre", n_steps=2, lambda_min=0.5)


@pytest.fixture
def pairs(pixel_values, tokens):
    return Batch(["a", "b", "c"], pixel_values, tokens["input_ids"], tokens["attention_mask"], None)


@pytest.fixture
def values():
    """Three paths on four prompts at one layer, with every metric: |gap| and |difference|, and AUC."""
    sizes = {("right", 10, 0.0): (0.4, 0.8), ("gauss", 5, 0.1): (0.01, 0.4), ("gauss", 5, 0.2): (0.002, 0.2)}
    rows = []
    for (rule, n, start), (gap, explained) in sizes.items():
        found = {f"{side}_difference": explained for side in ("image", "text")} | {
            "image_gap": gap,
            "text_gap": 2 * gap,
        }
        found |= {"image_gap_from_zero": 2.0, "text_gap_from_zero": 3.0, "auc": 0.5 + start, "text_drop": 10 * start}
        setting = dict(layer=9, quadrature=rule, n_steps=n, lambda_min=start, path=f"{rule} {n}, λ ≥ {start:g}")
        for metric, number in itertools.product(found, range(4)):
            rows.append({**setting, "id": f"scenes-{number}", "metric": metric, "value": found[metric] * (1 + number)})
    return pd.DataFrame(rows)


def test_prompts_name_their_object_and_every_path_is_listed_once():
    found = truncated.read_prompts({"scenes": 2, "objects": 1})
    assert [row["id"] for row in found["scenes"]] == ["scenes-0", "scenes-1"]
    assert len(found["objects"]) == 1
    row = found["scenes"][1]
    assert row["text"].startswith(("a photo of a ", "a photo of an "))
    assert row["masks"].any()
    assert row["masks"].shape == row["image"].size[::-1]

    found = truncated.list_paths({"riemann_right": [3], "gausslegendre": [2, 5]}, [6, 9], [0.0, 0.1])
    assert len({tuple(setting.values()) for setting in found}) == len(found) == 12
    wanted = {"method": "nib", "layer": 6, "quadrature": "gausslegendre", "n_steps": 5, "lambda_min": 0.1}
    assert wanted in found
    assert truncated.name_path("riemann_right", 10, 0.0) == "right Riemann 10, λ ≥ 0"
    assert truncated.name_path("simpson", 3, 0.25) == "simpson 3, λ ≥ 0.25"


def test_what_is_followed_is_f_and_what_is_left_of_the_way(clip, pairs):
    points = [0.0, 0.1, 1.0]
    found = truncated.follow_paths(clip, pairs, [2], points).set_index(["panel", "lambda"])["mean"]
    split = clip.text.split(pairs.input_ids, 2, pairs.attention_mask)
    start, low, end = profile(split, pairs.embeds(clip)[0], points)[0]
    assert found["F(λz), text", 0.1] == pytest.approx(low.mean().item())
    assert found["F(λz), text", 1.0] == pytest.approx(end.mean().item())
    left = (end - low).abs().mean() / (end - start).abs().mean()
    assert found["left to explain, text", 0.1] == pytest.approx(left.item())
    assert found["left to explain, picture", 1.0] == 0
    assert "F(λz), picture" in found.index
    assert 0.0 not in found.index.get_level_values("lambda")


def test_measured_gaps_are_absolute_and_those_of_nib(clip):
    prompts = truncated.read_prompts({"scenes": 3})
    found = truncated.measure_paths(clip, prompts, truncated.list_paths({"gausslegendre": [2]}, [2], [0.5]))
    assert set(found["path"]) == {"Gauss-Legendre 2, λ ≥ 0.5"}
    assert not found["metric"].str.contains("relative").any()
    table = found.pivot(index="id", columns="metric", values="value")
    assert {"auc", "image_drop", "text_gap"} <= set(table)
    pairs = read_pairs(clip, prompts["scenes"])
    expected = METHODS["nib"](clip, *pairs.arguments(), layer=2, **HALF)
    sums = {"image": expected.image_sums, "text": expected.text_sums}
    signed = {f"{side}_{name}": values for side in sums for name, values in sums[side]._asdict().items()}
    for name, values in signed.items():
        np.testing.assert_allclose(table.loc[pairs.ids, name], values.abs(), atol=1e-8)
    assert any((values < 0).any() for values in signed.values())  # else nothing is asked of the sign


def test_costs_are_those_of_each_path(clip, pairs):
    paths = {"short": HALF, "long": {**HALF, "n_steps": 4}}
    found = truncated.count_costs(clip, pairs, paths, layer=2)
    assert found.loc["long", ("backward", "image")] == 2 * found.loc["short", ("backward", "image")] > 0
    # of 4 blocks the last 2 run back, for each of 2 nodes
    assert found.loc["short", ("backward", "text")] == 2 * 2 / 4
    assert found.loc["short", ("forward", "text")] > found.loc["short", ("backward", "text")]


def test_relative_gaps_are_of_what_is_explained(values):
    found = truncated.summarise_paths(values).set_index(["lambda_min", "metric"])
    assert found.loc[(0.1, "image_gap_relative"), "mean"] == pytest.approx(0.01 / 0.4)
    assert found.loc[(0.1, "text_gap_relative"), "mean"] == pytest.approx(0.02 / 0.4)
    assert found.loc[(0.2, "text_gap_from_zero_relative"), "mean"] == pytest.approx(3 / 0.2)
    row, explained = found.loc[(0.0, "image_gap_relative")], found.loc[(0.0, "image_difference"), "mean"]
    for column in ("low", "high"):
        assert row[column] == pytest.approx(found.loc[(0.0, "image_gap"), column] / explained)


def test_a_table_is_of_one_layer_in_the_order_of_paths(values):
    other = values.assign(layer=3, value=7.0)
    summary = truncated.summarise_paths(pd.concat([values, other], ignore_index=True))
    found = truncated.tabulate_at(summary, ["text_gap", "auc"], 9)
    assert list(found.columns) == ["text_gap", "auc"]
    assert list(found.index) == list(values["path"].unique())
    assert found.loc["gauss 5, λ ≥ 0.2", "text_gap"].startswith("0.01 [")
    sums = truncated.tabulate_sums(summary, 9)
    assert list(sums.index) == list(found.index)
    assert sums.loc["gauss 5, λ ≥ 0.1"].to_dict() == pytest.approx(
        {
            "explained, picture": 1.0,
            "missed, picture": 0.025,
            "explained, text": 1.0,
            "missed, text": 0.05,
            "AUC": 1.5,
        }
    )


def test_wins_keep_to_each_metrics_better_side():
    rows = [
        ("auc", 3, 0.1, 0.2),
        ("auc", 6, -0.2, -0.1),
        ("auc", 9, -0.1, 0.1),
        ("text_drop", 3, 0.1, 0.2),
        ("text_drop", 6, 0.3, 0.4),
        ("text_drop", 9, -0.2, -0.1),
    ]
    table = pd.DataFrame(rows, columns=["metric", "layer", "low", "high"]).assign(path="a")
    found = truncated.count_wins(table)
    assert list(found.columns) == truncated.TASKS
    assert found.loc["a", "auc"] == "1 / 1 / 1"
    assert found.loc["a", "text_drop"] == "1 / 2 / 0"


def test_the_path_that_explains_most_is_chosen_and_compared_by_the_metrics_of_its_side(values):
    both = {"image": "gauss 5, λ ≥ 0.1", "text": "gauss 5, λ ≥ 0.1"}
    assert truncated.choose_paths(values, 5, 0.06) == both
    assert truncated.choose_paths(values, 5, 0.03) == both | {"text": "gauss 5, λ ≥ 0.2"}
    assert truncated.choose_paths(values, 5, 0.015) == {"image": "gauss 5, λ ≥ 0.2"}
    assert truncated.choose_paths(values, 10, 0.6) == both | {"image": "right 10, λ ≥ 0"}
    assert truncated.choose_paths(values, 4, 1.0) == {}

    chosen = {"image": "gauss 5, λ ≥ 0.1", "text": "gauss 5, λ ≥ 0.2"}
    found = truncated.compare_chosen(values, chosen, "right 10, λ ≥ 0").set_index(["side", "metric"])
    assert list(found.index) == [("image", "auc"), ("text", "text_drop")]
    assert found.loc[("image", "auc"), "difference"] == pytest.approx(0.1 * 2.5)
    assert found.loc[("text", "text_drop"), "difference"] == pytest.approx(2 * 2.5)
    assert len(truncated.compare_chosen(values, {}, "right 10, λ ≥ 0")) == 0


def test_drawings_show_starts_gaps_references_and_the_fewest_nodes(values):
    table = pd.DataFrame({"panel": ["a", "b"], "layer": "layer 9", "lambda": 1.0, "mean": 0.5, "low": 0.1, "high": 0.9})
    figure = truncated.draw_profile(table, [0.1, 0.2])
    assert [[line.get_xdata()[0] for line in axes.lines[-2:]] for axes in figure.axes] == [[0.1, 0.2]] * 2

    summary = truncated.summarise_paths(values)
    figure = truncated.draw_gaps(pd.concat([summary, summary.assign(layer=3)]), [9], 0.05)
    assert [axes.get_title() for axes in figure.axes] == ["picture, layer 9", "text, layer 9"]
    right, gauss, limit = figure.axes[0].lines
    assert [right.get_label(), gauss.get_label()] == ["right 10", "gauss 5"]
    np.testing.assert_allclose(gauss.get_xydata(), [(0.1, 0.025), (0.2, 0.01)])
    assert limit.get_ydata()[0] == 0.05

    more = values[values["lambda_min"] == 0.2].assign(n_steps=7, path="gauss 7, λ ≥ 0.2")
    table = pd.concat([values, more], ignore_index=True).replace({"quadrature": {"gauss": "gausslegendre"}})
    figure = truncated.draw_layers(truncated.summarise_paths(table), "right 10, λ ≥ 0")
    assert [axes.get_title() for axes in figure.axes] == ["image gap relative ↓", "auc ↑", "text drop ↓ (points)"]
    assert [line.get_label() for line in figure.axes[1].lines] == list(values["path"].unique())
    assert figure.axes[1].lines[1].get_ydata()[0] == pytest.approx(0.6 * 2.5)


def test_an_example_has_a_map_a_layer_and_path(clip):
    (row,) = truncated.read_prompts({"scenes": 1})["scenes"]
    figure = truncated.draw_example(clip, row, {"paper": {}, "half": HALF}, [1, 2])
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title().startswith("layer")]
    assert titles == ["layer 1, paper", "layer 1, half", "layer 2, paper", "layer 2, half"]
    assert figure.get_suptitle() == row["text"]
