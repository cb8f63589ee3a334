"""The book that `make book` builds: the README, the executed notebooks and docs/ as HTML that needs no network."""

from pathlib import Path

from docutils.nodes import SkipNode, math_block
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).parents[1]

project = "nib"
html_title = "nib"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "notebooks/grids/*.md", "data/**.md"]
exclude_patterns = [".*", "build"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # the notebooks' own tables are Markdown
nb_ipywidgets_js = {}  # these would come from the net
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # it knows no anchors in HTML; tests/test_book.py follows every link
    "myst-nb.lexer",  # a notebook that never ran names no language, and is read as Python
]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["static"]
html_extra_path = ["index.html"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # a page opened from the disk may not fetch the others
html_math_renderer = "mathml"


def add_contents(app, docname, source):
    """Append the order of reading to the README, which GitHub shows without it."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda path: (path.stem != "index", path.stem))
    parts = {
        "Notebooks": [f"notebooks/{path.stem}" for path in notebooks],
        "Documents": ["docs/methods", "docs/theorems", "docs/measuring", "docs/*"],
        "Data and sweeps": ["data/README", "data/mini_clip/README", "data/scenes/NOTICE", "notebooks/grids/README"],
        "Project": ["CONTRIBUTING", "CHANGELOG"],
    }
    if docname == root_doc:
        for caption, pages in parts.items():
            lines = [":hidden:", ":glob:", f":caption: {caption}", "", *pages]
            source[0] += "\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def visit_math(self, node):
    """Write a formula as MathML, which browsers draw by themselves."""
    mathml = tex2mathml(node.astext(), as_block=isinstance(node, math_block))
    # A browser cannot tell the bar that opens from the one that closes, and sets both wide.
    self.body.append(mathml.replace('stretchy="false">|<', 'stretchy="false" lspace="0" rspace="0">|<'))
    raise SkipNode


def setup(app):
    app.connect("source-read", add_contents)
    app.add_html_math_renderer("mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
