"""The book builds without a warning, reads without a network, and every link in it leads somewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path.stem for path in ROOT.glob("notebooks/[0-9]*.ipynb"))
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Return the folder into which the book was built."""
    folder = tmp_path_factory.mktemp("built") / "book"
    command = ["make", "book", f"PYTHON={sys.executable}", f"BOOK={folder}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    return folder


@pytest.fixture(scope="module")
def pages(book):
    """Return every page of the book, parsed, by its path."""
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in book.rglob("*.html")}


def test_every_notebook_and_document_is_a_page_in_reading_order(book, pages):
    links = [link["href"] for link in pages[book / "README.html"].select(".sidebar-tree a.internal")]
    notebooks = [Path(link).stem for link in links if link.startswith("notebooks/") and Path(link).stem in NOTEBOOKS]
    assert notebooks == NOTEBOOKS
    if (ROOT / "notebooks" / "index.ipynb").exists():
        assert links[0] == "notebooks/index.html"
    sources = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    names = {str(path.relative_to(ROOT).with_suffix(".html")) for path in sources} - {"README.html"}
    assert names <= set(links)
    assert links[-1] == "CHANGELOG.html"


def find_links(page):
    """Return what a page refers to by `href` and `src`."""
    return [tag.get("href") or tag["src"] for tag in page.select("[href], [src]")]


def test_every_link_leads_to_a_file_and_to_a_place_in_it(pages):
    places = {
        path: {tag.get("id") or tag["name"] for tag in page.select("[id], a[name]")} for path, page in pages.items()
    }
    for path, page in pages.items():
        for link in find_links(page):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path.name, link)
            assert not parts.fragment or unquote(parts.fragment) in places[target], (path.name, link)


def test_nothing_is_loaded_from_the_net(book, pages):
    for path, page in pages.items():
        for tag in page.select("[src], link[href], object[data], image[href]"):
            source = tag.get("src") or tag.get("href") or tag["data"]
            assert urlsplit(source).scheme in ("", "data"), (path.name, source)
            assert not source.startswith("//"), (path.name, source)
        assert "@import" not in str(page)
    for path in book.rglob("*.css"):
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", path.read_text()), path.name


def test_notebooks_show_their_outputs_and_formulas(book, pages, subtests):
    for name in NOTEBOOKS:
        with subtests.test(name):
            page = pages[book / "notebooks" / f"{name}.html"]
            notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
            outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
            pictures = sum("image/png" in data or "image/jpeg" in data for data in outputs)
            assert len(page.select("article .cell_output img")) == pictures
            tables = sum(data.get("text/html", "").count("<table") for data in outputs)
            assert len(page.select("article .cell_output .text_html table")) == tables
            prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
            assert len(page.select("article math")) == len(re.findall(r"(\$\$?)[^$]+\1", prose))


def test_the_search_knows_a_word_of_a_notebook(book):
    assert '"jacobian":' in (book / "searchindex.js").read_text()


@pytest.fixture(scope="module")
def browser():
    """Return Chromium without a window and without a network."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM).new_context(offline=True)


@pytest.fixture
def tab(browser):
    """Return an empty page of the browser; what its console complains of fails the test."""
    tab, errors = browser.new_page(), []
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("requestfailed", lambda request: errors.append(request.url))
    yield tab
    tab.close()
    assert errors == []


def test_the_pages_open_and_fit_a_window(book, pages, tab):
    for path in pages:
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path.name
    tab.goto((book / "index.html").as_uri())
    tab.wait_for_url("**/README.html")


def test_the_search_finds_pages(book, tab):
    tab.goto(f"{(book / 'search.html').as_uri()}?q=jacobian")
    tab.wait_for_selector("#search-results li a")
    assert "12_interactions.html" in " ".join(link.get_attribute("href") for link in tab.query_selector_all("li a"))


def test_a_formula_is_drawn(book, tab):
    tab.goto((book / "notebooks" / "12_interactions.html").as_uri())
    box = tab.locator("math[display=block]").bounding_box()
    fraction = tab.locator("math[display=block] mfrac").bounding_box()
    assert box["height"] >= fraction["height"] > 25  # a fraction has two lines where MathML is drawn
    assert fraction["width"] > 50


def test_a_click_on_a_figure_zooms_it(book, tab):
    tab.goto((book / "notebooks" / "00_quickstart.html").as_uri())
    figure = tab.locator("article img").first
    small = figure.bounding_box()
    figure.click()
    assert tab.locator("dialog img").bounding_box()["width"] > 1.2 * small["width"]
    tab.keyboard.press("Escape")
    tab.locator("dialog img").wait_for(state="hidden")
    figure.press("Enter")
    tab.locator("dialog").click()
    tab.locator("dialog img").wait_for(state="hidden")
