"""Figure 1 shows the maps that it is given, signed ones in red and blue, and its table holds their scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from studies.figure1 import draw_prompts, tabulate_prompts


@pytest.fixture
def results():
    picture = np.full((8, 8, 3), 200, np.uint8)

    def explained(text, scores):
        scores = np.array(scores, float)
        return SimpleNamespace(text=text, picture=picture, image_map=scores, image_scores=scores)

    signed = [explained("a dog", [[1, -2], [0, 3]]), explained("a cat", [[0, 0], [1, 1]])]
    return {"NIB": signed, "m2ib": [explained(each.text, np.abs(each.image_map)) for each in signed]}


def test_the_table_holds_every_patch_of_every_map(results):
    table = tabulate_prompts(results)
    assert len(table) == 2 * 2 * 4
    row = table.query("map == 'NIB' and prompt == 'a dog' and row == 0 and column == 1")
    assert row["score"].item() == -2


def test_a_row_a_prompt_a_column_a_run_and_outlines_where_there_are_any(results):
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    figure = draw_prompts(results, [mask, None])
    assert len(figure.axes) == 2 * 3
    assert [axes.get_title() for axes in figure.axes[:3]] == ["", "NIB", "m2ib"]
    assert figure.axes[3].get_ylabel() == "“a cat”"
    outlined = [any(hasattr(each, "levels") for each in axes.collections) for axes in figure.axes]
    assert outlined == [True] * 3 + [False] * 3
    maps = {axes.images[-1].get_cmap().name for axes in figure.axes[1:6] if axes.images}
    assert "magma" in maps
