"""Choose scenes with two objects, ask for one of them, and say how much of a map lies on the other.

Exports `REGIONS`, `Scenes`, `choose_scenes`, `make_half_true`, `explain_scenes`, `stack_maps`, `shuffle_patches`,
`measure_mass` and `tabulate_mass`. In Figure 1 of the NIB paper the object that is not asked for has negative scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

import nib
from nib.clip import HookedCLIP
from nib.datasets import with_article
from nib.result import Attribution
from nib.shapes import GridScores
from studies.negatives import signed_mass
from studies.tables import tabulate

REGIONS = ASKED, OTHER, BACKGROUND = "the object asked for", "the other object", "background"


@dataclass
class Scenes:
    """Pictures that hold two different objects, and which of the two a prompt asks for.

    Attributes:
        ids: of the scenes.
        pictures: one a scene.
        captions: the scenes' own captions.
        asked: names of the objects that are asked for.
        others: names of the other objects.
        masks: an entry of `REGIONS` -> (scenes, height, width) boolean; each pixel lies in one region.
    """

    ids: list[str]
    pictures: list[Image.Image]
    captions: list[str]
    asked: list[str]
    others: list[str]
    masks: dict[str, Tensor]

    @property
    def prompts(self) -> list[str]:
        """Prompts that name the object asked for, such as "a cat"."""
        return [with_article(name) for name in self.asked]

    @property
    def both_named(self) -> list[str]:
        """Prompts that name both objects, such as "a cat and a dog"."""
        return [f"{with_article(one)} and {with_article(two)}" for one, two in zip(self.asked, self.others)]


def choose_scenes(rows: Iterable[Mapping], limit: int) -> Scenes:
    """Take the first scenes that hold exactly two different objects, and ask for the first and the second in turn.

    Args:
        rows: of `nib.datasets.load("scenes")`.
        limit: how many scenes at most.
    """
    found = list(islice((row for row in rows if len(row["objects"]) == len(set(row["objects"])) == 2), limit))
    seen = torch.from_numpy(np.stack([np.array(row["masks"]) for row in found]))  # i is objects[i - 1], 0 background
    own = torch.arange(len(found))[:, None, None] % 2 + 1  # the value of the object asked for
    return Scenes(
        ids=[row["id"] for row in found],
        pictures=[row["image"] for row in found],
        captions=[row["text"] for row in found],
        asked=[row["objects"][number % 2] for number, row in enumerate(found)],
        others=[row["objects"][1 - number % 2] for number, row in enumerate(found)],
        masks={ASKED: seen == own, OTHER: seen == 3 - own, BACKGROUND: seen == 0},
    )


def make_half_true(scenes: Scenes, objects: Iterable[Sequence[str]], seed: int = 0) -> tuple[list[str], list[str]]:
    """Write captions such as "a cat and an umbrella", of which one object is in the scene and the other is not.

    Args:
        scenes: the object asked for is the one that is there.
        objects: names of the objects of all scenes, from which those that are not there are drawn.
        seed: of that draw, and of the order of the two.

    Returns:
        Captions, and the names of what is not there.
    """
    rng, every = np.random.default_rng(seed), sorted({name for names in objects for name in names})
    absent = []
    for there in zip(scenes.asked, scenes.others):
        absent.append(str(rng.choice([name for name in every if name not in there])))
    orders = [rng.permutation(two) for two in zip(scenes.asked, absent)]
    return [" and ".join(map(with_article, two)) for two in orders], absent


def explain_scenes(
    clip: HookedCLIP, scenes: Scenes, texts: Sequence[str], runs: Mapping[str, Mapping]
) -> dict[str, list[Attribution]]:
    """Explain each scene with its text by each run, a name and the parameters of `nib.attribute`."""
    return {name: nib.attribute(clip, scenes.pictures, texts, progress=False, **given) for name, given in runs.items()}


def stack_maps(results: Sequence[Attribution]) -> GridScores:
    """Return the maps of some results as one tensor, (results, grid_h, grid_w)."""
    return torch.from_numpy(np.stack([result.image_scores for result in results]))


def shuffle_patches(maps: GridScores, seed: int = 0) -> GridScores:
    """Shuffle the patches of each map anew: a control with the same scores in other places."""
    flat = maps.flatten(1)
    order = torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return flat.gather(1, order).view_as(maps)


def measure_mass(scenes: Scenes, maps: Mapping[str, GridScores]) -> pd.DataFrame:
    """Return the shares of each map's absolute mass that lie in each region, for and against apart.

    Args:
        scenes: what the maps explain.
        maps: name -> (scenes, grid_h, grid_w).

    Returns:
        Columns `id`, `method` (the name), `region`, `sign` ("for" or "against") and `value`, in [0, 1]. The six
        values of a map add up to 1.
    """
    parts = []
    for (name, scores), (region, mask) in product(maps.items(), scenes.masks.items()):
        for sign, values in zip(("for", "against"), signed_mass(scores, mask)):
            one = {"id": scenes.ids, "method": name, "region": region, "sign": sign, "value": values.numpy()}
            parts.append(pd.DataFrame(one))
    return pd.concat(parts, ignore_index=True)


def tabulate_mass(mass: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """Return what lies on the other object, and in how many scenes a map's sum over an object is below zero.

    Args:
        mass: as `measure_mass` returns it.
        shares: its means, with columns `region`, `method`, `sign`, `mean`, `low` and `high`.

    Returns:
        A row a method: two columns with intervals as text, and two of shares in [0, 1].
    """
    names = shares["method"].unique()
    cells = tabulate(shares, "method", ["region", "sign"])
    table = pd.DataFrame({f"{sign}, on {OTHER}": cells[OTHER, sign] for sign in ("for", "against")}, names)
    net = mass.assign(value=mass["value"] * mass["sign"].map({"for": 1, "against": -1}))
    below = net.groupby(["method", "region", "id"])["value"].sum() < 0
    for region in (ASKED, OTHER):
        table[f"net below zero on {region}"] = below.xs(region, level="region").groupby("method").mean()
    return table
