"""Compose the evaluation splits and write them as parquet.

`python -m data.scenes.build` writes `scenes`, `captions`, `objects`, `aerial` and `unseen.parquet`, 500 rows each, in
one schema: `id`, `image`, `text`, `captions`, `objects` (names) and `mask` (a palette picture; the value i is where
`objects[i - 1]` is seen, 0 is background), and `tiger_and_dog.png` for the qualitative figure. The trainer never
composes these scenes and refuses their captions.
"""

import io
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from .aerial import draw_aerial, five_aerial_captions
from .backgrounds import Backgrounds
from .grammar import five_captions, object_caption, terse_caption
from .scenes import draw_scene
from .stamps import load_stamps

HERE = Path(__file__).parent
SEED = 20261  # of the evaluation splits; the trainer's seeds are below 10000
ROWS = 500
SPLITS = ("scenes", "captions", "objects", "aerial", "unseen")
TIGER_AND_DOG = 2  # a draw chosen by eye: both stand on land and are well seen
PALETTE = [0, 0, 0, 230, 159, 0, 86, 180, 233, 0, 158, 115, 240, 228, 66, 0, 114, 178, 213, 94, 0, 204, 121, 167]
TEXT = Value("string")
FEATURES = Features(id=TEXT, image=Image(), text=TEXT, captions=List(TEXT), objects=List(TEXT), mask=Image())


def encode_image(image: PILImage.Image) -> dict:
    """Compress a picture as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82, method=6)
    return {"bytes": buffer.getvalue(), "path": None}


def encode_mask(mask: np.ndarray) -> dict:
    """Compress an index mask as a palette PNG."""
    picture = PILImage.fromarray(mask)
    picture.putpalette(PALETTE)  # turns the mode from L to P
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": None}


def compose_row(split: str, index: int, backgrounds: Backgrounds) -> dict:
    """Compose one row from a random generator of its own."""
    rng = np.random.default_rng([SEED, SPLITS.index(split), index])
    if split == "aerial":
        scene = draw_aerial(rng)
        captions = five_aerial_captions(rng, scene)
    elif split in ("objects", "unseen"):
        kinds = list(load_stamps(held_out=split == "unseen"))  # each kind in turn, so that all are equally frequent
        scene = draw_scene(rng, backgrounds, names=[kinds[index % len(kinds)]], held_out=split == "unseen")
        captions = [object_caption(scene.objects[0])]
    else:
        scene = draw_scene(rng, backgrounds)
        captions = five_captions(rng, scene) if split == "scenes" else [terse_caption(rng, scene)]
    image, mask = encode_image(scene.image), encode_mask(scene.mask)
    own = dict(text=captions[0], captions=captions, objects=scene.objects)
    return {"id": f"{split}_{index:04d}", "image": image, **own, "mask": mask}


def write_split(split: str) -> None:
    """Write one split as a parquet file."""
    backgrounds = Backgrounds(SEED)
    rows = [compose_row(split, index, backgrounds) for index in range(ROWS)]
    Dataset.from_list(rows, features=FEATURES).to_parquet(HERE / f"{split}.parquet")


def read_captions() -> set[str]:
    """Read the captions of all splits but the prompts of single objects, which training may see."""
    captions: set[str] = set()
    for split in ("scenes", "captions", "aerial"):
        rows = Dataset.from_parquet(str(HERE / f"{split}.parquet"), columns=["captions"])["captions"]
        captions.update(text for texts in rows for text in texts)
    return captions


if __name__ == "__main__":
    for name in SPLITS:
        write_split(name)
    rng = np.random.default_rng([SEED, len(SPLITS), TIGER_AND_DOG])
    scene = draw_scene(rng, Backgrounds(SEED), names=["tiger", "dog"])
    scene.image.save(HERE / "tiger_and_dog.png", optimize=True)
    PILImage.fromarray(scene.mask).save(HERE / "tiger_and_dog_mask.png", optimize=True)
