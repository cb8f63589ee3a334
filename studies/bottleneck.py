"""Measure the four limits of information-bottleneck attribution that the NIB paper names.

Exports `measure_limits`: randomness, dependence on beta, scores without a sign, and a weak link between a score and
what the similarity loses when the token is taken away.
"""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

import nib
from nib.clip import HookedCLIP
from nib.evaluation import Batch, read_pairs
from nib.result import Attribution
from studies.randomness import correlate_ranks, run_to_run
from studies.removal import drops_without_patches, drops_without_states, drops_without_words
from studies.theory.sides import cut_sides

Row = tuple[str, str, str, int, float]  # method, side, quantity, pair, value


def measure_limits(
    clip: HookedCLIP,
    rows: Sequence[Mapping],
    methods: Mapping[str, Mapping],
    betas: Sequence[float],
    seeds: Sequence[int],
    layer: int,
) -> pd.DataFrame:
    """Measure the four limits of M2IB, and all but the second of every other method beside it.

    Args:
        rows: pairs with `image` and `text`, of at least 2 words.
        methods: a key of `nib.METHODS` -> its parameters, "m2ib" among them.
        betas: of M2IB, each compared with its default, 0.1.
        seeds: at least 2.
        layer: of the states that are set to zero.

    Returns:
        Columns `method`, `side`, `quantity`, `id` and `value`, a row a pair: rank correlations in [-1, 1], and shares.
    """
    pairs, images, texts = read_pairs(clip, rows), [row["image"] for row in rows], [row["text"] for row in rows]
    results = {name: nib.attribute(clip, images, texts, name, **options) for name, options in methods.items()}
    found = []
    for name, options in methods.items():
        found += _vary_seeds(clip, pairs, name, seeds, options)
        found += _count_negative(name, results[name])
    for beta in betas:
        other = nib.attribute(clip, images, texts, "m2ib", **methods["m2ib"], beta=beta)
        found += _compare_betas(f"β = {beta:g} against 0.1", other, results["m2ib"])
    found += _link_scores(clip, pairs, results, layer)
    return pd.DataFrame(found, columns=["method", "side", "quantity", "id", "value"])


def _vary_seeds(clip: HookedCLIP, pairs: Batch, name: str, seeds: Sequence[int], options: Mapping) -> Iterator[Row]:
    """Correlate the scores of each two seeds."""
    spread = run_to_run(name, clip, *pairs.arguments(), seeds=seeds, **options)
    for side, values in (("picture", spread.image_rank_correlation), ("words", spread.text_rank_correlation)):
        for number, value in enumerate(values.tolist()):
            yield name, side, "seed against seed", number, value


def _count_negative(name: str, results: Sequence[Attribution]) -> Iterator[Row]:
    """Return which share of the scores of each pair is negative."""
    for number, result in enumerate(results):
        for side, scores in (("picture", result.image_scores), ("words", result.word_scores)):
            yield name, side, "share of scores below 0", number, float((scores < 0).mean())


def _compare_betas(quantity: str, results: Sequence[Attribution], usual: Sequence[Attribution]) -> Iterator[Row]:
    """Correlate the scores with those of the usual beta."""
    for number, (one, other) in enumerate(zip(results, usual)):
        yield "m2ib", "picture", quantity, number, correlate_ranks(one.image_scores, other.image_scores)
        yield "m2ib", "words", quantity, number, correlate_ranks(one.word_scores, other.word_scores)


def _link_scores(
    clip: HookedCLIP, pairs: Batch, results: Mapping[str, Sequence[Attribution]], layer: int
) -> Iterator[Row]:
    """Correlate scores with what the similarity loses without a patch or word, and without a state."""
    words = [result.words for result in next(iter(results.values()))]
    painted, dropped = drops_without_patches(clip, pairs), drops_without_words(clip, pairs.pixel_values, words)
    zeroed = {side: drops_without_states(split, other) for side, _, split, other in cut_sides(clip, pairs, [layer])}
    for name, found in results.items():
        for number, result in enumerate(found):
            last = len(result.tokens) - 1  # of the end; class, begin and end tokens are on no map
            links = [
                ("picture", "removed from the input", result.image_scores, painted[number]),
                ("words", "removed from the input", result.word_scores, dropped[number, : len(words[number])]),
                ("picture", "state set to 0", result.image_scores, zeroed["picture"][number, 1:]),
                ("words", "state set to 0", result.token_scores[1:last], zeroed["words"][number, 1:last]),
            ]
            for side, what, scores, drops in links:
                yield name, side, f"link: {what}", number, correlate_ranks(scores, drops)
