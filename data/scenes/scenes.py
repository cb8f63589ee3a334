"""Compose scenes: photographic cut-outs in a place, with the mask of each.

Exports `Scene` and `draw_scene`. A scene is a pure function of the random generator that it is drawn with.
Objects stand on the floor with a soft shadow, nearer ones in front, and all share the scene's light.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from .backgrounds import PLACES, Backgrounds
from .stamps import load_stamps

SIZE = 224  # pixels, the side of a scene
SIZES = {"small": (48, 68), "": (80, 116), "big": (130, 190)}  # pixels, the longer side of an object
COUNT_WEIGHTS = (0.25, 0.45, 0.3)  # of 1, 2 and 3 objects
MAX_HIDDEN = 0.35  # the largest part of an object that others may cover
MAX_ENLARGED = 3.2  # times the photograph's own size; beyond that it is a blur
SAME_KIND = 0.25  # how often several objects are of one kind


@dataclass
class Scene:
    """A picture and what is known of it.

    Attributes:
        image: RGB, (SIZE, SIZE).
        mask: (SIZE, SIZE) uint8; 0 is background, i the visible part of `objects[i - 1]`.
        place: a key of `PLACES`.
        objects: the name of each object, from the back to the front.
        sizes: "small", "" or "big" for each object.
        centres: (objects, 2) array of x, y in pixels.
        feet: (objects,) array, the lowest row of each object.
    """

    image: Image.Image
    mask: np.ndarray
    place: str
    objects: list[str]
    sizes: list[str]
    centres: np.ndarray
    feet: np.ndarray


def draw_scene(
    rng: np.random.Generator,
    backgrounds: Backgrounds,
    n_objects: int | None = None,
    names: list[str] | None = None,
    held_out: bool = False,
) -> Scene:
    """Compose one scene; scenes in which an object is mostly hidden are composed again.

    Args:
        rng: the only source of randomness.
        backgrounds: the bank that the place is taken from.
        n_objects: how many objects, 1 to 3; drawn at random if None.
        names: which objects; drawn at random if None.
        held_out: take the photographs that training never sees.
    """
    stamps = load_stamps(held_out)
    n_objects = len(names) if names else n_objects
    while True:
        scene, hidden = _compose(rng, backgrounds, stamps, n_objects, names)
        if hidden <= MAX_HIDDEN:
            return scene


def _compose(rng, backgrounds, stamps, n_objects, names) -> tuple[Scene, float]:
    place = str(rng.choice(list(PLACES)))
    n_objects = n_objects or int(rng.choice(len(COUNT_WEIGHTS), p=COUNT_WEIGHTS)) + 1
    window = backgrounds.window(rng, place, SIZE)
    image, horizon = window.image, window.horizon
    names = list(names) if names else _choose_objects(rng, list(stamps), n_objects)
    cutouts, sizes, spots = [], [], []
    for name in names:
        sizes.append(_choose_size(rng, n_objects, sizes))
        stamp = stamps[name][rng.integers(len(stamps[name]))]
        cutouts.append(_vary(rng, stamp, rng.uniform(*SIZES[sizes[-1]])))
        spots.append(_choose_spot(rng, cutouts[-1].size, spots, horizon))
    if place == "sky":
        order = rng.permutation(n_objects)
    else:
        order = np.argsort([bottom for *_, bottom in spots], kind="stable")  # the nearest is pasted last
    names, sizes, cutouts, spots = ([values[i] for i in order] for values in (names, sizes, cutouts, spots))
    mask, areas = np.zeros((SIZE, SIZE), np.uint8), []
    for index, (cutout, (left, top, *_)) in enumerate(zip(cutouts, spots), start=1):
        if horizon is not None:
            _cast_shadow(image, cutout, left, top)
        image.paste(cutout, (left, top), cutout)
        solid = np.asarray(cutout.getchannel("A")) > 127
        areas.append(max(int(solid.sum()), 1))
        mask[top : top + cutout.height, left : left + cutout.width][solid] = index
    visible = np.bincount(mask.ravel(), minlength=n_objects + 1)[1:]
    boxes = np.asarray(spots, float)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    scene = Scene(_light(rng, image, place), mask, place, names, sizes, centres, boxes[:, 3])
    return scene, float((1 - visible / areas).max())


def _choose_objects(rng, kinds, n_objects) -> list[str]:
    names = [str(name) for name in rng.choice(kinds, n_objects, replace=False)]
    if n_objects > 1 and rng.random() < SAME_KIND:
        repeats = int(rng.integers(2, n_objects + 1))
        names[:repeats] = [names[0]] * repeats
    return names


def _choose_size(rng, n_objects, earlier) -> str:
    room_for_big = n_objects == 1 or (n_objects == 2 and "big" not in earlier)
    weights = np.array([0.2 if n_objects > 1 else 0.15, 0.5, 0.4 * room_for_big])
    return list(SIZES)[rng.choice(3, p=weights / weights.sum())]


def _vary(rng, stamp, longer_side) -> Image.Image:
    """Scale, mirror, tilt a little, and change the light of a cut-out."""
    scale = min(longer_side / max(stamp.size), MAX_ENLARGED)
    stamp = stamp.resize([max(8, round(side * scale)) for side in stamp.size], Image.BICUBIC)
    if rng.random() < 0.5:
        stamp = stamp.transpose(Image.FLIP_LEFT_RIGHT)
    stamp = stamp.rotate(rng.uniform(-9, 9), Image.BICUBIC, expand=True)
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    gains = (rng.uniform(0.82, 1.18) * rng.uniform(0.96, 1.04, 3)).tolist()
    return stamp.point([min(255, int(v * gain)) for gain in (*gains, 1.0) for v in range(256)])


def _choose_spot(rng, size, taken, horizon, tries: int = 14) -> tuple[int, int, int, int]:
    """Find the least overlapping of some random spots, standing on the floor: left, top, right, bottom."""
    width, height = size
    best, best_overlap = None, np.inf
    for _ in range(tries):
        left = int(rng.integers(0, max(1, SIZE - width)))
        lowest = 0 if horizon is None else min(int(horizon) + 12, SIZE - 8)
        bottom = int(rng.integers(max(height, lowest), max(height, lowest, SIZE - 3) + 1))
        box = (left, bottom - height, left + width, bottom)
        overlap = sum(
            max(0, min(box[2], right) - max(left, x)) * max(0, min(bottom, foot) - max(box[1], y))
            for x, y, right, foot in taken
        ) / (width * height)
        if overlap < best_overlap:
            best, best_overlap = box, overlap
        if overlap < 0.05:
            break
    return best


@lru_cache(maxsize=1)
def _shadow() -> Image.Image:
    y, x = np.mgrid[-1:1:48j, -1:1:96j]
    return Image.fromarray((150 * np.clip(1 - np.hypot(x, y), 0, 1) ** 0.7).astype(np.uint8))


def _cast_shadow(image, cutout, left, top) -> None:
    """Darken the floor under an object: a soft ellipse as wide as its lowest part."""
    alpha = np.asarray(cutout.getchannel("A"))
    foot = alpha[int(0.8 * len(alpha)) :].max(0) > 127
    columns = np.flatnonzero(foot)
    first, last = (columns[0], columns[-1] + 1) if len(columns) else (0, cutout.width)
    width = max(10, int(1.25 * (last - first)))
    height = max(6, int(0.16 * width**0.5 * cutout.height**0.5))
    shadow = _shadow().resize((width, height), Image.BILINEAR)
    spot = (left + (first + last) // 2 - width // 2, top + cutout.height - int(0.62 * height))
    image.paste((12, 12, 18), spot, shadow)


def _light(rng, image, place) -> Image.Image:
    """Light the whole scene at once: a tint, brightness, and a slow gradient from one side."""
    values = np.asarray(image, np.float32)
    night = 0.82 if place == "night" else 1.0
    tint = rng.uniform(0.88, 1.1) * night * rng.uniform(0.965, 1.035, 3)
    slope = np.linspace(1, -1, SIZE)[None, :, None] * rng.uniform(-0.1, 0.1)
    values = values * (tint * (1 + slope)) + 2.0 * rng.standard_normal((SIZE, SIZE, 1))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
