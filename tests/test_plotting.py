"""Zero is neutral in every plot, and a saved figure is the same file each time."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

import nib
from nib.plotting import WIDTH, draw_map, draw_words, new_figure, plot_attribution, plot_maps, save_figure

SCORES = np.array([[0.02, -0.5], [0.1, 0.3]])  # the largest absolute score is negative
WORDS = ["a", "cat", "on", "grass"]
WORD_SCORES = np.array([0.1, 0.4, 0.0, -0.2])


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def axes():
    return new_figure(3, 3).subplots()


def limits(axes):
    """The colour scale of what was drawn last."""
    image = axes.images[-1]
    return image.norm.vmin, image.norm.vmax


def test_map_has_symmetric_limits(axes, picture):
    draw_map(axes, picture, SCORES)
    assert limits(axes) == (-0.5, 0.5)
    assert axes.images[-1].get_array().shape == (20, 30)
    draw_map(axes, picture, SCORES, limit=2.0)
    assert limits(axes) == (-2, 2)


def test_map_is_clear_where_the_score_is_zero(axes, picture):
    draw_map(axes, picture, np.array([[0.0, 1.0]]))
    alpha = axes.images[-1].get_alpha()
    assert alpha[:, 0].max() == 0
    assert alpha[:, -1].min() == pytest.approx(0.9)


def test_map_of_zeros_shows_the_picture(axes, picture):
    draw_map(axes, picture, np.zeros((2, 2)))
    assert limits(axes) == (-1, 1)
    assert not axes.images[-1].get_alpha().any()


def test_words_have_symmetric_limits_and_colours_by_sign(axes):
    draw_words(axes, WORDS, WORD_SCORES)
    left, right = axes.get_xlim()
    assert left == -right
    assert right > 0.4
    assert axes.yaxis_inverted()
    assert [label.get_text() for label in axes.get_yticklabels()] == WORDS
    assert [bar.get_width() for bar in axes.patches] == WORD_SCORES.tolist()
    (red, _, blue, _), (other_red, _, other_blue, _) = axes.patches[1].get_facecolor(), axes.patches[3].get_facecolor()
    assert red > blue
    assert other_red < other_blue


def test_small_multiples_share_limits_when_asked_to(picture):
    maps = {"one": SCORES, "two": 2 * SCORES, "three": 0 * SCORES}
    own = plot_maps(picture, maps, columns=2)
    assert [limits(axes) for axes in own.axes if axes.images] == [(-0.5, 0.5), (-1, 1), (-1, 1)]
    assert [axes.get_title() for axes in own.axes if axes.images] == list(maps)
    shared = plot_maps(picture, maps, columns=2, share_limits=True)
    assert [limits(axes) for axes in shared.axes if axes.images] == [(-1, 1)] * 3
    assert len(shared.axes) == len(own.axes) + 1  # the colour bar


def test_result_plots_itself_and_leaves_no_open_figure(clip):
    result = nib.attribute(clip, np.zeros((60, 60, 3), np.uint8), "a cat", layer=2, n_steps=2)
    figure = result.plot()
    assert isinstance(figure, Figure)
    assert not plt.get_fignums()
    assert "a cat" in figure.get_suptitle()
    middle = figure.axes[1]
    assert limits(middle) == pytest.approx((-np.abs(result.image_scores).max(), np.abs(result.image_scores).max()))
    colour_bar = figure.axes[3]
    assert colour_bar.get_ylim() == pytest.approx(limits(middle))


def test_result_without_gaps_plots_too(picture):
    assert isinstance(plot_attribution(picture, SCORES, WORDS, WORD_SCORES, "title"), Figure)


def test_saved_figure_is_the_same_each_time(picture, tmp_path, subtests):
    for number, stem in enumerate(["07_topic", "07_topic.v2"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(stem):
            frame = pd.DataFrame({"word": WORDS, "score": WORD_SCORES / 3})
            contents = []
            for figure in [plot_attribution(picture, SCORES, WORDS, WORD_SCORES, "title") for _ in range(2)]:
                for _ in range(2):  # the same figure again, and one that was drawn anew
                    save_figure(figure, frame, folder / "figures" / stem)
                    contents.append([path.read_bytes() for path in sorted((folder / "figures").iterdir())])
            assert sorted(path.name for path in (folder / "figures").iterdir()) == [
                f"{stem}.{ending}" for ending in ("csv", "pdf", "png")
            ]
            assert all(content == contents[0] for content in contents)
            assert contents[0][0].decode().splitlines()[:3] == ["word,score", "a,0.0333333", "cat,0.133333"]
            assert contents[0][1].startswith(b"%PDF")
            assert b"CreationDate" not in contents[0][1]
            saved = Image.open(folder / "figures" / f"{stem}.png")
            assert saved.size[0] == round(300 * WIDTH)
            assert saved.info["dpi"] == pytest.approx((300, 300), rel=1e-3)


def test_a_saved_picture_has_its_colours(tmp_path):
    """From a little distance, as a file has 256: a picture of all colours shows no bands."""
    y, x = np.mgrid[:60, :60] * 255 // 59
    figure = new_figure(2, 2)
    figure.subplots().imshow(np.stack([x, y, 255 - x], -1).astype(np.uint8))
    save_figure(figure, pd.DataFrame({"a": [1]}), tmp_path / "saved")
    figure.savefig(tmp_path / "own.png", dpi=300)
    pictures = [Image.open(tmp_path / f"{name}.png").convert("RGB") for name in ("saved", "own")]
    saved, own = (np.array(picture.filter(ImageFilter.BoxBlur(4)), int) for picture in pictures)
    assert np.abs(saved - own).mean() < 0.5


def test_charts_are_saved_with_300_dots_an_inch(tmp_path):
    figure = new_figure(2, 1)
    figure.subplots().plot([1, 2])
    save_figure(figure, pd.DataFrame({"a": [1]}), tmp_path / "chart")
    saved = Image.open(tmp_path / "chart.png")
    assert saved.size == (600, 300)
    assert saved.mode == "P"
