"""Write `index.html`, all figures of a folder on one page: `python -m studies.sheet figures`."""

import html
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
STYLE = "body{font:15px system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{width:100%}"
STYLE += "figure{margin:1.5rem 0}figcaption{color:#555;font-size:13px}"


def write_sheet(folder: Path) -> Path:
    """Put the PNGs of a folder on a page, under their notebooks' titles; each links to its PDF and its numbers."""
    parts = []
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        found = sorted(folder.glob(f"{notebook.stem}*.png"))
        if found:
            title = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
            parts += [f"<h2>{html.escape(title)}</h2>", *map(_show, found)]
    page = f"<!doctype html><meta charset='utf-8'><title>Figures</title><style>{STYLE}</style><h1>Figures</h1>"
    path = folder / "index.html"
    path.write_text(f"{page}\n" + "\n".join(parts) + "\n")
    return path


def _show(picture: Path) -> str:
    links = [f"<a href='{picture.stem}.{kind}'>{kind.upper()}</a>" for kind in ("pdf", "csv")]
    image = f"<a href='{picture.name}'><img src='{picture.name}' alt='{picture.stem}' loading='lazy'></a>"
    return f"<figure>{image}<figcaption>{picture.stem}: {', '.join(links)}</figcaption></figure>"


if __name__ == "__main__":
    print(write_sheet(Path(sys.argv[1])))
