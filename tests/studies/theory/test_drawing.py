"""The figures of the theorems show what is in their tables."""

import pandas as pd
import pytest

from studies.theory import draw_gaps, draw_information, draw_limit, draw_profile, find_turn


def make_table(**columns):
    return pd.DataFrame(columns).assign(low=0.1, high=0.9, n=3)


def test_information_is_drawn_at_one_sigma():
    table = make_table(
        panel="a", of="whole state", estimate="formula", sigma=[1.0, 1.0, 2.0], **{"lambda": [0.0, 1.0, 1.0]}, mean=0.5
    )
    (axes,) = draw_information(table, 1.0).axes
    assert list(axes.lines[0].get_xdata()) == [0, 1]
    assert axes.get_ylabel().endswith("sigma = 1")


def test_ratios_are_not_drawn_and_spreads_have_two_log_axes():
    names = ["I, nats", "b", "c", "spread of F, picture", "ratio, picture"]
    figure = draw_limit(make_table(quantity=names, **{"lambda": 0.5}, sigma=1.0, mean=0.5))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == names[:-1]
    assert [axes.get_yscale() for axes in figure.axes[:4]] == ["linear"] * 3 + ["log"]


def test_a_profile_has_ten_ticks_and_the_turn():
    table = make_table(panel=["F", "slope", "share"], layer="layer 9", **{"lambda": [0.5, 0.5, None]}, mean=0.5)
    figure = draw_profile(table, 0.01)
    assert [axes.get_title() for axes in figure.axes] == ["F", "slope"]
    for axes in figure.axes:
        assert len(axes.collections[-1].get_segments()) == 10
        assert axes.lines[-1].get_xdata()[0] == 0.01


def test_what_is_to_be_explained_is_a_dashed_line():
    table = make_table(panel="a", rule=["right", "right", "all"], n_steps=[3, 10, 0], mean=[0.3, 0.2, 0.7])
    (axes,) = draw_gaps(table, [3, 10], 1).axes
    assert axes.lines[-1].get_ydata()[0] == 0.7
    assert len(axes.lines) == 2


def test_the_turn_is_where_the_states_are_as_small_as_the_root_of_eps(clip, pixel_values):
    states = clip.image.split(pixel_values, 2).hidden_states
    turn, eps = find_turn(clip, states), clip.model.config.vision_config.layer_norm_eps
    assert (turn * states).std(-1).mean().item() == pytest.approx(eps**0.5)
