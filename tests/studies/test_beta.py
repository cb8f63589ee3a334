"""M2IB over beta and seeds: means, spreads and differences are those of tables worked by hand."""

from pathlib import Path

import pandas as pd
import pytest

from studies import beta

PATH = Path(__file__).parents[2] / "data/published_results.csv"


@pytest.fixture
def values():
    """Two pairs; the value is 10 beta + 2 seed + number of the pair; NIB, which has neither, at 99."""
    rows = [
        ("m2ib", f"scenes-{pair}", at, seed, 10 * at + 2 * seed + pair)
        for at, seeds in ((0.1, (0, 1)), (0.5, (0,)), (0.9, (0, 1)))
        for seed in seeds
        for pair in (0, 1)
    ]
    rows += [("nib", f"scenes-{pair}", None, None, 99.0) for pair in (0, 1)]
    table = pd.DataFrame(rows, columns=["method", "id", "beta", "seed", "value"])
    return table.assign(dataset="scenes", metric="image_drop")


def test_every_beta_is_run_with_every_seed():
    found = beta.list_runs([0.1, 0.9], [0, 1, 2], 10)
    assert len(found) == 6
    assert found[2] == {"method": "m2ib", "layer": 10, "beta": 0.1, "seed": 2}


def test_means_are_over_the_given_seeds(values):
    one = beta.summarise_seeds(values, [0]).set_index("beta")
    both = beta.summarise_seeds(values, [0, 1]).set_index("beta")
    assert list(one.index) == [0.1, 0.5, 0.9]
    assert one.loc[0.9, "mean"] == 9.5
    assert both.loc[0.9, "mean"] == 10.5
    assert both.loc[0.9, "n"] == 2  # pairs, not pairs times seeds


def test_a_spread_is_no_share(values):
    still = values.assign(metric="image_increase", value=0.0)
    assert beta.measure_spread(still, [0.9])[["mean", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_the_spread_is_over_seeds_and_not_over_pairs(values):
    found = beta.measure_spread(values, [0.5, 0.9]).set_index("beta")
    assert list(found.index) == [0.9]  # at 0.5 there is one seed, at 0.1 nothing was asked
    assert found.loc[0.9, "mean"] == pytest.approx(2**0.5)


def test_the_largest_beta_is_compared_with_the_smallest(values):
    values["value"] += values["beta"].fillna(0) * values["seed"].fillna(0)  # the later seed would differ by more
    (found,) = beta.compare_ends(values, [0, 1]).to_dict("records")
    assert found["beta"] == 0.9
    assert found["difference"] == pytest.approx(8)
    assert found["n"] == 2


def test_the_papers_tables_are_compared_where_both_give_values():
    found, raw = beta.compare_tables(PATH), pd.read_csv(PATH)
    raw = raw.assign(metric=raw["metric"].str.replace("confidence_", "")).replace({"imagenet": "tiny_imagenet"})
    two = raw[(raw["table"] == 2) & (raw["method"] == "m2ib")].set_index(["dataset", "metric"])["value"]
    five = raw[(raw["table"] == 5) & (raw["beta"] == 0.1)].set_index(["dataset", "metric"])["value"]
    assert len(found) == len(five) == 12
    for place, value in found.items():
        assert value == pytest.approx(two[place] - five[place])
    assert found.abs().max() > 0.5


def test_drawn_over_log_beta_with_the_level_of_nib(values):
    summary = beta.summarise_seeds(values, [0])
    level = pd.DataFrame({"dataset": ["scenes"], "metric": "image_drop", "mean": 99.0})
    (axes,) = beta.draw_over_beta(summary, level).axes
    assert axes.get_title() == "image drop ↓ (points)"
    assert axes.get_xscale() == "log"
    line, dashed = axes.lines
    assert list(line.get_xdata()) == [0.1, 0.5, 0.9]
    assert list(line.get_ydata()) == list(summary["mean"])
    assert dashed.get_ydata()[0] == 99
    assert len(beta.draw_over_beta(summary.assign(kind="a"), line="kind").axes[0].lines) == 1
