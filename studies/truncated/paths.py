"""Measure paths that begin above zero, on prompts for objects.

Exports `read_prompts`, `follow_paths`, `name_path`, `list_paths`, `measure_paths` and `count_costs`.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

import nib
from nib.clip import HookedCLIP
from nib.evaluation import Batch
from nib.metrics import summarise
from nib.metrics.completeness import COMPLETENESS
from studies.counting import count
from studies.theory import cut_side, embed_others, profile

RULES = {"riemann_right": "right Riemann", "gausslegendre": "Gauss-Legendre"}
PANELS = {"picture": "picture", "words": "text"}  # side -> its name in panels
METRICS = ["confidence", "localisation", "completeness"]


def read_prompts(limits: Mapping[str, int]) -> dict[str, list[dict]]:
    """Return prompts for one kind of object of a picture, with the mask of all of that kind.

    Args:
        limits: embedded data set -> prompts.

    Returns:
        data set -> rows with `id`, such as "scenes-0", `image`, `text` and `masks`.
    """
    found = {}
    for name, limit in limits.items():
        rows = zip(*nib.datasets.object_prompts(limit, name, repeated=True))
        found[name] = [
            {"id": f"{name}-{number}", "image": image, "text": f"a photo of {prompt}", "masks": mask}
            for number, (image, prompt, mask) in enumerate(rows)
        ]
    return found


def follow_paths(clip: HookedCLIP, pairs: Batch, layers: Sequence[int], points: Sequence[float]) -> pd.DataFrame:
    """Follow F(lambda z), and how much of the way to F(z) is left to explain.

    What is left is |F(z) - F(lambda z)|, relative to the mean of |F(z) - F(0)| over the pairs.

    Args:
        pairs: a batch, see `nib.evaluation.read_pairs`.
        layers: blocks run before the cut.
        points: values of lambda, the first 0 and the last 1.

    Returns:
        Means over the pairs with their intervals, but for lambda = 0: columns `panel` ("F(λz), picture", "left to
        explain, text" and the like), `layer`, `lambda`, `n`, `mean`, `low` and `high`.
    """
    targets, rows = embed_others(clip, pairs), []
    for layer, (side, name) in product(layers, PANELS.items()):
        values, _ = profile(cut_side(clip, pairs, side, layer), targets[side], points)
        values = values.double().cpu()  # (points, pairs)
        left = (values[-1] - values).abs() / (values[-1] - values[0]).abs().mean()
        for panel, found in ((f"F(λz), {name}", values), (f"left to explain, {name}", left)):
            for point, row in zip(points[1:], found[1:].tolist()):
                rows += [(panel, f"layer {layer}", point, value) for value in row]
    table = pd.DataFrame(rows, columns=["panel", "layer", "lambda", "value"])
    return summarise(table, ["panel", "layer", "lambda"])


def name_path(quadrature: str, n_steps: int, lambda_min: float) -> str:
    """Return a name to read, such as "right Riemann 10, λ ≥ 0.1"."""
    return f"{RULES.get(quadrature, quadrature)} {n_steps}, λ ≥ {lambda_min:g}"


def list_paths(
    rules: Mapping[str, Sequence[int]], layers: Sequence[int], lambda_mins: Sequence[float]
) -> list[dict[str, object]]:
    """List every combination of rule, nodes, layer and start, as settings of `nib.evaluate`.

    Args:
        rules: quadrature -> numbers of nodes.
    """
    return [
        {"method": "nib", "layer": layer, "quadrature": rule, "n_steps": n_steps, "lambda_min": start}
        for rule, counts in rules.items()
        for n_steps, layer, start in product(counts, layers, lambda_mins)
    ]


def measure_paths(
    clip: HookedCLIP, prompts: Mapping[str, list[dict]], settings: Sequence[dict], parts_dir=None
) -> pd.DataFrame:
    """Evaluate paths on prompts.

    Args:
        prompts: what `read_prompts` returns.
        settings: what `list_paths` returns.
        parts_dir: folder for finished parts, from which a killed run goes on.

    Returns:
        What `nib.evaluate` returns, with a column `path`, and without metrics relative to the similarity. Differences
        and gaps are absolute, in cosine units.
    """
    found = [nib.evaluate(clip, rows, settings, metrics=METRICS, output=parts_dir) for rows in prompts.values()]
    values = pd.concat(found)
    values = values[~values["metric"].str.contains("relative")].reset_index(drop=True)
    values["value"] = values["value"].where(~values["metric"].isin(COMPLETENESS.values), values["value"].abs())
    paths = values[["quadrature", "n_steps", "lambda_min"]].itertuples(index=False)
    values["path"] = [name_path(*path) for path in paths]
    return values


def count_costs(clip: HookedCLIP, pairs: Batch, paths: Mapping[str, dict], layer: int) -> pd.DataFrame:
    """Count the passes of one input through a whole tower that each path costs a pair.

    Args:
        pairs: a batch, see `nib.evaluation.read_pairs`.
        paths: name -> parameters of NIB.
        layer: blocks run before the bottleneck.

    Returns:
        A row a path; columns (`forward` or `backward`, `image` or `text`).
    """
    costs = []
    for name, options in paths.items():
        with count(clip) as passes:
            nib.METHODS["nib"](clip, *pairs.arguments(), layer=layer, **options)
        for side in ("image", "text"):
            counted, n_pairs = getattr(passes, side), len(pairs.ids)
            forward, backward = counted.forward_passes(n_pairs), counted.backward_passes(n_pairs)
            costs.append({"path": name, "side": side, "forward": forward, "backward": backward})
    return pd.DataFrame(costs).pivot(index="path", columns="side")
