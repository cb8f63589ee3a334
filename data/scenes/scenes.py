"""Draw scenes: objects from the atlas on a textured background, with the mask of each.

Exports `Scene` and `draw_scene`. A scene is a pure function of the random generator that it
is drawn with.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .atlas import load_sprites
from .textures import BACKGROUNDS, Textures

SIZE = 224  # pixels, the side of a scene
SIZES = {"small": (34, 48), "": (56, 80), "big": (96, 132)}  # pixels, the longer side of an object
COUNT_WEIGHTS = (0.16, 0.34, 0.32, 0.18)  # of 1, 2, 3 and 4 objects
MAX_HIDDEN = 0.4  # the largest part of an object that others may cover


@dataclass
class Scene:
    """A drawn picture and what is known of it.

    Attributes:
        image: RGB, (SIZE, SIZE).
        mask: (SIZE, SIZE) uint8; 0 is background, i the visible part of `objects[i - 1]`.
        background: a key of `BACKGROUNDS`.
        objects: the name of each object, in the order they were drawn.
        sizes: "small", "" or "big" for each object.
        centres: (objects, 2) array of x, y in pixels.
    """

    image: Image.Image
    mask: np.ndarray
    background: str
    objects: list[str]
    sizes: list[str]
    centres: np.ndarray


def draw_scene(
    rng: np.random.Generator, textures: Textures, n_objects: int | None = None, names: list[str] | None = None
) -> Scene:
    """Draw one scene; scenes in which an object is mostly hidden are drawn again.

    Args:
        rng: the only source of randomness.
        textures: the bank that the background is taken from.
        n_objects: how many objects, 1 to 4; drawn at random if None.
        names: which objects; drawn at random if None.
    """
    if names:
        n_objects = len(names)
    while True:
        scene, hidden = _compose(rng, textures, n_objects, names)
        if hidden <= MAX_HIDDEN:
            return scene


def _compose(rng, textures, n_objects, names) -> tuple[Scene, float]:
    background = str(rng.choice(list(BACKGROUNDS)))
    n_objects = n_objects or int(rng.choice(4, p=COUNT_WEIGHTS)) + 1
    image = textures.window(rng, background, SIZE)
    _add_clutter(rng, image)
    names = names or _choose_objects(rng, n_objects)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    sizes, boxes, areas = [], [], []
    for index, name in enumerate(names, start=1):
        sizes.append(_choose_size(rng, n_objects, sizes))
        sprite = _vary(rng, load_sprites()[name], rng.uniform(*SIZES[sizes[-1]]))
        left, top = _choose_place(rng, sprite.size, boxes)
        boxes.append((left, top, left + sprite.width, top + sprite.height))
        image.paste(sprite, (left, top), sprite)
        solid = np.asarray(sprite.getchannel("A")) > 127
        areas.append(max(solid.sum(), 1))
        mask[top : top + sprite.height, left : left + sprite.width][solid] = index
    visible = np.bincount(mask.ravel(), minlength=n_objects + 1)[1:]
    boxes = np.asarray(boxes, float)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    scene = Scene(image, mask, background, names, sizes, centres)
    return scene, float((1 - visible / areas).max())


def _choose_objects(rng, n_objects) -> list[str]:
    names = [str(name) for name in rng.choice(list(load_sprites()), n_objects, replace=False)]
    if n_objects > 1 and rng.random() < 0.25:  # several of one kind
        repeats = int(rng.integers(2, n_objects + 1))
        names[:repeats] = [names[0]] * repeats
        rng.shuffle(names)
    return names


def _choose_size(rng, n_objects, earlier) -> str:
    room_for_big = n_objects == 1 or (n_objects < 4 and "big" not in earlier)
    weights = np.array([0.25, 0.5, 0.25 * room_for_big])
    return list(SIZES)[rng.choice(3, p=weights / weights.sum())]


def _vary(rng, sprite, longer_side) -> Image.Image:
    """Scale, mirror, turn and relight a sprite."""
    scale = longer_side / max(sprite.size)
    sprite = sprite.resize([max(8, round(side * scale)) for side in sprite.size], Image.BILINEAR)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(rng.uniform(-14, 14), Image.BILINEAR, expand=True)
    sprite = sprite.crop(sprite.getchannel("A").getbbox())
    light = (rng.uniform(0.72, 1.2) * rng.uniform(0.95, 1.05, 3)).tolist()
    return sprite.point([min(255, int(v * gain)) for gain in (*light, 1.0) for v in range(256)])


def _choose_place(rng, size, boxes, tries: int = 12) -> tuple[int, int]:
    """Find the least overlapping of some random places; a little overlap is welcome."""
    best, best_overlap = (0, 0), np.inf
    for _ in range(tries):
        left, top = (int(rng.integers(0, max(1, SIZE - side))) for side in size)
        overlap = sum(
            max(0, min(left + size[0], right) - max(left, x)) * max(0, min(top + size[1], bottom) - max(top, y))
            for x, y, right, bottom in boxes
        ) / (size[0] * size[1])
        if overlap < best_overlap:
            best, best_overlap = (left, top), overlap
        if overlap < 0.08:
            break
    return best


def _add_clutter(rng, image) -> None:
    """Draw up to five faint shapes that no caption mentions."""
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.integers(0, 6)):
        x, y = rng.integers(0, SIZE, 2).tolist()
        width, height = rng.integers(4, 36, 2).tolist()
        colour = (*rng.integers(0, 256, 3).tolist(), int(rng.integers(40, 130)))
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x, y, x + width, y + height), fill=colour)
