"""Explain pictures and prompts while they are chosen and typed: the widgets of notebooks/explorer.ipynb.

Exports `make_explorer`, `explain` and `open_upload`.
"""

import asyncio
import html
import inspect
import io
import time
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from PIL import Image

import nib
from nib.clip import HookedCLIP

SLOW = ("rise", "lime", "agi", "mfaba")  # seconds to minutes on the embedded model: no map would follow the typing
WAIT = 0.25  # seconds without a key before a map is made


def explain(clip: HookedCLIP, picture: "Image.Image | bytes", text: str, method: str = "nib", **parameters) -> str:
    """Return the interactive page of a picture and a prompt for a notebook, or what is wrong with them.

        explain(clip, scene["image"], "a dog", layer=6)

    Args:
        picture: as `nib.attribute` takes it, or the bytes of a file.
        parameters: those that the method does not have are left out.

    Returns:
        HTML; an error is text in it, since a notebook cannot show what a widget raises.
    """
    known = find_known(method)
    try:
        picture = open_upload(picture) if isinstance(picture, bytes) else picture
        own = {name: value for name, value in parameters.items() if name in known}
        return nib.attribute(clip, picture, text, method=method, progress=False, **own)._repr_html_()
    except Exception as error:  # of any kind: a picture can be broken in many ways
        return f'<p role="alert"><b>No map:</b> <bdi>{html.escape(str(error))}</bdi></p>'


def find_known(method: str) -> set[str]:
    """Return the names of a method's parameters."""
    return set(inspect.signature(nib.METHODS[method]).parameters)


def open_upload(content: bytes) -> Image.Image:
    """Return the picture in the bytes of a file.

    Raises:
        ValueError: they are no picture.
    """
    try:
        return Image.open(io.BytesIO(content))
    except (OSError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError("the uploaded file cannot be read as a picture") from error


def settle(function: Callable[[], None], wait: float = WAIT) -> Callable[..., None]:
    """Return a function that calls another one once it has not been called for a while.

    Outside of an event loop, as in tests, it calls at once.
    """
    waiting = None

    def call(change=None) -> None:
        nonlocal waiting
        if waiting is not None:
            waiting.cancel()
        try:
            waiting = asyncio.get_running_loop().call_later(wait, function)
        except RuntimeError:
            function()

    return call


def make_explorer(clip: HookedCLIP, scenes: Sequence[dict]) -> widgets.VBox:
    """Return widgets to choose a picture, a prompt, a method and its parameters, above the map that follows them.

        make_explorer(nib.load(), nib.datasets.load("scenes", limit=20))

    Args:
        scenes: rows with `image` and `text`.
    """
    controls = _make_controls(clip, scenes)
    page, said = widgets.HTML(), widgets.Label()

    def update() -> None:
        values = {name: control.value for name, control in controls.items()}
        uploads, scene = values.pop("upload"), scenes[values.pop("scene")]
        known = find_known(values["method"])
        for name in ("layer", "n_steps", "lambda_min"):
            controls[name].disabled = name not in known
        start = time.perf_counter()
        page.value = explain(clip, bytes(uploads[0]["content"]) if uploads else scene["image"], **values)
        picture = f"your picture {uploads[0]['name']}" if uploads else "the scene"
        said.value = f"{picture}, {time.perf_counter() - start:.2f} s"

    def take_scene(change) -> None:
        controls["upload"].value = ()
        controls["text"].value = scenes[change["new"]]["text"]

    follow = settle(update)
    controls["scene"].observe(take_scene, "value")  # before the others, so that one map is made of both
    for control in controls.values():
        control.observe(follow, "value")
    update()
    upper, lower = list(controls.values())[:3], list(controls.values())[3:]
    wrap = widgets.Layout(flex_flow="row wrap", align_items="center")
    return widgets.VBox([widgets.Box(upper, layout=wrap), widgets.Box([*lower, said], layout=wrap), page])


def _make_controls(clip: HookedCLIP, scenes: Sequence[dict]) -> dict[str, widgets.Widget]:
    def lay_out(width: str) -> dict:
        return dict(layout=widgets.Layout(width=width), style={"description_width": "initial"})

    names = [(f"{number}: {scene['text']}", number) for number, scene in enumerate(scenes)]
    methods = [method for method in nib.METHODS if method not in SLOW]
    deepest, usual = min(len(tower.blocks) for tower in (clip.image, clip.text)), clip.layers(None)[0]
    return {
        "scene": widgets.Dropdown(options=names, value=0, description="Scene", **lay_out("360px")),
        "upload": widgets.FileUpload(accept="image/*", description="or your picture", layout={"width": "160px"}),
        "text": widgets.Text(value=scenes[0]["text"], description="Prompt", **lay_out("420px")),
        "method": widgets.Dropdown(options=methods, value="nib", description="Method", **lay_out("210px")),
        "layer": widgets.IntSlider(usual, 0, deepest, description="Layer", **lay_out("230px")),
        "n_steps": widgets.IntSlider(10, 1, 50, description="Steps", **lay_out("230px")),
        "lambda_min": widgets.FloatSlider(0, min=0, max=0.95, step=0.05, description="lambda_min", **lay_out("270px")),
    }
