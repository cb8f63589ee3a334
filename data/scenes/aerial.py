"""Draw scenes seen from above, and their captions, in the manner of RSICD.

Exports `draw_aerial` and `AerialScene`. Land, one line (road, river or runway) and up to three
kinds of objects are drawn from polygons; the mask of each is drawn beside it.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .grammar import join
from .scenes import SIZE
from .textures import smooth_noise

LANDS = {  # name -> (two colours, what a caption calls it); the sea holds ships only, and is rarer
    "grassland": (((92, 132, 70), (128, 160, 92)), ("green grassland", "the grass", "a green lawn")),
    "forest": (((22, 62, 28), (58, 100, 48)), ("a dense forest", "many green trees", "the woods")),
    "desert": (((198, 164, 112), (226, 198, 150)), ("a yellow desert", "the desert", "yellow sand")),
    "bare land": (((128, 112, 98), (164, 148, 130)), ("bare land", "the bare ground", "brown bare land")),
    "farmland": (((110, 128, 60), (196, 180, 96)), ("farmland", "the fields", "square fields")),
    "sea": (((14, 62, 96), (34, 98, 132)), ("the sea", "blue sea water", "the ocean")),
}
LINES = {"road": 9, "river": 22, "runway": 30}  # half of these many pixels to each side
OBJECTS = {  # name -> (plural, radius in pixels)
    "plane": ("planes", 21),
    "storage tank": ("storage tanks", 17),
    "red house": ("red houses", 17),
    "grey house": ("grey houses", 17),
    "blue house": ("blue houses", 17),
    "stadium": ("stadiums", 32),
    "swimming pool": ("swimming pools", 15),
    "tennis court": ("tennis courts", 18),
    "ship": ("ships", 24),
}
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
    land = str(rng.choice(list(LANDS), p=[0.19] * 5 + [0.05]))
    image = _draw_land(rng, land)
    mask = Image.new("L", image.size)
    pens = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    objects: list[str] = []
    line = str(rng.choice(["", *LINES])) if land != "sea" else ""
    path = _draw_line(rng, pens, line) if line else None
    if line:
        objects.append(line)
    kinds = ["ship"] if land == "sea" else [k for k in OBJECTS if k != "ship"]
    taken: list[tuple[float, float, float]] = []
    for name in rng.choice(kinds, min(len(kinds), int(rng.integers(1, 4))), replace=False):
        most = 2 if name == "stadium" else 4
        for _ in range(int(rng.integers(1, most + 1))):
            place = _find_place(rng, OBJECTS[name][1], taken, path)
            if place is not None:
                objects.append(str(name))
                _draw_object(rng, pens, str(name), place, len(objects))
    image = image.resize((SIZE, SIZE), Image.BOX)
    index = np.asarray(mask.resize((SIZE, SIZE), Image.NEAREST))
    return AerialScene(image, index, land, line, objects)


def aerial_caption(rng: np.random.Generator, scene: AerialScene) -> str:
    """Describe a scene from above: how many of what, beside which line, on which land."""
    land = str(rng.choice(LANDS[scene.land][1]))
    names = dict.fromkeys(name for name in scene.objects if name not in LINES)
    counts = {name: scene.objects.count(name) for name in names}
    phrases = [f"a {name}" if n == 1 else f"{NUMBERS[n]} {OBJECTS[name][0]}" for name, n in counts.items()]
    rng.shuffle(phrases)
    many = sum(counts.values()) > 1
    things = join(phrases)
    verb = "are" if many else "is"
    if not scene.line:
        forms = (f"{things} {verb} in {land}", f"{things} {verb} surrounded by {land}", f"{land} with {things}")
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


_ROOFS = {"red": (178, 70, 52), "grey": (150, 152, 158), "blue": (70, 110, 170)}


def _draw_land(rng, land) -> Image.Image:
    size = SIZE
    low, high = (np.array(colour) for colour in LANDS[land][0])
    weight = 0.5 + 0.2 * smooth_noise(rng, (8, 8), (size, size)) + 0.15 * smooth_noise(rng, (44, 44), (size, size))
    if land == "farmland":  # a patchwork of fields in a turned frame
        y, x = (np.mgrid[:size, :size] / size - 0.5) * 2.2
        angle = rng.uniform(0, np.pi)
        column = np.floor((x * np.cos(angle) + y * np.sin(angle)) * 2.5).astype(int)
        row = np.floor((y * np.cos(angle) - x * np.sin(angle)) * 2.5).astype(int)
        weight = 0.25 * weight + rng.uniform(0, 0.9, (16, 16))[row, column]
    weight = np.clip(weight, 0, 1)[..., None]
    light = rng.uniform(0.88, 1.1)
    land = Image.fromarray(np.clip((low * (1 - weight) + high * weight) * light, 0, 255).astype(np.uint8))
    return land.resize((SIZE * SCALE, SIZE * SCALE), Image.BILINEAR)


def _draw_line(rng, pens, line) -> np.ndarray:
    """Draw a road, a river or a runway across the picture; return points along its middle."""
    angle, shift = rng.uniform(0, np.pi), rng.uniform(-50, 50)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    t = np.linspace(-170, 170, 60)
    bend = rng.uniform(10, 26) * np.sin(t / rng.uniform(28, 45) + rng.uniform(0, 6)) if line == "river" else 0 * t
    path = SIZE / 2 + t[:, None] * along + (shift + bend)[:, None] * across
    colour = {"road": (150, 148, 144), "river": (58, 104, 116), "runway": (84, 86, 92)}[line]
    points = [tuple(point) for point in path * SCALE]
    pens[0].line(points, fill=colour, width=LINES[line] * SCALE, joint="curve")
    pens[1].line(points, fill=1, width=LINES[line] * SCALE, joint="curve")
    if line != "river":  # the dashes in the middle
        for start in range(0, len(points) - 2, 3):
            pens[0].line(points[start : start + 2], fill=(236, 236, 228), width=2 * SCALE)
    return path


def _find_place(rng, radius, taken, path):
    """Find a free centre, off the line and off other objects; None where there is no room."""
    for _ in range(20):
        x, y = rng.uniform(radius, SIZE - radius, 2)
        free = all(np.hypot(x - a, y - b) > radius + r for a, b, r in taken)
        if free and (path is None or np.hypot(*(path - (x, y)).T).min() > radius + 10):
            taken.append((x, y, radius))
            return x, y
    if not taken:  # the first one is always drawn, on the line if need be
        taken.append((SIZE / 2, SIZE / 2, radius))
        return SIZE / 2, SIZE / 2
    return None


def _draw_object(rng, pens, name, place, index) -> None:
    radius = OBJECTS[name][1] * rng.uniform(0.8, 1.05)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def polygon(points, fill, shadow=False):
        corners = [tuple(p) for p in (np.asarray(points) * radius @ turn.T + place + 2 * shadow) * SCALE]
        pens[0].polygon(corners, fill=fill)
        if not shadow:
            pens[1].polygon(corners, fill=index)

    parts = _parts(name)
    for part, _ in parts:
        polygon(part, (40, 44, 44), shadow=True)
    for part, fill in parts:
        polygon(part, fill)


def _ring(a: float, b: float) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([a * np.cos(t), b * np.sin(t)], 1)


def _box(a: float, b: float) -> list[tuple[float, float]]:
    return [(-a, -b), (a, -b), (a, b), (-a, b)]


def _parts(name):
    """List the polygons of an object in units of its radius, from the bottom up."""
    white, light = (240, 242, 244), (206, 210, 214)
    if name == "plane":
        wings = [(0.3, 0), (-0.25, 0.95), (-0.45, 0.95), (-0.15, 0), (-0.45, -0.95), (-0.25, -0.95)]
        tail = [(-0.7, 0), (-0.95, 0.35), (-1, 0.35), (-0.95, 0), (-1, -0.35), (-0.95, -0.35)]
        return [(wings, light), (tail, light), (_ring(1, 0.13), white)]
    if name == "storage tank":
        return [(_ring(0.9, 0.9), light), (_ring(0.72, 0.72), white)]
    if name.endswith("house"):
        colour = _ROOFS[name.split()[0]]
        darker = tuple(int(0.78 * c) for c in colour)
        return [(_box(0.9, 0.6), colour), ([(-0.9, 0), (0.9, 0), (0.9, 0.6), (-0.9, 0.6)], darker)]
    if name == "stadium":
        return [(_ring(1, 0.75), light), (_ring(0.8, 0.56), (176, 84, 62)), (_box(0.5, 0.34), (76, 150, 66))]
    if name == "swimming pool":
        return [(_box(0.95, 0.62), (214, 208, 196)), (_box(0.78, 0.46), (58, 178, 216))]
    if name == "tennis court":
        return [(_box(0.95, 0.6), (52, 120, 84)), (_box(0.72, 0.36), (176, 92, 66)), (_box(0.03, 0.4), white)]
    hull = [(1, 0), (0.6, 0.25), (-0.9, 0.25), (-0.9, -0.25), (0.6, -0.25)]
    return [(hull, (150, 62, 52)), ([(-0.85, -0.17), (-0.4, -0.17), (-0.4, 0.17), (-0.85, 0.17)], white)]
