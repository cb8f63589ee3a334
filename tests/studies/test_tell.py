"""What notebooks say of differences follows from their tables."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from studies import faithfulness, figure1, interactions
from studies.charts import arrange


def test_panels_are_sorted_by_metric_alone():
    table = pd.DataFrame({"metric": ["text_drop", "auc", "image_drop", "text_drop"], "row": range(4)})
    found = arrange(table, ["image_drop", "text_drop"])
    assert list(found["row"]) == [2, 0, 3]
    assert list(found["metric"]) == ["image drop ↓ (points)"] + ["text drop ↓ (points)"] * 2


def test_better_is_by_the_metrics_own_side(subtests):
    cases = [
        ("auc", 1, 0.01, "better"),
        ("auc", -1, 0.01, "worse"),
        ("auc", 1, 0.2, "open"),
        ("image_drop", 1, 0.01, "worse"),
    ]
    for metric, difference, p, verdict in cases:
        with subtests.test(f"{metric}, {difference}, {p}, {verdict}"):
            table = pd.DataFrame({"method": ["rise"], "metric": metric, "difference": difference, "p_holm": p})
            assert faithfulness.judge(table).loc["rise", metric] == verdict


def test_above_and_below_are_those_that_are_settled():
    rows = [("auc", "chefer", 0.3, 0.001), ("auc", "rise", -0.2, 0.001), ("auc", "random", 0.4, 0.3)]
    said = figure1.describe_differences(pd.DataFrame(rows, columns=["metric", "method", "difference", "p_holm"]))
    assert said.endswith("- auc: above `NIB` `chefer`, and below it `rise`")


def test_a_difference_needs_its_interval_and_its_p(subtests):
    cases = [
        (-0.3, -0.1, 0.01, "is **lower**"),
        (0.1, 0.3, 0.01, "is **higher**"),
        (-0.1, 0.3, 0.01, "is not settled"),
        (0.1, 0.3, 0.2, "is not settled"),
    ]
    for low, high, p, state in cases:
        with subtests.test(f"{low}, {high}, {p}, {state}"):
            row = dict(
                layer=3, metric="auc", map="another word", difference=(low + high) / 2, low=low, high=high, p_holm=p
            )
            assert f"the map of another word {state} (" in interactions.describe_differences(pd.DataFrame([row]))


def test_regions_have_the_means_of_their_pixels():
    result = SimpleNamespace(
        image_scores=np.array([[1.0, -1.0], [1.0, -1.0]]),
        picture=np.zeros((2, 2, 3)),
        parameters={"layer": 9},
        caption="a",
    )
    regions = np.array([[1, 0], [1, 0]])
    table = figure1.tabulate_regions([result], regions, {"background": 0, "dog": 1})
    assert table.loc["layer 9, a"].to_dict() == {
        "mean score on background": -1.0, "mean score on dog": 1.0, "highest score on": "dog"
    }  # fmt: skip


def test_removal_is_followed_from_the_whole_picture(clip):
    rows = faithfulness.read_prompts({"objects": 3})["objects"]
    runs = {"nib": {"method": "nib", "layer": 2, "n_steps": 2}, "true_mask": {"method": "true_mask"}}
    found = faithfulness.follow_removal(clip, rows, runs, {"true_mask": 2}, n_steps=3)
    assert found.groupby("method")["id"].nunique().to_dict() == {"nib": 3, "true_mask": 2}
    assert sorted(found["share removed"].unique()) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    ends = found[found["share removed"] == 0].merge(found[found["share removed"] == 0], on=["id"])
    assert ends["value_x"].to_numpy() == pytest.approx(ends["value_y"].to_numpy(), abs=1e-5)  # nothing removed yet
    middle = found[(found["method"] == "nib") & (found["share removed"].between(0.1, 0.9))]
    first, last = (middle[middle["removed"] == way]["value"].to_numpy() for way in ("highest first", "lowest first"))
    assert not np.allclose(first, last)
