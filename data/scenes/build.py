"""Draw the four evaluation splits and write them as parquet.

`python -m data.scenes.build` writes `cat_and_dog.png` for the qualitative figure, and `scenes`,
`captions`, `objects` and `aerial.parquet`, with
the columns of Flickr8k, Conceptual Captions, ImageNet and RSICD, and two columns that photographs
do not have: `objects` (names) and `mask` (a palette picture; pixel value i is where `objects[i - 1]`
is seen, 0 is background). The trainer never draws these scenes and refuses these captions.
"""

import io
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from .aerial import draw_aerial, five_aerial_captions
from .atlas import read_objects
from .grammar import five_captions, object_caption, terse_caption
from .scenes import draw_scene
from .textures import Textures

HERE = Path(__file__).parent
SEED = 20250  # of the evaluation splits; the trainer's seeds are below 10000
ROWS = 500
CAT_AND_DOG = 0  # the first draw, not a chosen one
PALETTE = [0, 0, 0, 230, 159, 0, 86, 180, 233, 0, 158, 115, 240, 228, 66, 0, 114, 178, 213, 94, 0, 204, 121, 167]


def encode_image(image: PILImage.Image) -> dict:
    """Compress a picture as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=78, method=6)
    return {"bytes": buffer.getvalue(), "path": None}


def encode_mask(mask: np.ndarray) -> dict:
    """Compress an index mask as a palette PNG."""
    picture = PILImage.fromarray(mask)
    picture.putpalette(PALETTE)  # turns the mode from L to P
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": None}


def draw_rows(split: str) -> list[dict]:
    """Draw the rows of one split, each from a random generator of its own."""
    textures = Textures(SEED)
    number = list(COLUMNS).index(split)
    rows = []
    for index in range(ROWS):
        rng = np.random.default_rng([SEED, number, index])
        if split == "aerial":
            scene = draw_aerial(rng)
        else:
            scene = draw_scene(rng, textures, n_objects=1 if split == "objects" else None)
        own = COLUMNS[split](rng, scene, index)
        mask = encode_mask(scene.mask)
        rows.append({**own, "objects": scene.objects, "mask": mask})
    return rows


def _scene_columns(rng, scene, index):
    captions = {f"caption_{i}": text for i, text in enumerate(five_captions(rng, scene))}
    return {"image": encode_image(scene.image), **captions}


def _caption_columns(rng, scene, index):
    return {"jpg": encode_image(scene.image), "txt": terse_caption(rng, scene), "__key__": f"{index:06d}"}


def _object_columns(rng, scene, index):
    return {"image": encode_image(scene.image), "label": scene.objects[0]}


def _aerial_columns(rng, scene, index):
    captions = five_aerial_captions(rng, scene)
    return {"filename": f"aerial_{index:04d}.webp", "captions": captions, "image": encode_image(scene.image)}


COLUMNS = {
    "scenes": _scene_columns,
    "captions": _caption_columns,
    "objects": _object_columns,
    "aerial": _aerial_columns,
}
TEXT = Value("string")
FEATURES = {
    "scenes": {"image": Image(), **{f"caption_{i}": TEXT for i in range(5)}},
    "captions": {"jpg": Image(), "txt": TEXT, "__key__": TEXT},
    "objects": {"image": Image(), "label": ClassLabel(names=[row["name"] for row in read_objects()])},
    "aerial": {"filename": TEXT, "captions": List(TEXT), "image": Image()},
}


def read_captions() -> set[str]:
    """Collect every caption of the evaluation splits, the zero-shot prompts among them."""
    captions = {object_caption(row["name"]) for row in read_objects()}
    for split, features in FEATURES.items():
        columns = [name for name in features if name.startswith(("caption", "txt"))]
        if columns:
            table = Dataset.from_parquet(str(HERE / f"{split}.parquet"), columns=columns, keep_in_memory=True)
            for name in columns:
                captions.update(np.ravel(table[name][:]))
    return captions


def draw_cat_and_dog() -> tuple[PILImage.Image, PILImage.Image]:
    """Draw the scene of the qualitative figure, and its mask (1 is the cat, 2 the dog)."""
    scene = draw_scene(np.random.default_rng([SEED, 99, CAT_AND_DOG]), Textures(SEED), names=["cat", "dog"])
    mask = PILImage.fromarray(scene.mask)
    mask.putpalette(PALETTE)
    return scene.image, mask


if __name__ == "__main__":
    for picture, name in zip(draw_cat_and_dog(), ("cat_and_dog.png", "cat_and_dog_mask.png")):
        picture.save(HERE / name, optimize=True)
    for split, features in FEATURES.items():
        schema = Features({**features, "objects": List(TEXT), "mask": Image()})
        table = Dataset.from_list(draw_rows(split), features=schema)
        table.to_parquet(HERE / f"{split}.parquet")
