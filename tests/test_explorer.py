"""The interactive page holds the scores, loads nothing, shows captions as they are written, and answers keys."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from datetime import datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import nib

ROOT = Path(__file__).parents[1]
CAPTION = "a dog on grass"
HOSTILE = ["</script><b>$5", "قطة على العشب", "a {{data}} \u2028 cat", "\" onload='alert(1)' & <!-- \\u003c"]
PATH = dict(layer=2, n_steps=2)


@pytest.fixture(scope="module")
def clip(model_folder):
    return nib.load(model_folder)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def result(clip, picture):
    return nib.attribute(clip, picture, CAPTION, **PATH)


@pytest.fixture(scope="module")
def others(clip, picture):
    return [nib.attribute(clip, picture, CAPTION, **PATH | {"layer": 3}), nib.attribute(clip, picture, CAPTION, "none")]


@pytest.fixture(scope="module")
def between(clip, picture):
    return nib.interactions(clip, picture, CAPTION, **PATH)


@pytest.fixture(scope="module")
def embedded():
    scene = nib.datasets.load("scenes", limit=3)[2]
    return nib.attribute(nib.load(), scene["image"], scene["text"], n_steps=2)


def read_data(page: str) -> dict:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(data)


class Loads(HTMLParser):
    """Collect what a page would fetch, and its tags."""

    def __init__(self, page: str):
        super().__init__()
        self.found, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.found += [value for name, value in attributes if name in ("src", "href", "action", "data", "poster")]


def test_the_page_holds_the_scores(result, others, between):
    page = read_data(result.to_html(interactions=between, others=others))
    assert page["words"] == CAPTION.split()
    assert page["grid"] == [5, 5]
    for item, shown in zip(page["items"], [result, *others]):
        np.testing.assert_allclose(item["patches"], shown.image_scores.ravel(), rtol=1e-6)
        np.testing.assert_allclose(item["word_scores"], shown.word_scores, rtol=1e-6)
        assert item["similarity"] == pytest.approx(shown.similarity, rel=1e-6)
    np.testing.assert_allclose(page["between"], between.scores.reshape(4, 25), rtol=1e-6)
    assert [item["unit"] for item in page["items"]] == ["cosine", "cosine", ""]
    assert read_data(result.to_html())["between"] is None


def test_labels_say_what_differs(result, others):
    labels = [item["label"] for item in read_data(result.to_html(others=others))["items"]]
    assert labels == ["method nib, layer 2", "method nib, layer 3", "method none"]
    steps = replace(result, parameters=result.parameters | {"n_steps": 7, "batch_size": 1})
    labels = [item["label"] for item in read_data(result.to_html(others=[steps]))["items"]]
    assert labels == ["n_steps 2", "n_steps 7"]


def test_the_page_loads_nothing(embedded):
    page = embedded.to_html()
    (source,) = Loads(page).found
    assert source.startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?:|@import|url\(|import\(|fetch\(", page)
    assert "default-src 'none'" in page


def test_pages_are_small(embedded):
    assert len(embedded.to_html().encode()) < 60e3
    assert len(embedded._repr_html_().encode()) < 60e3
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert len(replace(embedded, picture=noise)._repr_html_().encode()) < 120e3
    assert len(replace(embedded, picture=np.tile(noise, (8, 12, 1))).to_html().encode()) < 600e3


def test_captions_are_text(clip, picture, result, subtests):
    for text in HOSTILE:
        with subtests.test(text):
            own = nib.attribute(clip, picture, text, **PATH)
            page = own.to_html()
            assert read_data(page)["words"] == own.words
            tags, expected = (
                [tag for tag in Loads(each).tags if tag != "span"]  # one a word
                for each in (page, result.to_html())
            )
            assert tags == expected
            (heading,) = re.findall(r'<h1 dir="auto">(.*?)</h1>', page, flags=re.DOTALL)
            assert unescape(heading) == text
            assert "<" not in heading
            (frame,) = re.findall(r'srcdoc="([^"]*)"', own._repr_html_())
            assert unescape(frame) == page


def test_a_page_is_written_whole_or_not_at_all(result, tmp_path, monkeypatch):
    path = tmp_path / "folder" / "page.html"
    page = result.to_html(path)
    assert path.read_text(encoding="utf-8") == page
    assert result.to_html(str(path)) == page
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]

    def fail(*names):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    path.write_text("before")
    with pytest.raises(OSError, match="no space"):
        result.to_html(path)
    assert path.read_text() == "before"


BAD = {
    "a path": (lambda r, b: dict(path=3), TypeError, "int"),
    "no interactions": (lambda r, b: dict(interactions=r), TypeError, "must be a nib.Interactions, got Attribution"),
    "another text": (
        lambda r, b: dict(interactions=replace(b, caption="a")),
        ValueError,
        "same caption, 'a dog on grass'",
    ),
    "another grid": (lambda r, b: dict(interactions=replace(b, scores=b.scores[:, 1:])), ValueError, "same grid"),
    "one other": (lambda r, b: dict(others=r), TypeError, r"pass \[other\]"),
    "no other": (lambda r, b: dict(others=["a"]), TypeError, "list of Attributions, got str"),
    "nothing": (lambda r, b: dict(others=None), TypeError, "list of Attributions, got NoneType"),
    "other words": (lambda r, b: dict(others=[replace(r, caption="b")]), ValueError, r"others\[0\] .* same caption"),
    "other picture": (
        lambda r, b: dict(others=[r, replace(r, picture=1 - r.picture)]),
        ValueError,
        r"others\[1\] .* pix",
    ),
    "other grid": (lambda r, b: dict(others=[replace(r, image_scores=np.ones((2, 2)))]), ValueError, "same grid"),
    "NaN": (lambda r, b: dict(others=[replace(r, image_scores=r.image_scores * np.nan)]), ValueError, "finite"),
}


def test_what_does_not_belong_together_is_refused(result, between, tmp_path, subtests):
    for number, case in enumerate(BAD):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(case):
            make, error, message = BAD[case]
            options = {"path": folder / "page.html"} | make(result, between)
            with pytest.raises(error, match=message):
                result.to_html(**options)
            assert not list(folder.iterdir())


def test_where_frames_are_stripped_the_words_remain(embedded):
    shown = embedded._repr_html_()
    stripped = re.sub(r"<(iframe|style|script).*?</\1>", "", shown, flags=re.DOTALL)
    assert len(stripped) < 3000
    for part in (*embedded.words, "strongest patches", f"similarity {embedded.similarity:.3f}"):
        assert part in stripped
    (row, column) = np.unravel_index(np.abs(embedded.image_scores).argmax(), embedded.image_scores.shape)
    assert f"({row}, {column}) {embedded.image_scores[row, column]:+.3f}" in stripped


def test_scores_that_are_not_finite_leave_the_words(result):
    shown = replace(result, image_scores=result.image_scores * np.nan)._repr_html_()
    assert "iframe" not in shown
    assert "dog" in shown


# the widgets


@pytest.fixture(scope="module")
def make_explorer():
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    from studies.explorer import make_explorer

    return make_explorer


@pytest.fixture
def explorer(make_explorer, clip, picture):
    scenes = [{"image": picture, "text": "a dog"}, {"image": picture, "text": "a cat"}]
    box = make_explorer(clip, scenes)
    upper, lower, page = box.children
    names = ("scene", "upload", "text", "method", "layer", "n_steps", "lambda_min", "said")
    return dict(zip(names, [*upper.children, *lower.children])) | {"page": page}


def test_the_map_follows(explorer, clip, picture):
    for name, value in {"text": "a hippopotamus", "layer": 2, "n_steps": 3, "lambda_min": 0.5}.items():
        explorer[name].value = value
    expected = nib.attribute(clip, picture, "a hippopotamus", layer=2, n_steps=3, lambda_min=0.5)
    assert explorer["page"].value == expected._repr_html_()
    explorer["method"].value = "saliency"
    assert explorer["layer"].disabled
    assert explorer["page"].value == nib.attribute(clip, picture, "a hippopotamus", "saliency")._repr_html_()
    explorer["scene"].value = 1
    assert explorer["text"].value == "a cat"
    assert "cat" in explorer["page"].value


def test_what_is_wrong_is_said_in_the_notebook(explorer):
    explorer["text"].value = " "
    assert "No map:</b> <bdi>a caption must hold at least one word" in explorer["page"].value
    explorer["text"].value = "a <b>dog</b> " * 30
    assert "the caption has" in explorer["page"].value
    assert "<b>dog" not in explorer["page"].value
    explorer["text"].value = "a dog"
    explorer["upload"].value = [upload(b"no picture")]
    assert "the uploaded file cannot be read as a picture" in explorer["page"].value
    explorer["upload"].value = [upload((ROOT / "data/photo/chelsea.jpg").read_bytes())]
    assert "iframe" in explorer["page"].value
    assert explorer["said"].value.startswith("your picture mine.jpg")
    explorer["scene"].value = 1
    assert explorer["said"].value.startswith("the scene")


def upload(content: bytes) -> dict:
    return dict(name="mine.jpg", type="", size=len(content), content=content, last_modified=datetime.now())


def test_typing_makes_one_map(make_explorer):
    import asyncio

    from studies.explorer import settle

    calls = []

    async def type_three_letters():
        follow = settle(lambda: calls.append(1), wait=0.05)
        for _ in range(3):
            follow()
        await asyncio.sleep(0.2)

    asyncio.run(type_three_letters())
    assert calls == [1]


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(ROOT / "notebooks/explorer.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert sum(len(cell.source.splitlines()) for cell in code) < 10
    assert "limits" in notebook.cells[-1].source


# in a browser


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, that of the system; playwright drives it (`pip install playwright`)."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open HTML in a tab; at the end nothing may have been complained of or fetched."""
    complaints, context = [], browser.new_context(viewport={"width": 1000, "height": 700})

    def open_page(page: str):
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: request.url[:5] in ("file:", "data:") or complaints.append(request.url))
        tab.goto((tmp_path / "page.html").as_uri())
        return tab

    yield open_page
    context.close()
    assert not complaints


def see_map(tab) -> str:
    return tab.evaluate("document.querySelector('.frame canvas').toDataURL()")


def see_read(tab) -> str:
    return tab.inner_text(".read").replace("\u2212", "-").replace("\u2068", "").replace("\u2069", "")


def test_words_and_patches_answer_the_mouse(open_page, result, between, others):
    tab = open_page(result.to_html(interactions=between, others=others))
    whole, cells = see_map(tab), tab.locator("[role=gridcell]")
    assert see_read(tab).startswith(f"{result.similarity:+.4f}")
    tab.hover(".words button:nth-child(2)")
    assert see_map(tab) != whole
    assert see_read(tab) == f"{result.word_scores[1]:+.4f}\nword dog"
    before = tab.eval_on_selector_all(".words button", "all => all.map(each => each.style.backgroundColor)")
    cells.nth(7).hover()
    assert see_map(tab) == whole
    assert see_read(tab) == f"{result.image_scores[1, 2]:+.4f}\npatch in row 1, column 2"
    assert tab.eval_on_selector_all(".words button", "all => all.map(each => each.style.backgroundColor)") != before
    tab.click(".words button:nth-child(2)")
    cells.nth(7).hover()
    assert see_map(tab) != whole
    tab.evaluate("document.activeElement.blur()")
    cells.nth(7).hover()
    assert see_read(tab) == f"{between.scores[1, 1, 2]:+.4f}\npatch in row 1, column 2 with the word dog"


def test_everything_is_there_for_the_keyboard(open_page, result):
    tab = open_page(result.to_html())
    tab.keyboard.press("Tab")
    for key, place in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("End", (1, 4)), ("ArrowRight", (1, 4))):
        tab.keyboard.press(key)
        row, column = place
        assert see_read(tab) == f"{result.image_scores[place]:+.4f}\npatch in row {row}, column {column}"
    label = tab.evaluate("document.activeElement.getAttribute('aria-label')").replace("\u2212", "-")
    assert label == f"row 1, column 4: {result.image_scores[1, 4]:+.4f}"
    assert tab.locator("[role=gridcell][tabindex='0']").count() == 1
    tab.keyboard.press("Tab")
    assert see_read(tab) == f"{result.word_scores[0]:+.4f}\nword a"


def test_controls_change_the_map(open_page, result, others):
    tab = open_page(result.to_html(others=others))
    first = see_map(tab)
    assert tab.inner_text("output.item") == "1 of 3: method nib, layer 2"
    tab.focus("#item")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("output.item") == "2 of 3: method nib, layer 3"
    assert see_map(tab) != first
    tab.keyboard.press("ArrowLeft")
    tab.check("[value=rectified]")
    pixels = "(c => [...c.getContext('2d').getImageData(0, 0, 5, 5).data].filter((_, at) => at % 4 == 3))"
    seen = tab.evaluate(f"{pixels}(document.querySelector('.frame canvas'))")
    assert np.array_equal(np.array(seen) > 0, result.image_scores.ravel() > 1e-4 * np.abs(result.image_scores).max())
    tab.locator("#strength").fill("30")
    assert tab.evaluate("getComputedStyle(document.querySelector('.frame canvas')).opacity") == "0.3"
    assert tab.locator(".item >> visible=true").count() == 3
    assert open_page(result.to_html()).locator(".item >> visible=true").count() == 0


def test_a_browser_shows_captions_as_they_are_written(open_page, clip, picture, subtests):
    for text in HOSTILE:
        with subtests.test(text):
            own = nib.attribute(clip, picture, text, **PATH)
            for tab in (open_page(own.to_html()), open_page(f'<meta charset="utf-8">{own._repr_html_()}')):
                inner = next((frame for frame in tab.frames if frame.parent_frame), tab)
                inner.wait_for_selector("main:visible")
                assert inner.text_content("h1") == text
                assert inner.locator(".words bdi").all_text_contents() == own.words
                assert not tab.locator(".nib-static").is_visible()


@pytest.mark.slow
def test_the_notebook_answers_in_jupyterlab(browser, tmp_path):
    """A reader opens the notebook, runs it, and types."""
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    shutil.copy(ROOT / "notebooks/explorer.ipynb", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.open_browser=False",
        "--IdentityProvider.token=reader",
        "--allow-root",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options, str(tmp_path)]
    kept = ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")
    environment = os.environ | {name: str(tmp_path / "jupyter") for name in kept}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api")
        tab = browser.new_page(viewport={"width": 1300, "height": 1100})
        tab.goto(f"http://127.0.0.1:{port}/lab/tree/explorer.ipynb?token=reader", timeout=120_000)
        tab.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=120_000)
        tab.locator("text=/Python 3.*Idle/").wait_for(timeout=120_000)  # the kernel has come
        tab.click('.lm-MenuBar-itemLabel >> text="Run"')
        tab.click('.lm-Menu-itemLabel >> text="Run All Cells"')
        frame = tab.frame_locator("iframe[title='nib explorer']")
        frame.locator("main:visible").wait_for(timeout=120_000)
        prompt = tab.locator(".jupyter-widgets input[type=text]:visible").first
        prompt.fill("a <b>rose</b>")
        frame.locator("h1", has_text="a <b>rose</b>").wait_for(timeout=20_000)
        if folder := os.environ.get("NIB_SCREENSHOTS"):
            tab.screenshot(path=Path(folder) / "lab.png")
        prompt.fill("")
        tab.get_by_text("a caption must hold at least one word").first.wait_for(timeout=20_000)
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address: str) -> None:
    for _ in range(120):
        try:
            return urllib.request.urlopen(address, timeout=2).close()
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)
