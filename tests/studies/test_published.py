"""Published values come under the names that are used here, and are drawn as what they are."""

from pathlib import Path

import pandas as pd

from studies.published import METRICS, NOTE, plot_published, read_published

PATH = Path(__file__).parents[2] / "data/published_results.csv"


def test_values_are_those_of_the_file():
    found, raw = read_published(PATH, 5), pd.read_csv(PATH).query("table == 5")
    assert list(found["mean"]) == list(raw["value"])
    assert set(found["metric"]) <= set(METRICS)
    assert "tiny_imagenet" in set(found["dataset"])
    assert "imagenet" not in set(found["dataset"])
    assert found["low"].equals(found["mean"])


def test_a_value_in_two_tables_is_read_once():
    both = read_published(PATH, 4, 7)
    assert not both.duplicated(["dataset", "layer", "metric"]).any()


def test_drawn_with_their_note(subtests):
    for tables, x in [((5,), "beta"), ((3, 6), "n_steps"), ((2,), "method")]:
        with subtests.test(f"{tables}, {x}"):
            published = read_published(PATH, *tables)
            figure = plot_published(published, x)
            assert figure.get_suptitle() == NOTE
            assert [axes.get_title().split(" ")[0] for axes in figure.axes] == ["image", "image", "text", "text"]
            if x == "beta":
                drop = published[published["metric"] == "image_drop"]
                first = drop[drop["dataset"] == drop["dataset"].iloc[0]].sort_values("beta")
                assert list(figure.axes[0].lines[0].get_ydata()) == list(first["mean"])
