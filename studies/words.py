"""Say what the words of many captions carry.

Exports `tabulate_words`, `describe_sums` and `describe_named`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nib.metrics import bootstrap_interval
from nib.result import Attribution


def tabulate_words(results: Sequence[Attribution]) -> pd.DataFrame:
    """Return the score of each word of each caption: columns `id` (number of the caption), `word` and `value`.

    A word that occurs again has the sum.
    """
    rows = [(n, word.lower(), score) for n, r in enumerate(results) for word, score in zip(r.words, r.word_scores)]
    table = pd.DataFrame(rows, columns=["id", "word", "value"])
    return table.groupby(["id", "word"], as_index=False)["value"].sum()


def describe_sums(results: Sequence[Attribution]) -> str:
    """Write the mean sum of the words' scores, and those of the begin and the end token, with their intervals."""
    sums = {"the words": [result.word_scores.sum() for result in results]}
    sums |= {"the begin token": [result.begin_score for result in results]}
    sums |= {"the end token": [result.end_score for result in results]}
    parts = [(name, np.mean(found), *bootstrap_interval(np.array(found))) for name, found in sums.items()]
    parts = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] on {name}" for name, mean, low, high in parts]
    return f"The scores of a caption add up to {', '.join(parts)}."


def describe_named(words: pd.DataFrame, objects: Sequence[Sequence[str]]) -> str:
    """Write how much more words score that name a thing in the picture than others, caption by caption.

    Args:
        words: what `tabulate_words` returns.
        objects: of each caption, the names of what is in its picture; a plural counts as its singular.
    """
    named = [set(" ".join(names).split()) for names in objects]
    things = [bool({word, word.removesuffix("s")} & named[row]) for row, word in zip(words["id"], words["word"])]
    means = words.assign(thing=things).groupby(["id", "thing"])["value"].mean().unstack().dropna()
    more = (means[True] - means[False]).to_numpy()
    low, high = bootstrap_interval(more)
    text = f"Words that name a drawn thing score {means[True].mean():+.4f}, the others {means[False].mean():+.4f}:"
    return f"{text} {more.mean():+.4f} [{low:+.4f}, {high:+.4f}] more, in {len(means)} captions."
