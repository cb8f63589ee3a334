"""Rankings keep to each metric's better side, and count what is settled."""

from pathlib import Path

import pandas as pd
import pytest

from studies.published import read_published
from studies.ranking import count_settled, keep_once, rank_methods, tabulate, tell_apart

PATH = Path(__file__).parents[2] / "data/published_results.csv"


@pytest.fixture
def summary():
    rows = [
        dict(dataset=data, method=method, protocol=protocol, metric=metric, n=4, mean=mean, low=mean - 1, high=mean + 1)
        for data in ("scenes", "objects")
        for method, mean in (("rise", 9.0), ("nib", 3.0))
        for protocol in ("paper", "released")
        for metric in ("image_drop", "text_increase")
    ]
    return pd.DataFrame(rows)


def test_the_better_is_first_by_either_kind(summary):
    assert list(rank_methods(summary, "paper", "image_drop").index) == ["nib", "rise"]
    assert list(rank_methods(summary, "paper", "text_increase").index) == ["rise", "nib"]
    assert rank_methods(summary, "paper", "image_drop")["rise"] == 9


def test_the_table_keeps_the_given_orders(summary):
    table = tabulate(summary, ["released"], ["text_increase", "image_drop"], ["scenes", "objects"], ["nib", "rise"])
    assert [index[:2] for index in table.index] == [
        ("scenes", "nib"),
        ("scenes", "rise"),
        ("objects", "nib"),
        ("objects", "rise"),
    ]
    assert list(table.columns) == [("text increase ↑ (%)", "released"), ("image drop ↓ (points)", "released")]
    assert table.iloc[0, 0] == "3.00 [2.00, 4.00]"


def test_pictures_are_kept_once(summary):
    kept = keep_once(summary, ["image_drop", "text_increase"], "paper")
    assert set(kept[kept["metric"] == "image_drop"]["protocol"]) == {"paper"}
    assert set(kept[kept["metric"] == "text_increase"]["protocol"]) == {"paper", "released"}


def test_settled_needs_a_small_p_and_the_better_side():
    rows = [
        ("rise", "image_drop", -2.0, 0.01),
        ("rise", "text_increase", -2.0, 0.01),
        ("lime", "image_drop", -2.0, 0.2),
    ]
    table = pd.DataFrame(rows, columns=["method", "metric", "difference", "p_holm"]).assign(protocol="paper")
    found = count_settled(table, "paper", ["image_drop", "text_increase"], "nib")
    assert found.loc["rise", ("image_drop", "better than nib")] == 1
    assert found.loc["rise", ("text_increase", "worse than nib")] == 1
    assert found.loc["lime", ("image_drop", "no difference")] == 1


def test_how_far_apart_is_the_abstracts_formula():
    table = pd.DataFrame({"dataset": ["a", "a"], "metric": "fps", "method": ["nib", "m2ib"], "mean": [4.0, 1.0]})
    assert tell_apart(table, ["fps"]) == 0.75
    assert pd.isna(tell_apart(table[:1], ["fps"]))
    published = read_published(PATH, 2)
    found = [tell_apart(published, [f"{side}_drop", f"{side}_increase"]) for side in ("image", "text")]
    assert found[0] == pytest.approx(0.09, abs=0.005)
    assert found[1] == pytest.approx(0.5883, abs=5e-4)
    assert tell_apart(published, ["fps"]) == pytest.approx(0.6395, abs=5e-4)
