"""Draw the backgrounds that scenes lie on.

Exports `BACKGROUNDS` (name -> the phrase a caption uses) and `Textures`, a bank of large
textures from which every scene takes a random window.
"""

import numpy as np
from PIL import Image

BACKGROUNDS = {
    "grass": "on the grass",
    "sand": "on the sand",
    "snow": "in the snow",
    "water": "on the water",
    "wood": "on a wooden floor",
    "brick": "in front of a brick wall",
    "sky": "in the sky",
    "night": "at night",
}
SIDE = 512  # pixels, the side of a texture; scenes are windows of it


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Interpolate a grid of normal numbers; `cells` and `size` are (rows, columns)."""
    grid = Image.fromarray(rng.standard_normal(cells).astype(np.float32))
    return np.asarray(grid.resize((size[1], size[0]), Image.BICUBIC))


def _blend(low, high, weight: np.ndarray) -> np.ndarray:
    weight = np.clip(weight, 0, 1)[..., None]
    return np.asarray(low) * (1 - weight) + np.asarray(high) * weight


def _grass(rng, noise):
    return _blend((62, 118, 48), (122, 172, 84), 0.5 + 0.22 * noise(10, 10) + 0.12 * noise(90, 140))


def _sand(rng, noise):
    return _blend((205, 178, 128), (240, 221, 178), 0.5 + 0.25 * noise(40, 8) + 0.1 * noise(80, 80))


def _snow(rng, noise):
    return _blend((208, 220, 236), (250, 251, 254), 0.6 + 0.3 * noise(7, 7))


def _water(rng, noise):
    return _blend((28, 92, 150), (96, 168, 208), 0.45 + 0.25 * noise(60, 10) + 0.15 * noise(12, 4))


def _wood(rng, noise):
    rows = np.arange(SIDE)
    plank = rows // 52
    tone = rng.uniform(-0.2, 0.2, SIDE // 52 + 1)[plank] - 0.5 * (rows % 52 < 2)
    return _blend((118, 76, 42), (190, 138, 88), 0.5 + tone[:, None] + 0.18 * noise(120, 5))


def _brick(rng, noise):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    course = rows // 22
    across = columns + 26 * (course % 2)
    mortar = (rows % 22 < 3) | (across % 52 < 3)
    tone = rng.uniform(-0.3, 0.3, (SIDE // 22 + 1, SIDE // 52 + 2))[course, across // 52]
    wall = _blend((138, 62, 46), (186, 100, 76), 0.5 + tone + 0.1 * noise(30, 30))
    return np.where(mortar[..., None], (196, 184, 170), wall)


def _sky(rng, noise):
    height = np.linspace(0, 1, SIDE)[:, None]
    clear = _blend((88, 152, 224), (178, 212, 244), height + 0 * noise(4, 4))
    return _blend(clear, np.full((1, 1, 3), 250.0), 0.9 * (noise(9, 6) + 0.4 * noise(24, 16)) - 0.5)


def _night(rng, noise):
    dark = _blend((10, 14, 40), (42, 44, 92), 0.45 + 0.2 * noise(5, 5))
    stars = rng.random((SIDE, SIDE)) > 0.9985
    return np.where(stars[..., None], 225, dark)


class Textures:
    """A bank of textures, `variants` of each background.

    Args:
        seed: of the bank. Evaluation scenes use another bank than training scenes.
        variants: textures drawn for each background.
    """

    def __init__(self, seed: int, variants: int = 4):
        rng = np.random.default_rng([seed, 7])

        def noise(rows, columns):
            return smooth_noise(rng, (rows, columns), (SIDE, SIDE))

        self._bank = {
            name: [np.clip(globals()[f"_{name}"](rng, noise), 0, 255).astype(np.uint8) for _ in range(variants)]
            for name in BACKGROUNDS
        }

    def window(self, rng: np.random.Generator, name: str, size: int) -> Image.Image:
        """Cut a (size, size) window of one texture of background `name`, mirrored and tinted at random."""
        texture = self._bank[name][rng.integers(len(self._bank[name]))]
        top, left = rng.integers(0, SIDE - size, 2)
        window = texture[top : top + size, left : left + size]
        if rng.random() < 0.5:
            window = window[:, ::-1]
        tint = rng.uniform(0.86, 1.12) * rng.uniform(0.95, 1.05, 3)
        return Image.fromarray(np.clip(window * tint, 0, 255).astype(np.uint8))
