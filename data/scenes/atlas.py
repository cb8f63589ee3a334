"""Render the sprite atlas from the Noto Color Emoji font, once.

Exports `load_sprites`, which everything else reads the atlas through. Run as
`python -m data.scenes.atlas` to make `atlas.png` again; that needs the font
(Debian: `fonts-noto-color-emoji`). The licence of the font is in `OFL.txt`.
"""

import csv
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE = 109  # the one size at which the font's bitmaps exist
CELL = 112  # pixels, the side of a sprite in the atlas
COLUMNS = 10


@lru_cache(maxsize=1)
def read_objects() -> tuple[dict[str, str], ...]:
    """Read the object classes: name, plural, codepoint and group of each, in atlas order."""
    with open(HERE / "objects.csv", newline="") as file:
        return tuple(csv.DictReader(file))


@lru_cache(maxsize=1)
def load_sprites() -> dict[str, Image.Image]:
    """Cut the atlas into one RGBA picture an object, trimmed to what is visible."""
    atlas = Image.open(HERE / "atlas.png").convert("RGBA")
    sprites = {}
    for index, row in enumerate(read_objects()):
        left, top = CELL * (index % COLUMNS), CELL * (index // COLUMNS)
        sprite = atlas.crop((left, top, left + CELL, top + CELL))
        sprites[row["name"]] = sprite.crop(sprite.getchannel("A").getbbox())
    return sprites


def render_atlas() -> Image.Image:
    """Draw every object's glyph into its cell of the atlas."""
    font = ImageFont.truetype(FONT, FONT_SIZE)
    rows = -(-len(read_objects()) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for index, row in enumerate(read_objects()):
        glyph = Image.new("RGBA", (160, 160))
        draw = ImageDraw.Draw(glyph)
        draw.text((10, 10), chr(int(row["codepoint"], 16)), font=font, embedded_color=True)
        glyph = glyph.crop(glyph.getbbox())
        scale = CELL / max(glyph.size)
        glyph = glyph.resize([round(side * scale) for side in glyph.size], Image.LANCZOS)
        left, top = CELL * (index % COLUMNS), CELL * (index // COLUMNS)
        atlas.paste(glyph, (left + (CELL - glyph.width) // 2, top + (CELL - glyph.height) // 2))
    return atlas


if __name__ == "__main__":
    render_atlas().save(HERE / "atlas.png", optimize=True)
