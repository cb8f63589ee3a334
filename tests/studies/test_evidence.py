"""What is removed is what has the lowest scores, and reports say what happened, with the right sign."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from nib.inputs import to_pixel_values, to_tokens
from studies.evidence import (
    choose_lowest,
    draw_removals,
    find_outside,
    list_cases,
    remove_patches,
    remove_words,
    report_removals,
    score_names,
)
from studies.negatives import at_random
from studies.two_objects import ASKED, Scenes

WORDS = [["a", "cat"], ["a", "red", "dog"]]


@pytest.fixture
def scenes():
    """Two pictures of noise; what is asked for covers all patches of the first but the last, none of the second."""
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (60, 60, 3), dtype=np.uint8)) for _ in range(2)]
    mask = torch.zeros(2, 60, 60, dtype=torch.bool)
    mask[0] = True
    mask[0, 48:, 48:] = False
    return Scenes(["x", "y"], pictures, ["", ""], ["cat", "dog"], ["owl", "owl"], {ASKED: mask})


@pytest.fixture
def maps():
    """Maps whose lowest patch is (1, 2) and (0, 4), and whose patch nearest to zero is (3, 0) and (2, 2)."""
    scores = torch.full((2, 5, 5), 2.0)
    scores[0, 1, 2], scores[1, 0, 4], scores[0, 3, 0], scores[1, 2, 2] = -3, -1, -0.5, 0.5
    return {"one": scores, "two": -scores.flip(0)}


def paint(pixel_values, *patches):
    """Paint one patch of each picture in the mean colour."""
    painted = pixel_values.clone()
    for picture, (row, column) in zip(painted, patches):
        picture[:, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = 0
    return painted


def test_lowest_and_nearest_to_zero():
    scores = {"one": torch.tensor([[-2.0, 0.1, 5.0], [3.0, 1.0, torch.inf]]), "two": torch.tensor([[3, 2, 1]] * 2)}
    places = {name: chosen.long().argmax(-1).tolist() for name, chosen in choose_lowest(scores, 1).items()}
    assert places == {"lowest of one": [[0], [1]], "lowest of two": [[2], [2]], "nearest to 0 of one": [[1], [1]]}
    assert choose_lowest(scores, 2)["lowest of one"].tolist() == [[[True, True, False]], [[True, True, False]]]


def test_a_patch_is_outside_where_no_pixel_lies_on_the_object():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 0, 2] = True  # at twice the size: rows 0 and 1, columns 4 and 5
    assert find_outside(masks, (8, 12), 4).tolist() == [[True, False, True, True, True, True], [True] * 6]


def test_the_lowest_patches_are_painted(clip, scenes, maps):
    removals = remove_patches(clip, scenes, maps, [1], n_draws=3)
    assert removals.columns.tolist() == ["id", "removed", "value", "panel", "k"]
    assert removals["panel"].unique().tolist() == ["patches, mean colour", "patches, left out"]
    found = removals[removals["panel"] == "patches, mean colour"].set_index(["removed", "id"])["value"]
    pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in scenes.pictures])
    text = clip.text.embed(*to_tokens(clip, ["a cat", "a dog"])[:2])
    before = cosine_similarity(clip.image.embed(pixel_values), text)
    for removed, places in (("lowest of one", [(1, 2), (0, 4)]), ("nearest to 0 of one", [(3, 0), (2, 2)])):
        change = cosine_similarity(clip.image.embed(paint(pixel_values, *places)), text) - before
        assert found[removed].tolist() == pytest.approx(change.tolist(), abs=1e-9)
    last = cosine_similarity(clip.image.embed(paint(pixel_values, (4, 4), (4, 4))), text) - before
    assert found["random, off the object", "x"] == pytest.approx(float(last[0]), abs=1e-9)  # the only one there
    assert abs(found["random", "x"] - float(last[0])) > 1e-6


def test_draws_are_averaged(clip, scenes, maps):
    removals = remove_patches(clip, scenes, maps, [1], n_draws=2)
    found = removals[(removals["removed"] == "random") & (removals["panel"] == "patches, mean colour")]["value"]
    pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in scenes.pictures])
    text = clip.text.embed(*to_tokens(clip, ["a cat", "a dog"])[:2])
    before = cosine_similarity(clip.image.embed(pixel_values), text)
    drawn = at_random(torch.ones(2, 25, dtype=torch.bool), 1, 2).long().argmax(-1)  # (scenes, draws)
    changes = []
    for draw in drawn.T.tolist():
        painted = paint(pixel_values, *(divmod(place, 5) for place in draw))
        changes.append(cosine_similarity(clip.image.embed(painted), text) - before)
    assert found.tolist() == pytest.approx(torch.stack(changes).mean(0).tolist(), abs=1e-9)


def explain_words(*scores):
    return [SimpleNamespace(words=words, word_scores=np.array(values)) for words, values in zip(WORDS, scores)]


def test_the_lowest_words_are_dropped(clip, scenes):
    results = {
        "one": explain_words([2.0, -1.0], [3.0, -2.0, 1.0]),
        "two": explain_words([0.0, 1.0], [5.0, 4.0, 3.0]),
    }
    removals = remove_words(clip, scenes, results, [1], n_draws=4)
    assert set(removals["k"]) == {1}
    found = removals.set_index(["removed", "id"])["value"]
    images = clip.image.embed(torch.cat([to_pixel_values(clip, picture) for picture in scenes.pictures]))

    def compare(*texts):
        return cosine_similarity(images, clip.text.embed(*to_tokens(clip, list(texts))[:2]))

    before = compare("a cat", "a red dog")
    expected = {
        "lowest of one": compare("a", "a dog"),
        "lowest of two": compare("cat", "a red"),
        "nearest to 0 of one": compare("a", "a red"),
    }
    for removed, after in expected.items():
        assert found[removed].tolist() == pytest.approx((after - before).tolist(), abs=1e-9)
    assert np.isfinite(found["random"]).all()  # what is no word is never drawn


def make_removals():
    values = {"mine": [0.1, 0.3, -0.1, 0.5], "other": [0.0, 0.1, 0.2, 0.1], "rare": [1.0, 1.1, 1.2, 1.3]}
    rows = [(panel, removed, k, str(i), (2 if panel == "p" else -1) * k * value)
            for panel in "pq" for k in (1, 3) for removed, found in values.items() for i, value in enumerate(found)
            if (removed, panel) != ("rare", "q")]  # fmt: skip
    return pd.DataFrame(rows, columns=["panel", "removed", "k", "id", "value"])


def test_the_report_by_hand():
    report = report_removals(make_removals(), "mine", ["other", "rare"])
    assert report.index.tolist() == [("p", 1), ("p", 3), ("q", 1), ("q", 3)]
    assert report["rises in"].tolist() == [0.75, 0.75, 0.25, 0.25]
    assert [text.split()[0] for text in report["change"]] == ["+0.400", "+1.200", "-0.200", "-0.600"]
    assert [text.split()[0] for text in report["more than other"]] == ["+0.200", "+0.600", "-0.100", "-0.300"]
    assert [text.split()[0] for text in report["more than rare"].dropna()] == ["-1.900", "-5.700"]
    assert report["more than rare"].isna().tolist() == [False, False, True, True]
    assert report["p (other)"].tolist() == ["0.6"] * 4  # 10 of the 16 ways to set the signs
    low, high = report["change"].iloc[0].split("[")[1].rstrip("]").split(", ")
    assert float(low) < 0.4 < float(high)


def test_cases_are_named_by_the_side_of_zero():
    rows = [("p", 1, 0.1, 0.2), ("q", 1, -0.2, -0.1), ("p", 3, 0.1, 0.3), ("q", 3, -0.1, 0.1), ("r", 2, 0.1, 0.2)]
    cases = pd.DataFrame(rows, columns=["panel", "k", "low", "high"])
    assert list_cases(cases) == {"above": "p (1, 3); r (2)", "below": "q (1)", "across": "q (3)"}
    assert list_cases(cases[:1]) == {"above": "p (1)", "below": "in no case", "across": "in no case"}


def test_the_words_of_a_name_are_added_up():
    words, scores = ["a", "fire", "engine", "and", "an", "owl"], np.array([1.0, -3.0, 0.5, 7.0, 9.0, -0.25])
    results = [SimpleNamespace(words=words, word_scores=scores)] * 3
    assert score_names(results, ["fire engine", "owl", "cat"]).tolist() == [-2.5, -0.25, 0]  # "a" is no word of "cat"


def test_the_figure_has_a_panel_a_way_and_a_line_at_zero():
    rows = [(panel, removed, k, 0.1, 0.0, 0.2) for panel in "pq" for k in (1, 3) for removed in ("mine", "other")]
    changes = pd.DataFrame(rows, columns=["panel", "removed", "k", "mean", "low", "high"])
    figure = draw_removals(changes)
    assert [axes.get_title() for axes in figure.axes] == ["p", "q"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["mine", "other"]
    for axes in figure.axes:
        assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1 removed", "3 removed"]
