"""Figure 1 shows the maps that it is given, signed ones in red and blue, and its table holds their scores."""

from types import SimpleNamespace

import numpy as np
import pytest

import nib
from studies.figure1 import draw_prompts, explain_scenes, show_small, tabulate_prompts


@pytest.fixture
def results():
    picture = np.full((8, 8, 3), 200, np.uint8)

    def explained(text, scores):
        scores = np.array(scores, float)
        return SimpleNamespace(caption=text, picture=picture, image_map=scores, image_scores=scores)

    signed = [explained("a dog", [[1, -2], [0, 3]]), explained("a cat", [[0, 0], [1, 1]])]
    return {"NIB": signed, "m2ib": [explained(each.caption, np.abs(each.image_map)) for each in signed]}


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


def test_signed_maps_of_one_picture_share_a_scale_and_those_of_others_do_not(results):
    def scale_of_second(results):
        return draw_prompts({"NIB": results["NIB"]}, [None, None]).axes[3].images[-1].get_clim()[1]

    assert scale_of_second(results) == 3
    results["NIB"][0].picture = np.zeros((8, 8, 3), np.uint8)
    assert scale_of_second(results) == 1


def test_blocks_stand_side_by_side(results):
    figure = draw_prompts(results, [None, None], blocks=2)
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes] == ["", "NIB", "m2ib"] * 2
    assert (figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()) == ("“a dog”", "“a cat”")
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == 1
    assert show_small(figure).data.startswith(b"\xff\xd8")


def test_scenes_are_drawn_by_seed_with_the_masks_of_what_is_named(clip):
    runs = {"random": {"method": "random"}}
    (found, masks), again = explain_scenes(clip, 3, runs), explain_scenes(clip, 3, runs)[0]
    others = explain_scenes(clip, 3, runs, seed=1)[0]
    texts = [[result.caption for result in each["random"]] for each in (found, again, others)]
    assert texts[0] == texts[1] != texts[2]
    _, prompts, all_masks = nib.datasets.object_prompts()
    for result, mask in zip(found["random"], masks):
        places = [k for k, prompt in enumerate(prompts) if prompt == result.caption]
        assert any(np.array_equal(all_masks[k], mask) for k in places)
