"""What is said of words follows from their scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from studies.cases import tabulate_case
from studies.words import describe_named, describe_sums, tabulate_words

RESULTS = [
    SimpleNamespace(
        words=["Two", "dogs", "two"], word_scores=np.array([1.0, 5.0, 2.0]), begin_score=0.5, end_score=9.0
    ),
    SimpleNamespace(words=["a", "cat"], word_scores=np.array([1.0, 3.0]), begin_score=1.5, end_score=9.0),
]


def test_a_word_that_occurs_again_is_summed():
    table = tabulate_words(RESULTS)
    assert table.to_dict("list") == {"id": [0, 0, 1, 1], "word": ["dogs", "two", "a", "cat"], "value": [5, 3, 1, 3]}


def test_sums_are_means_over_captions():
    said = describe_sums(RESULTS)
    assert "+6.000 [" in said
    assert "+1.000 [+0.500, +1.500] on the begin token" in said
    assert "+9.000 [+9.000, +9.000] on the end token" in said


def test_named_things_are_set_against_the_other_words():
    said = describe_named(tabulate_words(RESULTS), [["red dog"], ["cat"]])
    assert said.startswith("Words that name a drawn thing score +4.0000, the others +2.0000: +2.0000 [")
    assert said.endswith("in 2 captions.")


def test_a_case_lists_patches_and_words():
    result = SimpleNamespace(image_scores=np.arange(6.0).reshape(2, 3), words=["a"], word_scores=np.array([7.0]))
    table = tabulate_case(result, case="best")
    assert list(table["score"]) == pytest.approx([0, 1, 2, 3, 4, 5, 7])
    assert table[table["row"] == 1]["column"].tolist() == [0, 1, 2]
    assert set(table["case"]) == {"best"}
