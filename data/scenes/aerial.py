"""Draw scenes seen from above, and their captions, in the manner of RSICD.

Exports `draw_aerial`, `aerial_caption`, `five_aerial_captions` and `AerialScene`. Land, at most one line across it
(road, river, runway, a bridge where a road meets water, or the quay of a harbour) and up to three kinds of objects,
all lit from one side; the mask of each object is drawn beside it.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .backgrounds import blend, octaves
from .grammar import join
from .scenes import SIZE

LANDS = {  # name -> (two colours, what a caption calls it)
    "grassland": (((84, 120, 62), (142, 166, 98)), ("green grassland", "the grass", "a green lawn")),
    "forest": (((18, 46, 22), (70, 108, 54)), ("a dense forest", "many green trees", "the woods")),
    "desert": (((188, 152, 104), (230, 202, 156)), ("a yellow desert", "the desert", "yellow sand")),
    "bare land": (((112, 96, 82), (168, 150, 132)), ("bare land", "the bare ground", "brown bare land")),
    "farmland": (((100, 118, 56), (204, 186, 108)), ("farmland", "the fields", "square fields")),
    "sea": (((12, 52, 84), (38, 104, 134)), ("the sea", "blue sea water", "the ocean")),
}
LAND_WEIGHTS = (0.2, 0.15, 0.16, 0.15, 0.17, 0.17)
LINES = {"road": 13, "river": 27, "runway": 32, "bridge": 15, "harbour": 58}  # width in pixels
OBJECTS = {  # name -> (plural, radius in pixels)
    "plane": ("planes", 34),
    "storage tank": ("storage tanks", 24),
    "red house": ("red houses", 27),
    "grey house": ("grey houses", 27),
    "blue house": ("blue houses", 27),
    "stadium": ("stadiums", 50),
    "swimming pool": ("swimming pools", 25),
    "tennis court": ("tennis courts", 29),
    "ship": ("ships", 33),
    "boat": ("boats", 20),
}
AFLOAT = ("ship", "boat")
NUMBERS = {2: "two", 3: "three", 4: "four"}
SCALE = 2  # drawn larger, then reduced: smooth edges


@dataclass
class AerialScene:
    """A scene from above: `objects[i - 1]` names what has the value i in `mask`."""

    image: Image.Image
    mask: np.ndarray
    land: str
    line: str
    objects: list[str]


def draw_aerial(rng: np.random.Generator) -> AerialScene:
    """Draw one scene from above with the given random generator."""
    land = str(rng.choice(list(LANDS), p=LAND_WEIGHTS))
    picture, mask = _draw_land(rng, land), Image.new("L", (SIZE * SCALE, SIZE * SCALE))
    choices = ["", "bridge", "harbour"] if land == "sea" else ["", "road", "river", "runway"]
    line = str(rng.choice(choices))
    path = _draw_line(rng, picture, mask, line) if line else None
    objects = [line] if line else []
    kinds = list(AFLOAT) if land == "sea" else [kind for kind in OBJECTS if kind not in AFLOAT]
    shift = rng.uniform(2, 4, 2) * rng.choice([-1, 1], 2)  # where the shadows fall
    taken: list[tuple[float, float, float]] = []
    for name in rng.choice(kinds, min(len(kinds), int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))), replace=False):
        for _ in range(int(rng.integers(1, (1 if name == "stadium" else 4) + 1))):
            radius = OBJECTS[name][1] * rng.uniform(0.82, 1.1)
            place = _find_place(rng, radius, LINES.get(line, 0) / 2, taken, path)
            if place is not None:
                objects.append(str(name))
                _draw_object(rng, picture, mask, str(name), place, radius, shift, len(objects))
    image = picture.resize((SIZE, SIZE), Image.BOX).filter(ImageFilter.GaussianBlur(0.4))
    values = np.asarray(image, np.float32) * (rng.uniform(0.88, 1.1) * rng.uniform(0.97, 1.03, 3))
    values += 2.5 * rng.standard_normal((SIZE, SIZE, 1))
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return AerialScene(image, np.asarray(mask.resize((SIZE, SIZE), Image.NEAREST)), land, line, objects)


def aerial_caption(rng: np.random.Generator, scene: AerialScene) -> str:
    """Describe a scene from above: how many of what, beside which line, on which land."""
    land = str(rng.choice(LANDS[scene.land][1]))
    names = dict.fromkeys(name for name in scene.objects if name not in LINES)
    counts = {name: scene.objects.count(name) for name in names}
    phrases = [f"a {name}" if n == 1 else f"{NUMBERS[n]} {OBJECTS[name][0]}" for name, n in counts.items()]
    rng.shuffle(phrases)
    things = join(phrases)
    verb = "are" if sum(counts.values()) > 1 else "is"
    if not scene.line:
        forms = (f"{things} {verb} in {land}", f"{things} {verb} surrounded by {land}", f"{land} with {things}")
    elif scene.line == "harbour":
        forms = (
            f"{things} {verb} in a harbour in {land}",
            f"a harbour with {things}",
            f"{things} {verb} near the quay of a harbour",
        )
    elif scene.line == "bridge":
        forms = (
            f"{things} {verb} near a bridge over {land}",
            f"a bridge over {land} with {things}",
            f"{things} {verb} beside a bridge in {land}",
        )
    else:
        forms = (
            f"{things} {verb} near a {scene.line} in {land}",
            f"{things} {verb} beside a {scene.line} in {land}",
            f"a {scene.line} goes through {land} with {things}",
        )
    return str(rng.choice(forms))


def five_aerial_captions(rng: np.random.Generator, scene: AerialScene) -> list[str]:
    """Write five captions of one scene, as RSICD has them."""
    return [aerial_caption(rng, scene) for _ in range(5)]


def _draw_land(rng, land) -> Image.Image:
    low, high = LANDS[land][0]
    weight = 0.5 + {"forest": 0.24, "sea": 0.12}.get(land, 0.16) * octaves(
        rng, (SIZE, SIZE), first=3, count=7, gain=0.8
    )
    if land == "farmland":  # a patchwork of fields in a turned frame, each with its furrows
        y, x = (np.mgrid[:SIZE, :SIZE] / SIZE - 0.5) * 2.2
        angle = rng.uniform(0, np.pi)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        column, row = np.floor(along * 2.2).astype(int), np.floor(across * 2.2).astype(int)
        furrows = 0.06 * np.sin(along * 90) * rng.choice([0, 1], (16, 16))[row, column]
        weight = 0.3 * weight + rng.uniform(0, 0.8, (16, 16))[row, column] + furrows
    picture = blend(low, high, weight)
    if land == "forest":  # crowns: light on one side of each bump
        crowns = octaves(rng, (SIZE, SIZE), first=30, count=2, gain=0.8)
        picture *= 1 + 0.35 * np.clip(crowns - np.roll(crowns, (2, 2), (0, 1)), -1, 1)[..., None]
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return image.resize((SIZE * SCALE, SIZE * SCALE), Image.BICUBIC)


def _draw_line(rng, picture, mask, line) -> np.ndarray:
    """Draw a line across the picture; return points along its middle."""
    angle, shift = rng.uniform(0, np.pi), rng.uniform(-50, 50)
    if line == "harbour":  # a quay at one border, with the town behind it
        angle, shift = rng.choice([0, np.pi / 2]), rng.choice([-1, 1]) * rng.uniform(84, 98)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    t = np.linspace(-180, 180, 61)
    bend = rng.uniform(12, 28) * np.sin(t / rng.uniform(28, 45) + rng.uniform(0, 6)) if line == "river" else 0 * t
    path = SIZE / 2 + t[:, None] * along + (shift + bend)[:, None] * across
    pens = ImageDraw.Draw(picture), ImageDraw.Draw(mask)

    def stroke(colour, width, offset=0.0):
        points = [tuple(p) for p in (path + offset * across) * SCALE]
        pens[0].line(points, fill=colour, width=round(width * SCALE), joint="curve")

    width = LINES[line]
    pens[1].line([tuple(p) for p in path * SCALE], fill=1, width=width * SCALE, joint="curve")
    if line == "river":
        stroke((118, 112, 84), width + 5)
        stroke((54, 96, 112), width)
        stroke((66, 112, 126), width * 0.5)
        return path
    if line == "bridge":
        stroke((14, 34, 52), width, offset=7)  # its shadow on the water
    stroke({"runway": (84, 86, 92), "harbour": (148, 142, 134)}.get(line, (132, 130, 128)), width)
    edge = (206, 204, 198)
    for side in (-1, 1):
        stroke(edge, 1.2, offset=side * (width / 2 - 1.5))
    if line == "harbour":  # piers into the water
        inward = -np.sign(shift) * across
        for point in path[rng.integers(4, 9) : -4 : int(rng.integers(11, 16))]:
            ends = [tuple((point + length * inward) * SCALE) for length in (0, width / 2 + rng.uniform(26, 40))]
            pens[0].line(ends, fill=(158, 150, 138), width=6 * SCALE)
            pens[1].line(ends, fill=1, width=6 * SCALE)
    else:  # the dashes in the middle
        for start in range(0, len(path) - 2, 3):
            pens[0].line([tuple(p) for p in path[start : start + 2] * SCALE], fill=(238, 236, 226), width=2 * SCALE)
    return path


def _find_place(rng, radius, half_width, taken, path):
    """Find a free centre, off the line and off other objects; None where there is no room."""
    for _ in range(24):
        x, y = rng.uniform(0.85 * radius, SIZE - 0.85 * radius, 2)
        free = all(np.hypot(x - a, y - b) > 0.95 * (radius + r) for a, b, r in taken)
        if free and (path is None or np.hypot(*(path - (x, y)).T).min() > 0.85 * radius + half_width):
            taken.append((x, y, radius))
            return x, y
    if not taken:  # the first one is always drawn, on the line if need be
        taken.append((SIZE / 2, SIZE / 2, radius))
        return SIZE / 2, SIZE / 2
    return None


def _draw_object(rng, picture, mask, name, place, radius, shift, index) -> None:
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pens = ImageDraw.Draw(picture, "RGBA"), ImageDraw.Draw(mask)
    light = rng.uniform(0.85, 1.1)

    def corners(points, offset=0.0):
        return [tuple(p) for p in (np.asarray(points) * radius @ turn.T + place + offset) * SCALE]

    parts = _parts(name)
    for points, _ in parts:
        pens[0].polygon(corners(points, shift), fill=(10, 14, 18, 120))
    for points, fill in parts:
        pens[0].polygon(corners(points), fill=tuple(min(255, int(light * c)) for c in fill))
        pens[1].polygon(corners(points), fill=index)


def _ring(a: float, b: float, x: float = 0, y: float = 0) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([x + a * np.cos(t), y + b * np.sin(t)], 1)


def _box(a: float, b: float, x: float = 0, y: float = 0) -> list[tuple[float, float]]:
    return [(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)]


_ROOFS = {"red": (184, 74, 54), "grey": (152, 154, 160), "blue": (66, 110, 176)}


def _parts(name):
    """List the polygons of an object in units of its radius, from the bottom up."""
    white, light, dark = (242, 243, 245), (206, 210, 214), (92, 96, 104)
    if name == "plane":
        wings = [(0.32, 0), (-0.25, 0.95), (-0.45, 0.95), (-0.15, 0), (-0.45, -0.95), (-0.25, -0.95)]
        tail = [(-0.7, 0), (-0.95, 0.36), (-1, 0.36), (-0.95, 0), (-1, -0.36), (-0.95, -0.36)]
        engines = [(_box(0.12, 0.06, 0.02, y), dark) for y in (0.42, -0.42)]
        return [(wings, light), *engines, (tail, light), (_ring(1, 0.13), white), (_ring(0.1, 0.07, 0.8), dark)]
    if name == "storage tank":
        return [
            (_ring(0.95, 0.95), light),
            (_ring(0.8, 0.8), white),
            (_ring(0.62, 0.62), (226, 228, 230)),
            (_ring(0.12, 0.12, 0.3), dark),
        ]
    if name.endswith("house"):
        colour = _ROOFS[name.split()[0]]
        darker = tuple(int(0.74 * c) for c in colour)
        lower = [(-0.95, 0), (0.95, 0), (0.95, 0.64), (-0.95, 0.64)]
        return [(_box(0.95, 0.64), colour), (lower, darker), (_box(0.09, 0.12, 0.5, -0.3), (120, 70, 60))]
    if name == "stadium":
        rows = [(_ring(1 - 0.07 * i, 0.78 - 0.07 * i), light if i % 2 == 0 else (176, 180, 188)) for i in range(3)]
        field = [
            (_box(0.48, 0.3), (70, 148, 62)),
            (_box(0.012, 0.3), white),
            (_ring(0.1, 0.1), white),
            (_ring(0.08, 0.08), (70, 148, 62)),
        ]
        return [*rows, (_ring(0.78, 0.55), (178, 88, 64)), *field]
    if name == "swimming pool":
        lanes = [(_box(0.76, 0.012, 0, y), (214, 240, 248)) for y in (-0.2, 0, 0.2)]
        return [(_box(0.98, 0.66), (216, 210, 198)), (_box(0.78, 0.46), (52, 176, 218)), *lanes]
    if name == "tennis court":
        lines = [
            (_box(0.72, 0.36), white),
            (_box(0.69, 0.33), (178, 92, 66)),
            (_box(0.012, 0.34), white),
            (_box(0.36, 0.012), white),
        ]
        return [(_box(0.98, 0.62), (50, 116, 82)), *lines]
    if name == "boat":
        hull = [(1, 0), (0.5, 0.36), (-0.9, 0.34), (-0.9, -0.34), (0.5, -0.36)]
        return [(hull, white), (_box(0.3, 0.2, -0.3), (70, 110, 150)), (_box(0.2, 0.2, 0.3), (196, 150, 100))]
    hull = [(1, 0), (0.68, 0.23), (-0.95, 0.23), (-0.95, -0.23), (0.68, -0.23)]
    boxes = [
        (_box(0.16, 0.16, x), colour)
        for x, colour in zip((-0.3, 0.05, 0.4), ((196, 120, 60), (70, 112, 150), (176, 176, 170)))
    ]
    return [(hull, (146, 56, 46)), *boxes, (_box(0.16, 0.19, -0.74), white)]
