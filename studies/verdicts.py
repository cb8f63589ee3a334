"""Set each claim of the paper beside what was measured here, from the tables that the notebooks have written.

Exports `read_verdicts`. Each function below returns what was measured and "holds", "in part" or "not".
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

HOLDS, PART, NOT = "holds", "in part", "not"
CLAIMS: list[tuple[str, str, str, Callable]] = []  # place in the paper, claim, notebook, function of two folders


def _claim(place: str, claim: str, notebook: str):
    def note(function):
        CLAIMS.append((place, claim, notebook, function))
        return function

    return note


def _grade(good: int, of: int) -> str:
    return HOLDS if good == of else NOT if good == 0 else PART


def _span(row) -> str:
    return f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


@_claim("Theorem 1", "Narrowing takes information away: I(z; z̃) falls with λ.", "01_theorems")
def _information(figures: Path, results: Path) -> tuple[str, str]:
    table = pd.read_csv(figures / "01_theorems.csv").query("estimate == 'formula'")
    curves = [curve.sort_values("lambda")["mean"] for _, curve in table.groupby(["panel", "sigma"])]
    rising = sum(bool((curve.diff().dropna() >= 0).all()) for curve in curves)
    return f"{rising} of {len(curves)} curves never fall as λ grows", _grade(rising, len(curves))


@_claim("Theorem 3, Eq. 10", "With ten steps the scores add up to F(z) - F(0).", "13_axioms")
def _completeness(figures: Path, results: Path) -> tuple[str, str]:
    gaps = pd.read_csv(figures / "05_num_steps_gaps.csv").set_index("n_steps")
    ten, most = gaps.loc[10], gaps.iloc[-1]
    text = f"mean gap {ten['image gap']:.2f} (picture), {ten['text gap']:.2f} (text) of a cosine at 10 steps, "
    text += f"{most['image gap']:.2f} and {most['text gap']:.2f} at {gaps.index[-1]}: ten steps miss a part of it"
    return text, HOLDS if max(ten["image gap"], ten["text gap"]) < 0.05 else PART


@_claim("Figure 1", "The map of a prompt lies on what it names, not on the other objects.", "02_qualitative")
def _figure1(figures: Path, results: Path) -> tuple[str, str]:
    rows = pd.read_csv(results / "02_qualitative_figure1.csv").set_index(["metric", "method"])
    selective, pointing, chance = (
        rows.loc[key] for key in (("selectivity", "NIB"), ("pointing game", "NIB"), ("pointing game", "random"))
    )
    good = int(selective["low"] > 0.5) + int(pointing["low"] > chance["high"])
    text = f"selectivity {_span(selective)} (chance 0.5), pointing game {_span(pointing)} (random {_span(chance)})"
    return text, _grade(good, 2)


@_claim("Table 1", "NIB has all six properties.", "09_properties")
def _properties(figures: Path, results: Path) -> tuple[str, str]:
    own = pd.read_csv(figures / "09_properties.csv").query("system == 'NIB'")
    marks = own["mark"].value_counts()
    short = ", ".join(f"{row.property.lower()} {row.mark}" for row in own.itertuples() if row.mark != "✓")
    return f"{marks.get('✓', 0)} of {len(own)} with ✓" + (f"; {short}" if short else ""), _grade(
        marks.get("✓", 0), len(own)
    )


TABLE_2 = ["nib", "m2ib", "rise", "gradcam", "chefer", "saliency", "mfaba", "fast_ig"]  # the paper's methods


@_claim("Table 2", "NIB has the lowest Drop and the highest Increase.", "04_quantitative")
def _confidence(figures: Path, results: Path) -> tuple[str, str]:
    table = pd.read_csv(results / "04_quantitative.csv").query("protocol == 'released'")
    table = table[~table["method"].isin(["none", "true_mask", "random", "center", "objectness"])]
    places = {}
    for metric in ("image_drop", "image_increase", "text_drop", "text_increase"):
        means = table[table["metric"] == metric].groupby("method")["mean"].mean()
        ranks = [
            means.reindex(names).dropna().rank(ascending=metric.endswith("drop"), method="min")
            for names in (TABLE_2, means.index)
        ]
        places[metric] = [int(each["nib"]) for each in ranks]
    text = ", ".join(f"{name.replace('_', ' ')} {place} ({of_all})" for name, (place, of_all) in places.items())
    text = f"place among the paper's {len(TABLE_2)} methods (among all {table['method'].nunique()}): {text}"
    text += f"; as the released code measures, n = {int(table['n'].max())}"
    return text, _grade(sum(place == 1 for place, _ in places.values()), 4)


def _at(results: Path, name: str, column: str, paper: int) -> tuple[str, str]:
    """Tell where picture and text Drop are lowest, and whether the paper's choice is among the best."""
    table = pd.read_csv(results / name)
    where, good, of = [], 0, 0
    for metric in ("image_drop", "text_drop"):
        wide = table[table["metric"] == metric].pivot(index="dataset", columns=column, values="mean")
        high = table[table["metric"] == metric].pivot(index="dataset", columns=column, values="high")
        low = table[table["metric"] == metric].pivot(index="dataset", columns=column, values="low")
        best = wide.idxmin(axis=1)
        good += sum(low.loc[name, paper] <= high.loc[name, best[name]] for name in wide.index)
        of += len(wide)
        where.append(f"{metric.replace('_', ' ')} lowest at {', '.join(f'{n} ({name})' for name, n in best.items())}")
    text = f"{'; '.join(where)}; {paper} is as good as the best, within intervals, in {good} of {of}"
    return text, _grade(good, of)


@_claim("Tables 3 and 6", "Ten steps are enough.", "05_num_steps")
def _steps(figures: Path, results: Path) -> tuple[str, str]:
    return _at(results, "05_num_steps.csv", "n_steps", 10)


@_claim("Tables 4 and 7", "Layer 9 is the best for both towers.", "06_target_layer")
def _layers(figures: Path, results: Path) -> tuple[str, str]:
    return _at(results, "06_target_layer.csv", "layer", 9)


@_claim("Table 5", "M2IB depends on β.", "07_beta_sensitivity")
def _beta(figures: Path, results: Path) -> tuple[str, str]:
    table = pd.read_csv(results / "07_beta_sensitivity.csv").query("method == 'm2ib' and metric == 'image_drop'")
    ends = table[table["beta"].isin([table["beta"].min(), table["beta"].max()])]
    apart = [one["high"].min() < one["low"].max() for _, one in ends.groupby("dataset")]
    moves = table.groupby("dataset")["mean"].agg(lambda means: means.max() - means.min())
    text = f"picture Drop moves by {moves.min():.0f} to {moves.max():.0f} points over β; n = {int(table['n'].max())}"
    return f"{text}; intervals of the ends apart in {sum(apart)} of {len(apart)} data sets", _grade(
        sum(apart), len(apart)
    )


@_claim("Table 8", "NIB needs fewer passes than M2IB and RISE.", "08_efficiency")
def _passes(figures: Path, results: Path) -> tuple[str, str]:
    table = pd.read_csv(figures / "08_efficiency_counts.csv").set_index("method")
    total = table[["image forward", "image backward", "text forward", "text backward"]].sum(axis=1)
    text = ", ".join(f"{name} {total[name]:.1f}" for name in ("nib", "m2ib", "rise"))
    fewer = sum(total["nib"] < total[name] for name in ("m2ib", "rise"))
    return f"whole passes of both towers for a pair: {text}", _grade(fewer, 2)


@_claim("beyond the paper", "NIB's map is faithful: removing its highest patches first costs most.", "11_faithfulness")
def _faithful(figures: Path, results: Path) -> tuple[str, str]:
    table = pd.read_csv(results / "11_faithfulness.csv").query("metric == 'image_srg'").set_index("method")
    place = int(table.drop(index=["true_mask"], errors="ignore")["mean"].rank(ascending=False)["nib"])
    text = f"SRG {_span(table.loc['nib'])} (random {_span(table.loc['random'])}); place {place} of {len(table) - 1}"
    return text, HOLDS if place == 1 else PART if table.loc["nib", "low"] > table.loc["random", "high"] else NOT


def read_verdicts(figures: str | Path, results: str | Path) -> pd.DataFrame:
    """Return one row a claim: place in the paper, claim, what was measured, verdict and notebook.

    A claim whose notebook has not been run has the verdict "not run".

    Args:
        figures: folder of the tables that the notebooks have written.
        results: folder of those of full size.
    """
    rows = []
    for place, claim, notebook, measure in CLAIMS:
        try:
            measured, verdict = measure(Path(figures), Path(results))
        except FileNotFoundError as error:
            measured, verdict = f"no {Path(error.filename).name}", "not run"
        rows.append((place, claim, measured, verdict, notebook))
    return pd.DataFrame(rows, columns=["in the paper", "claim", "measured here", "verdict", "notebook"])
