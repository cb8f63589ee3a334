"""Put scenes into words.

Exports `caption`, `five_captions`, `short_caption`, `terse_caption`, `object_caption` and `join`.
Every phrase is built from what is in the picture, so that a caption is always true of it.
"""

import numpy as np

from nib.datasets import with_article

from .backgrounds import PLACES
from .scenes import SIZE, Scene
from .stamps import read_kinds

NUMBERS = {2: "two", 3: "three"}
PLURALS = {row["name"]: row["plural"] for row in read_kinds()}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
OPENINGS = ("", "", "", "a photo of ", "a picture of ", "an image of ", "there is ", "we can see ")


def object_caption(name: str) -> str:
    """Write the prompt of the `objects` split, in the manner of ImageNet's zero-shot prompts."""
    return f"a photo of {with_article(name)}"


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """Write a caption that names every object of the scene, in one of several manners."""
    kind = rng.random()
    if kind < 0.3 and len(set(scene.objects)) == len(scene.objects) > 1:
        text = _relation(rng, scene)
    elif kind < 0.45:
        return terse_caption(rng, scene)
    else:
        text = str(rng.choice(OPENINGS)) + join(_noun_phrases(rng, scene))
    return _place(rng, scene, text)


def five_captions(rng: np.random.Generator, scene: Scene) -> list[str]:
    """Write five captions as Flickr8k has them; the first always names the place."""
    first = f"{join(_noun_phrases(rng, scene))} {PLACES[scene.place]}"
    return [first, *(caption(rng, scene) for _ in range(4))]


def short_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Name only some of the objects, as a person who is asked about one thing does."""
    names = sorted(set(scene.objects))
    chosen = rng.choice(names, int(rng.integers(1, max(2, len(names)))), replace=False)
    text = str(rng.choice(OPENINGS[:6])) + join([with_article(str(name)) for name in chosen])
    return text if rng.random() < 0.7 else f"{text} {PLACES[scene.place]}"


def terse_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Write without articles, as alt texts on the web do: "dog and cat, big tree, grass"."""
    phrases = [phrase.split(" ", 1)[1] if phrase.startswith(("a ", "an ")) else phrase
               for phrase in _noun_phrases(rng, scene)]  # fmt: skip
    text = " and ".join(phrases) if len(phrases) < 3 else ", ".join(phrases)
    place = PLACES[scene.place].replace("the ", "").replace(" a ", " ")
    return f"{text} {place}" if rng.random() < 0.8 else f"{place}, {text}"


def _noun_phrases(rng, scene) -> list[str]:
    """Name each kind once: "two dogs", "a big cat", in random order."""
    phrases = []
    for name in dict.fromkeys(scene.objects):
        sizes = [size for size, other in zip(scene.sizes, scene.objects) if other == name]
        if len(sizes) > 1:
            phrases.append(f"{NUMBERS[len(sizes)]} {PLURALS[name]}")
        else:
            phrases.append(_sized(rng, name, sizes[0]))
    rng.shuffle(phrases)
    return phrases


def _sized(rng, name, size) -> str:
    if size and rng.random() < 0.6:
        name = f"{rng.choice(SIZE_WORDS[size])} {name}"
    return with_article(name)


def _relation(rng, scene) -> str:
    """Say where two objects are to one another, then name the rest."""
    order = rng.permutation(len(scene.objects))
    one, other = order[:2]
    dx, dy = scene.centres[one] - scene.centres[other]
    noun, reference, *rest = [_sized(rng, scene.objects[i], scene.sizes[i]) for i in order]
    depth = scene.feet[one] - scene.feet[other]
    if abs(dx) > SIZE / 6 and abs(dx) > 1.4 * max(abs(dy), abs(depth)):
        side = "left" if dx < 0 else "right"
        where = str(rng.choice([f"to the {side} of", f"{side} of", f"on the {side} of"]))
    elif scene.place == "sky" and abs(dy) > SIZE / 6:
        where = str(rng.choice(["above", "over"] if dy < 0 else ["below", "under"]))
    elif scene.place != "sky" and abs(depth) > SIZE / 8:
        where = "in front of" if depth > 0 else "behind"
    else:
        where = str(rng.choice(["next to", "near", "beside"]))
    text = f"{noun} {where} {reference}"
    return f"{text} with {join(rest)}" if rest else text


def _place(rng, scene, text) -> str:
    place = PLACES[scene.place]
    draw = rng.random()
    if draw < 0.2:
        return text
    return f"{place}, {text}" if draw < 0.35 else f"{text} {place}"


def join(phrases: list[str]) -> str:
    """Join noun phrases with commas and a last "and"."""
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
