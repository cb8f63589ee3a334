"""Intervals of means that are known, tables averaged by hand, and tests against scipy and by counting."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, wilcoxon

from nib.metrics import bootstrap_interval, compare, holm, summarise


def test_intervals_of_known_values():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)

    low, high = bootstrap_interval([0, 1, 1, 1])
    assert 0 <= low < 0.75 < high <= 1

    values = np.arange(20.0) ** 2
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)

    assert bootstrap_interval([2.5, 2.5, 2.5]) == (2.5, 2.5)


def test_values_without_an_interval(subtests):
    for values in [[], [1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0], [3.0, 4.0]]]:
        with subtests.test(str(values)), pytest.raises(ValueError, match="at least 2 finite numbers"):
            bootstrap_interval(values)


def table(rows, columns=("dataset", "method", "id", "value")):
    return pd.DataFrame(rows, columns=columns)


def test_summary_by_hand():
    values = table(
        [
            ("scenes", "nib", "0", 1.0),
            ("scenes", "none", "0", 0.0),
            ("scenes", "nib", "1", 3.0),
            ("aerial", "nib", "2", np.nan),
            ("aerial", "nib", "3", 7.0),
            ("scenes", "nib", "4", 5.0),
            ("aerial", "none", "3", np.nan),
        ]
    )
    summary = summarise(values, ["dataset", "method"])
    assert list(summary) == ["dataset", "method", "n", "mean", "low", "high"]
    assert list(zip(summary["dataset"], summary["method"])) == [
        ("scenes", "nib"),
        ("scenes", "none"),
        ("aerial", "nib"),
        ("aerial", "none"),
    ]  # as they first appear
    assert summary["n"].tolist() == [3, 1, 1, 0]  # without the missing
    assert summary["mean"].tolist()[:3] == [3, 0, 7]
    assert np.isnan(summary["mean"][3])
    assert (summary["low"][0], summary["high"][0]) == bootstrap_interval([1, 3, 5])
    assert summary.loc[1:, ["low", "high"]].isna().all(axis=None)  # one value has no interval


def test_summary_keeps_its_columns_and_groups_with_a_missing_entry():
    rows = [("nib", 9.0, 1.0), ("none", np.nan, 2.0), ("nib", 9.0, 3.0), ("none", np.nan, 4.0), ("nib", 3.0, 5.0)]
    summary = summarise(table(rows, ["method", "layer", "value"]), ["method", "layer"])
    assert summary["n"].tolist() == [2, 2, 1]
    assert summary["mean"].tolist() == [2, 3, 5]
    assert summary["layer"].isna().tolist() == [False, True, False]

    assert list(summarise(table([]), ["method"])) == ["method", "n", "mean", "low", "high"]


def test_summary_needs_its_columns(subtests):
    for by, missing in [(["colour"], "colour"), (["method", "layer", "beta"], "beta, layer")]:
        message = f"no column {missing}; it has dataset, method, id, value"
        with subtests.test(str(by)), pytest.raises(KeyError, match=message):
            summarise(table([("scenes", "nib", "0", 1.0)]), by)


def pairs_of(method, values, dataset="scenes", first=0):
    return [(dataset, method, str(first + index), value) for index, value in enumerate(values)]


def test_comparison_by_hand():
    # m2ib is worse by 1, 2, 3, 4, 5: of the 32 ways to choose signs, two have rank sums as far out.
    nib = [10.0, 20, 30, 40, 50]
    rows = pairs_of("nib", nib) + pairs_of("m2ib", [value - step for step, value in enumerate(nib, start=1)])
    rows = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]  # paired by id, not by order
    result = compare(table(rows), ["dataset"])
    assert list(result) == ["dataset", "method", "n", "difference", "low", "high", "p", "p_holm"]
    (row,) = result.to_dict("records")
    assert (row["dataset"], row["method"], row["n"], row["difference"]) == ("scenes", "m2ib", 5, -3)
    assert row["p"] == pytest.approx(2 / 32)
    differences = table(rows).pivot(index="id", columns="method", values="value")
    interval = bootstrap_interval((differences["m2ib"] - differences["nib"]).to_numpy())
    assert (row["low"], row["high"]) == interval
    assert interval[0] < -3 < interval[1] < 0


def exact_p(differences):
    """Count the sign patterns whose rank sum is at least as far from the middle."""
    ranks = np.abs(differences).argsort().argsort() + 1
    sums = np.array([ranks @ np.array(signs) for signs in product([0, 1], repeat=len(ranks))])
    middle = ranks.sum() / 2
    return np.mean(np.abs(sums - middle) >= abs(ranks @ (np.array(differences) > 0) - middle) - 1e-9)


def test_p_value_is_wilcoxons():
    rng = np.random.default_rng(3)
    reference, other = rng.normal(0, 1, 11), rng.normal(0.7, 1, 11)
    (row,) = compare(table(pairs_of("nib", reference) + pairs_of("rise", other)), ["dataset"]).to_dict("records")
    assert row["p"] == pytest.approx(exact_p(other - reference))
    assert row["p"] == pytest.approx(wilcoxon(other, reference).pvalue)
    assert row["difference"] == pytest.approx((other - reference).mean())


def shares(both, gained, lost, neither, hit=100.0):
    """Rows of two methods, from how many pairs each has hit."""
    nib = [hit] * both + [0.0] * gained + [hit] * lost + [0.0] * neither
    rise = [hit] * (both + gained) + [0.0] * (lost + neither)
    return table(pairs_of("nib", nib) + pairs_of("rise", rise)).assign(metric="image_increase")


def test_shares_are_compared_on_the_pairs_that_differ(subtests):
    for by in [["dataset"], ["dataset", "metric"]]:
        with subtests.test(str(by)):
            # Newcombe (1998), "Interval estimation for the difference between independent proportions: paired data",
            # method 10 of 36, 12, 2, 0: 0.0569 to 0.3404. McNemar: 12 of 14 heads, 2 * (1 + 14 + 91) / 2^14.
            (row,) = compare(shares(36, 12, 2, 0), by).to_dict("records")
            assert row["p"] == pytest.approx(2 * (1 + 14 + 91) / 2**14)
            assert (row["n"], row["difference"]) == (50, 20)
            assert (row["low"], row["high"]) == pytest.approx((5.69, 34.04), abs=0.01)
            (row,) = compare(shares(20, 3, 9, 68), by).to_dict("records")
            assert row["p"] == binomtest(3, 12).pvalue
            assert row["low"] < row["difference"] == -6 < row["high"]


def test_shares_that_never_or_seldom_differ():
    values = shares(100, 35, 15, 350)  # one pair in ten differs
    (row,) = compare(values, ["dataset"]).to_dict("records")
    pivot = values.pivot(index="id", columns="method", values="value")
    assert row["p"] < 0.01
    assert row["low"] > 0
    assert wilcoxon(pivot["rise"] - pivot["nib"], zero_method="zsplit").pvalue > 0.1

    for both in (0, 4):  # none is hit, and some are
        values = shares(both, 0, 0, 40 - both)
        (row,) = compare(values, ["metric"]).to_dict("records")
        assert row["p"] == 1
        assert row["low"] == -row["high"] < 0  # 40 pairs do not settle that there is no difference


def test_interval_of_shares_is_wilsons_and_a_drop_is_no_share(subtests):
    for hits, n in [(0, 40), (3, 40), (40, 40)]:
        with subtests.test(f"{hits}, {n}"):
            values = table(pairs_of("nib", [100.0] * hits + [0.0] * (n - hits))).assign(metric="text_increase")
            z = 1.959964
            middle, half = (hits + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(hits * (n - hits) / n + z**2 / 4)
            (row,) = summarise(values, ["metric"]).to_dict("records")
            assert (row["low"], row["high"]) == pytest.approx((100 * (middle - half), 100 * (middle + half)), abs=1e-4)
            if hits:
                (row,) = summarise(values.assign(value=values["value"] / 100), ["method"]).to_dict("records")
                assert (row["low"], row["high"]) == pytest.approx((middle - half, middle + half), abs=1e-6)

    values = table(pairs_of("none", [0.0] * 40)).assign(metric="text_drop")
    (row,) = summarise(values, ["metric"]).to_dict("records")
    assert (row["low"], row["high"]) == (0, 0)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.5.
    assert holm(np.array([0.03, 0.5, 0.01, 0.02])) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm(np.array([0.04, 0.03, 0.01])) == pytest.approx([0.06, 0.06, 0.03])  # no smaller than one before
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


def test_comparison_is_corrected_for_all_its_rows():
    rng = np.random.default_rng(5)
    rows = []
    for dataset in ("scenes", "aerial"):
        for method, shift in (("nib", 0), ("rise", 0.9), ("m2ib", 2)):
            rows += pairs_of(method, rng.normal(shift, 1, 20), dataset)
    result = compare(table(rows), ["dataset"])
    assert len(result) == 4
    assert result["p_holm"].tolist() == holm(result["p"].to_numpy()).tolist()
    smallest = result["p"].idxmin()
    assert result["p_holm"][smallest] == 4 * result["p"][smallest]


def test_comparison_within_groups_on_the_pairs_that_both_have():
    rows = pairs_of("nib", [1.0, 2, 3, np.nan]) + pairs_of("rise", [2.0, 4, 9], first=1)
    rows += pairs_of("none", [0.0, 0, 0], "aerial") + pairs_of("nib", [5.0, 6, 7], "aerial")
    rows += pairs_of("m2ib", [1.0], "aerial")  # one pair: nothing to test
    rows += pairs_of("none", [3.0, 4], "captions")  # no reference there
    result = compare(table(rows), ["dataset"])
    assert result[["dataset", "method", "n", "difference"]].to_numpy().tolist() == [
        ["scenes", "rise", 2, (2 - 2 + 4 - 3) / 2],
        ["aerial", "none", 3, -6],
    ]

    rows = pairs_of("nib", [1.0, 2, 3]) + pairs_of("none", [1.0, 2, 3])
    (row,) = compare(table(rows), ["dataset"]).to_dict("records")
    assert (row["n"], row["difference"], row["low"], row["high"], row["p"]) == (3, 0, 0, 0, 1)


def test_another_column_and_a_reference_that_must_be_there():
    rows = [("released", "0", 1.0), ("released", "1", 2.0), ("paper", "0", 4.0), ("paper", "1", 6.0)]
    values = table(rows, ["protocol", "id", "value"]).assign(metric="text_drop")
    (row,) = compare(values, ["metric"], column="protocol", reference="paper").to_dict("records")
    assert (row["metric"], row["protocol"], row["difference"]) == ("text_drop", "released", -3.5)

    with pytest.raises(ValueError, match=r"the reference must be one of \['m2ib', 'rise'\], got 'nib'"):
        compare(table(pairs_of("rise", [1.0, 2]) + pairs_of("m2ib", [1.0, 2])), ["dataset"])
