"""Verdicts follow from the tables, and change with them."""

from pathlib import Path

import pandas as pd

from studies.verdicts import CLAIMS, read_verdicts

ROOT = Path(__file__).parents[2]


def test_the_kept_index_is_of_the_kept_tables():
    found = read_verdicts(ROOT / "figures", ROOT / "data" / "results")
    assert found.equals(pd.read_csv(ROOT / "figures" / "index.csv"))
    assert set(found["verdict"]) <= {"holds", "in part", "not"}
    assert all((ROOT / "notebooks" / f"{name}.ipynb").exists() for name in found["notebook"])


def test_what_has_not_been_run_is_said(tmp_path):
    found = read_verdicts(tmp_path, tmp_path)
    assert len(found) == len(CLAIMS)
    assert set(found["verdict"]) == {"not run"}
    assert found["measured here"].str.startswith("no ").all()


def verdict_of(place, folder):
    return read_verdicts(folder, folder).set_index("in the paper").loc[place, "verdict"]


def test_completeness_is_judged_by_the_gap_at_ten_steps(tmp_path, subtests):
    for number, (gap, verdict) in enumerate([(0.01, "holds"), (0.3, "in part")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(f"{gap}, {verdict}"):
            table = pd.DataFrame({"n_steps": [10, 20], "image gap": [gap, 0.0], "text gap": [0.01, 0.0]})
            table.to_csv(folder / "05_num_steps_gaps.csv", index=False)
            assert verdict_of("Theorem 3, Eq. 10", folder) == verdict


def test_passes_are_compared_with_both(tmp_path, subtests):
    for number, (nib, verdict) in enumerate([(0.1, "holds"), (9.0, "in part"), (800.0, "not")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(f"{nib}, {verdict}"):
            kinds = ["image forward", "image backward", "text forward", "text backward"]
            rows = [[name, *[value / 4] * 4] for name, value in (("nib", nib), ("m2ib", 5.0), ("rise", 500.0))]
            pd.DataFrame(rows, columns=["method", *kinds]).to_csv(folder / "08_efficiency_counts.csv", index=False)
            assert verdict_of("Table 8", folder) == verdict


def test_a_choice_is_good_where_it_is_as_good_as_the_best_within_intervals(tmp_path, subtests):
    for number, (drop, verdict) in enumerate([({5: 1, 9: 1}, "holds"), ({5: 1, 9: 5}, "not"), ({5: 9, 9: 1}, "holds")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(f"{drop}, {verdict}"):
            rows = [
                dict(dataset="scenes", layer=layer, metric=metric, mean=mean, low=mean - 0.5, high=mean + 0.5)
                for layer, mean in drop.items()
                for metric in ("image_drop", "text_drop")
            ]
            pd.DataFrame(rows).to_csv(folder / "06_target_layer.csv", index=False)
            assert verdict_of("Tables 4 and 7", folder) == verdict


def test_figure_1_needs_selectivity_and_the_pointing_game(tmp_path):
    rows = [("selectivity", "NIB", 0.7, 0.6, 0.8), ("pointing game", "NIB", 0.2, 0.1, 0.3)]
    rows += [("pointing game", "random", 0.2, 0.1, 0.3)]
    table = pd.DataFrame(rows, columns=["metric", "method", "mean", "low", "high"])
    table.to_csv(tmp_path / "02_qualitative_figure1.csv", index=False)
    assert verdict_of("Figure 1", tmp_path) == "in part"


def test_table_2_is_judged_among_the_papers_methods(tmp_path, subtests):
    for number, (nib, verdict) in enumerate([((1, 9), "holds"), ((5, 9), "in part"), ((5, 1), "not")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(f"{nib}, {verdict}"):
            drop, increase = nib
            values = {"nib": (drop, increase), "m2ib": (3, 5), "none": (0, 9), "lime": (0, 10)}
            rows = [
                dict(dataset="scenes", protocol="released", method=method, n=4, metric=f"{side}_{name}", mean=value)
                for method, pair in values.items()
                for name, value in zip(("drop", "increase"), pair)
                for side in ("image", "text")
            ]
            pd.DataFrame(rows).to_csv(folder / "04_quantitative.csv", index=False)
            assert verdict_of("Table 2", folder) == verdict
