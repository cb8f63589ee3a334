"""Measure the six properties of Table 1 for any system, and give marks by thresholds stated beforehand.

Exports `measure`, `share_of_similarity`, `mark`, `Setting`, `THRESHOLDS`, `MEASURES`, `PROPERTIES` and `PAPER`. A
mark says what was measured with these models and data; `PAPER` holds the few marks that the NIB paper states in its
text.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from torch import nn
from tqdm.auto import tqdm

from nib.clip import HookedCLIP
from nib.inputs import to_tokens
from nib.metrics import bootstrap_interval
from studies.table1.examples import Examples, Pair
from studies.table1.structures import build
from studies.table1.systems import Explanation, System

# Property: ✓ up to the first value (or down to it), ✗ from the second on, ◐ between.
THRESHOLDS = {
    "No Extra Example": (0, 10),
    "No Randomness": (0.999, 0.9),
    "No Specific Structure": (1.0, 1 / 3),
    "No Info Loss": (0.95, 0.2),
    "Current Model": (1.0, 0.5),
    "No Downstream Task": (0, 2),
}
MEASURES = {
    "No Extra Example": "rows read beyond the pair",
    "No Randomness": "rank correlation of two runs with other seeds and other examples",
    "No Specific Structure": "share of three other models on which it runs unchanged",
    "No Info Loss": "share of the similarity that its numbers add up to; 0 where one sample gets no explanation",
    "Current Model": "share of the explained model's weights that are the given model's, bit for bit",
    "No Downstream Task": "class labels read",
}
PROPERTIES = list(THRESHOLDS)
PAPER = {(name, "No Extra Example"): "✗" for name in ("COCOA", "TEXTSPAN", "Hossain et al.")}
PAPER |= {("LICO", "No Randomness"): "✗", ("LICO", "Current Model"): "✗", ("FALCON", "No Info Loss"): "✗"}
PAPER |= {("M2IB", "No Randomness"): "✗"}  # named as a limit of information bottleneck attribution
PAPER |= {("NIB", name): "✓" for name in PROPERTIES}


@dataclass
class Setting:
    """What the systems are measured on.

    Attributes:
        clip: the given model.
        pairs: what is explained, at least two.
        data: the data sets from which examples are drawn, by name.
        share: the part of a data set that is drawn.
        seeds: of the runs that are compared, at least two.
        prepared: for each data set its pixel values by row, so that they are prepared once.
    """

    clip: HookedCLIP
    pairs: Sequence[Pair]
    data: dict[str, Dataset]
    share: float = 0.5
    seeds: Sequence[int] = (0, 1, 2)
    prepared: dict[str, dict] = field(default_factory=dict)

    def draw(self, system: System, seed: int, clip: HookedCLIP | None = None) -> Examples:
        name = system.examples
        prepared = self.prepared.setdefault(name, {})
        return Examples.draw(clip or self.clip, self.data[name], self.share, seed, prepared)


def mark(name: str, number: float) -> str:
    """Return ✓, ◐ or ✗.

    Example:
        mark("No Info Loss", 0.5)  # "◐"
    """
    good, bad = THRESHOLDS[name]
    sign = 1 if good > bad else -1
    return "✓" if sign * number >= sign * good else "✗" if sign * number <= sign * bad else "◐"


def measure(systems: dict[str, System], setting: Setting, progress: bool = True) -> pd.DataFrame:
    """Measure all properties of all systems.

    Returns:
        One row a system and property: system, property, measure, number, low, high (95 % bootstrap over pairs, NaN
        where the number is a count), full and none (the thresholds), mark, paper (its mark there, or "not stated") and
        evidence.
    """
    rows, others = [], build(setting.clip)
    for name, system in tqdm(systems.items(), "systems", disable=not progress, delay=3):
        before = hash_weights(setting.clip.model)
        examples = setting.draw(system, setting.seeds[0])
        first = [system.explain(setting.clip, pair, examples, setting.seeds[0]) for pair in setting.pairs]
        same = hash_weights(setting.clip.model) == before
        numbers = {
            "No Extra Example": (len(examples.rows_read), None, ""),
            "No Randomness": _randomness(system, setting, examples, first),
            "No Specific Structure": _structure(system, setting, others),
            "No Info Loss": share_of_similarity(first),
            "Current Model": _model(first, setting.clip.model, same),
            "No Downstream Task": (len(examples.labels_read), None, ""),
        }
        rows += [_row(name, property, *found) for property, found in numbers.items()]
    return pd.DataFrame(rows)


def _row(system: str, property: str, number: float, interval: tuple | None, evidence: str) -> dict:
    low, high = interval or (np.nan, np.nan)
    full, none = THRESHOLDS[property]
    return dict(
        system=system, property=property, measure=MEASURES[property], number=number, low=low, high=high, full=full,
        none=none, mark=mark(property, number), paper=PAPER.get((system, property), "not stated"), evidence=evidence,
    )  # fmt: skip


def rank_correlation(one: Explanation, other: Explanation) -> float:
    """Return Spearman's correlation of two explanations, the lower one where they say two things.

    What only one of them speaks of scores 0 in the other. Two that are the same correlate by 1, constant ones too.
    """
    found = []
    for first, second in zip(one.said, other.said):
        keys = sorted({*first, *second}, key=str)
        values = [[table.get(key, 0.0) for key in keys] for table in (first, second)]
        constant = any(len(set(row)) < 2 for row in values)
        found.append(float(values[0] == values[1]) if constant else float(spearmanr(*values).statistic))
    return min(found, default=1.0)


def _randomness(system: System, setting: Setting, examples: Examples, first: list[Explanation]) -> tuple:
    """Compare with runs of another seed on the same examples, and of the same seed on other examples."""
    clip, pairs, start = setting.clip, setting.pairs, setting.seeds[0]
    of_seeds, of_draws = np.zeros((2, len(pairs)))
    for seed in setting.seeds[1:]:
        drawn = setting.draw(system, seed)
        for row, pair in enumerate(pairs):
            of_seeds[row] += rank_correlation(first[row], system.explain(clip, pair, examples, seed))
            if examples.rows_read:
                of_draws[row] += rank_correlation(first[row], system.explain(clip, pair, drawn, start))
    of_seeds, of_draws = (total / (len(setting.seeds) - 1) for total in (of_seeds, of_draws))
    evidence = f"seeds: {of_seeds.mean():.3f}"
    evidence += f"; re-drawn examples: {of_draws.mean():.3f}" if examples.rows_read else "; reads no examples"
    lowest = min((of_seeds, of_draws) if examples.rows_read else (of_seeds,), key=np.mean)
    return lowest.mean(), bootstrap_interval(lowest), evidence


def _structure(system: System, setting: Setting, others: dict) -> tuple:
    """Try models of other structure. What a model lacks shows as one of four errors; then the system refuses."""
    outcomes = {}
    for name, clip in others.items():
        try:
            examples = setting.draw(system, setting.seeds[0], clip)
            input_ids, attention_mask, _ = to_tokens(clip, [setting.pairs[0].text])  # padded as the model wants it
            pair = replace(setting.pairs[0], input_ids=input_ids, attention_mask=attention_mask)
            found = system.explain(clip, pair, examples, setting.seeds[0])
            finite = all(np.isfinite(list(table.values())).all() for table in found.said)
            outcomes[name] = "runs" if finite else "changes"
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            outcomes[name] = f"refuses ({type(error).__name__}: {str(error)[:60]})"
    runs = np.mean([outcome == "runs" for outcome in outcomes.values()])
    return runs, None, "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())


def share_of_similarity(first: list[Explanation]) -> tuple[float, tuple | None, str]:
    """Compare sums with what they should be.

    Args:
        first: explanations of at least two pairs by one system.

    Returns:
        The share in [0, 1], or 0 where all pairs get the same explanation; its interval; and the shares by tower.
    """
    sums = np.array([found.sums for found in first])  # (pairs, towers, 2)
    rows = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
    resampled = [_share(sums[drawn]).mean() for drawn in rows]
    by_tower = _share(sums)
    evidence = " and ".join(f"{value:.2f}" for value in by_tower) + (" (picture and text)" if len(by_tower) > 1 else "")
    if all(rank_correlation(first[0], other) == 1 for other in first[1:]):
        return 0.0, None, f"the same explanation for every pair; the share would be {evidence}"
    return by_tower.mean(), tuple(np.percentile(resampled, [2.5, 97.5])), evidence


def _share(sums: np.ndarray) -> np.ndarray:
    """Return the share that sums meet of what they should be, (towers,) in [0, 1]: 1 - mean |miss| / mean |whole|."""
    miss, whole = np.abs(sums[..., 0] - sums[..., 1]).mean(0), np.abs(sums[..., 1]).mean(0)
    return np.maximum(0, 1 - miss / np.maximum(whole, 1e-12))


def _model(first: list[Explanation], given: nn.Module, same: bool) -> tuple:
    """Count which weights of the explained model are the given one's; 0 where the given one was changed."""
    known = {(tuple(value.shape), _hash(value)) for value in given.state_dict().values()}
    weights = list(first[0].model.state_dict().values())
    kept = sum(value.numel() for value in weights if (tuple(value.shape), _hash(value)) in known)
    share = kept / sum(value.numel() for value in weights)
    evidence = f"hash of the given model {'unchanged' if same else 'changed'}"
    return share if same else 0.0, None, evidence + f"; explains {'it' if share == 1 else 'another one'}"


def hash_weights(model: nn.Module) -> str:
    """Return one hash of all weights and buffers."""
    return hashlib.sha256("".join(map(_hash, model.state_dict().values())).encode()).hexdigest()


def _hash(value: torch.Tensor) -> str:
    return hashlib.sha256(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
