"""Draw the places that scenes lie in: a floor in perspective, a horizon, and a sky or a wall behind it.

Exports `PLACES` (name -> the phrase a caption uses), `Place` and `Backgrounds`, a bank of large places from which
every scene takes a random window.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

PLACES = {
    "grass": "on the grass",
    "sand": "on the sand",
    "snow": "in the snow",
    "water": "on the water",
    "road": "on a road",
    "wood": "on a wooden floor",
    "tiles": "on a tiled floor",
    "brick": "in front of a brick wall",
    "sky": "in the sky",
    "night": "at night",
}
SIDE = 320  # pixels, the side of a place in the bank; scenes are windows of it
TEXTURE = 512  # texels, the side of a floor's texture


@dataclass
class Place:
    """A window of a place: `horizon` is the row where its floor begins, or None where there is no floor."""

    image: Image.Image
    horizon: float | None


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Interpolate a grid of normal numbers; `cells` and `size` are (rows, columns)."""
    grid = Image.fromarray(rng.standard_normal(cells).astype(np.float32))
    return np.asarray(grid.resize((size[1], size[0]), Image.BICUBIC))


def octaves(rng, size: tuple[int, int], first: int = 3, count: int = 6, gain: float = 0.65, stretch=1.0) -> np.ndarray:
    """Add `count` octaves of smooth noise, each finer and fainter by `gain`; mean 0, standard deviation 1."""
    total = np.zeros(size, np.float32)
    for octave in range(count):
        cells = first * 2**octave
        rows, columns = max(2, round(cells * stretch)), max(2, round(cells / stretch))
        total += gain**octave * smooth_noise(rng, (rows, columns), size)
    return (total - total.mean()) / total.std()


def blend(low, high, weight: np.ndarray) -> np.ndarray:
    """Mix two colours, (height, width, 3); weight 0 is all `low`."""
    weight = np.clip(weight, 0, 1)[..., None]
    return np.asarray(low, np.float32) * (1 - weight) + np.asarray(high, np.float32) * weight


def _lay_floor(rng, picture: np.ndarray, texture: np.ndarray, horizon: int, haze=None) -> None:
    """Map a texture onto the ground below the horizon; far away it fades into its mean or into the haze."""
    rows = np.arange(horizon, SIDE)
    t = (rows - horizon + 2) / (SIDE - horizon)  # 0 far, 1 near
    u = (np.arange(SIDE) - SIDE * rng.uniform(0.3, 0.7)) / t[:, None] + rng.uniform(0, TEXTURE)
    v = np.broadcast_to((110 / t + rng.uniform(0, TEXTURE))[:, None], u.shape)
    fold = [np.abs(c.astype(int) % (2 * TEXTURE) - TEXTURE).clip(0, TEXTURE - 1) for c in (v, u)]
    blurred = np.asarray(Image.fromarray(texture.astype(np.uint8)).filter(ImageFilter.GaussianBlur(6)), np.float32)
    near = np.clip(1.7 * t - 0.25, 0, 1)[:, None, None]
    floor = texture[fold[0], fold[1]] * near + blurred[fold[0], fold[1]] * (1 - near)
    far = texture.mean((0, 1)) if haze is None else 0.5 * texture.mean((0, 1)) + 0.5 * np.asarray(haze)
    fade = np.clip(1 - 3 * t, 0, 1)[:, None, None]
    picture[horizon:] = floor * (1 - fade) + far * fade


def _paint_sky(rng, picture, top, bottom, clouds: float) -> None:
    height = len(picture)
    picture[:] = blend(top, bottom, np.broadcast_to(np.linspace(0, 1, height)[:, None], picture.shape[:2]) ** 0.8)
    cover = octaves(rng, picture.shape[:2], first=2, count=6, gain=0.6, stretch=1.5)
    weight = np.clip(0.55 * (cover + clouds), 0, 0.9)
    picture[:] = picture * (1 - weight[..., None]) + np.array((246, 247, 250)) * weight[..., None]


def _add_hills(rng, picture, horizon: int, colour, height: float) -> None:
    """Put a ragged line of far hills or trees onto the horizon."""
    profile = octaves(rng, (2, SIDE), first=2, count=7, gain=0.55)[0]
    top = horizon - height * (1.2 + 0.6 * profile)
    rows = np.arange(SIDE)[:, None]
    inside = (rows >= top) & (rows < horizon)
    shade = 1 + 0.12 * octaves(rng, (SIDE, SIDE), first=10, count=3)[..., None]
    picture[inside] = (np.asarray(colour) * shade)[inside]


def _outdoors(rng, low, high, stretch=1.0, hills=None, clouds=None, grain=0.2):
    picture = np.zeros((SIDE, SIDE, 3), np.float32)
    horizon = int(rng.uniform(0.25, 0.45) * SIDE)
    blue = rng.uniform(-14, 14, 3)
    _paint_sky(rng, picture[: horizon + 1], np.array((92, 146, 214)) + blue, np.array((196, 216, 238)) + blue,
               rng.uniform(-1.2, 0.8) if clouds is None else clouds)  # fmt: skip
    if hills and rng.random() < 0.8:
        _add_hills(rng, picture, horizon, hills, rng.uniform(6, 26))
    noise = octaves(rng, (TEXTURE, TEXTURE), first=4, count=8, gain=0.8, stretch=stretch)
    texture = blend(low, high, 0.5 + grain * noise)
    _lay_floor(rng, picture, np.clip(texture, 0, 255), horizon, haze=(190, 205, 220))
    return picture, horizon


def _grass(rng):
    return _outdoors(rng, (44, 88, 30), (140, 176, 88), hills=(62, 92, 66))


def _sand(rng):
    return _outdoors(rng, (186, 152, 104), (238, 216, 168), stretch=1.6, hills=(176, 150, 118), grain=0.17)


def _snow(rng):
    return _outdoors(
        rng, (206, 216, 232), (252, 253, 255), hills=(120, 140, 160), clouds=rng.uniform(-0.3, 1.2), grain=0.2
    )


def _water(rng):
    return _outdoors(rng, (18, 66, 104), (110, 168, 196), stretch=2.4, hills=(84, 110, 120), grain=0.19)


def _road(rng):
    picture, horizon = _outdoors(rng, (70, 98, 50), (140, 150, 96), hills=(86, 104, 92))
    rows = np.arange(horizon, SIDE)
    t = ((rows - horizon + 2) / (SIDE - horizon))[:, None]
    across = (np.arange(SIDE) - SIDE / 2) / t / SIDE  # -0.5 to 0.5 at the bottom
    asphalt = 104 + 9 * octaves(rng, across.shape, first=10, count=5, gain=0.9)[..., None] * np.ones(3)
    depth = 110 / t
    dashes = (np.abs(across) < 0.012) & (depth % 90 < 50)
    edges = np.abs(np.abs(across) - 0.62) < 0.012
    asphalt[dashes | edges] = (232, 228, 214)
    on_road = np.abs(across) < 0.7
    picture[horizon:][on_road] = asphalt[on_road]
    return picture, horizon


def _indoors(rng, texture):
    picture = np.zeros((SIDE, SIDE, 3), np.float32)
    horizon = int(rng.uniform(0.3, 0.5) * SIDE)
    wall = rng.choice([(206, 198, 182), (188, 200, 206), (214, 206, 206), (196, 204, 186), (178, 170, 166)])
    light = np.linspace(rng.uniform(0.8, 1), rng.uniform(0.8, 1), SIDE)[None, :, None]
    picture[:] = wall * light * (1 + 0.02 * octaves(rng, (SIDE, SIDE), first=4, count=6, gain=0.9)[..., None])
    picture[horizon - 9 : horizon] = np.asarray(wall) * rng.uniform(0.55, 1.12)  # the skirting board
    picture[horizon - 10] *= 0.75
    _lay_floor(rng, picture, np.clip(texture, 0, 255), horizon)
    return picture, horizon


def _wood(rng):
    columns = np.arange(TEXTURE)
    plank = columns // 46
    grain = octaves(rng, (TEXTURE, TEXTURE), first=8, count=6, gain=0.8, stretch=0.35)
    tone = rng.uniform(-0.25, 0.25, TEXTURE // 46 + 1)[plank] - 0.7 * (columns % 46 < 2)
    dark = np.array((96, 60, 34)) * rng.uniform(0.8, 1.25)
    return _indoors(rng, blend(dark, dark * 1.9, 0.5 + tone[None] + 0.16 * grain))


def _tiles(rng):
    rows, columns = np.mgrid[:TEXTURE, :TEXTURE]
    joint = (rows % 64 < 3) | (columns % 64 < 3)
    tone = rng.uniform(-0.2, 0.2, (9, 9))[rows // 64, columns // 64]
    check = 0.45 * rng.integers(0, 2) * ((rows // 64 + columns // 64) % 2)
    weight = 0.6 - check + tone + 0.1 * octaves(rng, (TEXTURE, TEXTURE), first=8, count=6, gain=0.8)
    tint = rng.uniform(-12, 12, 3)
    floor = blend(np.array((120, 112, 104)) + tint, np.array((222, 216, 206)) + tint, weight)
    return _indoors(rng, np.where(joint[..., None], 96, floor))


def _brick(rng):
    picture, horizon = np.zeros((SIDE, SIDE, 3), np.float32), int(rng.uniform(0.52, 0.68) * SIDE)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    course = rows // 16
    across = columns + 19 * (course % 2)
    mortar = (rows % 16 < 2) | (across % 38 < 2)
    tone = rng.uniform(-0.3, 0.3, (SIDE // 16 + 1, SIDE // 38 + 2))[course, across // 38]
    weight = 0.5 + tone + 0.14 * octaves(rng, (SIDE, SIDE), first=3, count=7, gain=0.8)
    red = rng.uniform(-14, 14, 3)
    picture[:] = np.where(
        mortar[..., None], 186, blend(np.array((112, 54, 42)) + red, np.array((190, 112, 86)) + red, weight)
    )
    noise = octaves(rng, (TEXTURE, TEXTURE), first=6, count=7, gain=0.85)
    _lay_floor(rng, picture, np.clip(blend((112, 110, 108), (176, 174, 168), 0.5 + 0.18 * noise), 0, 255), horizon)
    picture[horizon - 2 : horizon] *= 0.6
    return picture, horizon


def _sky(rng):
    picture = np.zeros((SIDE, SIDE, 3), np.float32)
    shift = rng.uniform(-18, 18, 3)
    _paint_sky(
        rng, picture, np.array((70, 128, 206)) + shift, np.array((176, 208, 240)) + shift, rng.uniform(-0.9, 0.6)
    )
    return picture, None


def _night(rng):
    picture, horizon = np.zeros((SIDE, SIDE, 3), np.float32), int(rng.uniform(0.3, 0.5) * SIDE)
    height = np.broadcast_to(np.linspace(0, 1, SIDE)[:, None], (SIDE, SIDE))
    picture[:] = blend((8, 10, 32), (44, 48, 92), height * SIDE / horizon * 0.8)
    stars = rng.random((SIDE, SIDE)) > 0.996
    picture[stars] = rng.uniform(140, 250, (int(stars.sum()), 1))
    _add_hills(rng, picture, horizon, (14, 16, 30), rng.uniform(8, 22))
    noise = octaves(rng, (TEXTURE, TEXTURE), first=4, count=8, gain=0.8)
    _lay_floor(rng, picture, np.clip(blend((16, 20, 34), (50, 58, 80), 0.5 + 0.2 * noise), 0, 255), horizon)
    return picture, horizon


DRAW = dict(
    grass=_grass, sand=_sand, snow=_snow, water=_water, road=_road,
    wood=_wood, tiles=_tiles, brick=_brick, sky=_sky, night=_night,
)  # fmt: skip


class Backgrounds:
    """A bank of places, `variants` of each name in `PLACES`.

    Args:
        seed: of the bank. Evaluation scenes use another bank than training scenes.
        variants: how many of each are drawn.
    """

    def __init__(self, seed: int, variants: int = 6):
        rng = np.random.default_rng([seed, 7])
        self._bank = {name: [self._draw(rng, name) for _ in range(variants)] for name in PLACES}

    @staticmethod
    def _draw(rng, name) -> tuple[Image.Image, int | None]:
        picture, horizon = DRAW[name](rng)
        return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), horizon

    def window(self, rng: np.random.Generator, name: str, size: int) -> Place:
        """Cut a window of one place, mirrored at random and scaled to (size, size)."""
        place, horizon = self._bank[name][rng.integers(len(self._bank[name]))]
        side = int(rng.integers(size, SIDE + 1))
        left, top = rng.integers(0, SIDE - side + 1), rng.integers(0, SIDE - side + 1)
        if horizon is not None:  # at least a third of the window is floor
            top = min(SIDE - side, max(top, horizon + side // 3 - side))
        window = place.resize((size, size), Image.BILINEAR, (left, top, left + side, top + side))
        if rng.random() < 0.5:
            window = window.transpose(Image.FLIP_LEFT_RIGHT)
        return Place(window, None if horizon is None else (horizon - top) * size / side)
