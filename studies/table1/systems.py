"""Return every system of Table 1 one form: from a pair and examples to an `Explanation`.

Exports `SYSTEMS`, by name; `System` and `Explanation`; and what `related` builds on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from nib.clip import HookedCLIP
from nib.inputs import to_tokens
from nib.methods import METHODS
from studies.table1 import cocoa, falcon, lico, textspan
from studies.table1.examples import Examples, Pair, embed_in_parts, to_prompt
from studies.table1.exemplars import Exemplars

CELLS = 8  # rows and columns on which pixels are summed


@dataclass
class Explanation:
    """What a system says of one pair.

    Attributes:
        said: one or more tables from a patch or a word to its score; what is compared between runs.
        sums: for each tower explained, what the numbers add up to and what they should: a difference of similarities.
        model: the model that was explained.
        map: (grid_h, grid_w), where there is one.
        note: what it says in words.
        rows: examples that it shows.
    """

    said: list[dict]
    sums: list[tuple[float, float]]
    model: nn.Module
    map: Tensor | None = None
    note: str = ""
    rows: tuple[int, ...] = ()


@dataclass
class System:
    """A system, and the data set from which it reads examples if it reads any."""

    explain: Callable[[HookedCLIP, Pair, Examples, int], Explanation]
    examples: str = "captions"


def of_map(scores: Tensor) -> dict:
    return dict(enumerate(scores.flatten().tolist()))


def similarity_with(clip: HookedCLIP, pair: Pair) -> Callable:
    """Return the function from pixel values to the similarity with the pair's text."""
    with torch.no_grad():
        text = clip.text.embed(pair.input_ids, pair.attention_mask)
    return lambda pixel_values: cosine_similarity(clip.image.embed(pixel_values), text)


def sum_cells(scores: Tensor) -> Tensor:
    """Sum pixel scores (1, height, width) on a grid, (CELLS, CELLS)."""
    sums = torch.zeros(CELLS**2, dtype=scores.dtype, device=scores.device)
    cells = number_cells(*scores.shape[-2:]).flatten().to(scores.device)
    return sums.index_add(0, cells, scores.flatten()).view(CELLS, CELLS)


def number_cells(height: int, width: int) -> Tensor:
    """Return the cell in which each pixel lies, (height, width), counted row by row."""
    rows, columns = (torch.arange(size) * CELLS // size for size in (height, width))
    return rows[:, None] * CELLS + columns


def method(name: str, later: int = 0, **given) -> Callable:
    """Run one of `nib.METHODS`, cut at three quarters of the blocks and `later` ones more."""

    def explain(clip, pair, examples, seed):
        layer = 3 * len(clip.image.blocks) // 4 + later
        inputs = pair.pixel_values, pair.input_ids, pair.attention_mask
        options = given | ({"layer": layer} if name in ("nib", "m2ib") else {})
        scores = METHODS[name](clip, *inputs, seed=seed, **options)
        image = scores.image.sum() + (0 if scores.image_class is None else scores.image_class)
        sums = [(float(image), float(scores.similarity)), (float(scores.text.sum()), float(scores.similarity))]
        if name == "nib":  # the path begins at zero
            starts = _at_zero(clip, pair, layer)
            sums = [(total, whole - start) for (total, whole), start in zip(sums, starts)]
        return Explanation([of_map(scores.image), of_map(scores.text)], sums, clip.model, scores.image[0])

    return explain


@torch.no_grad()
def _at_zero(clip: HookedCLIP, pair: Pair, layer: int) -> tuple[float, float]:
    """Return F(0) of both towers."""
    image = clip.image.split(pair.pixel_values, layer)
    text = clip.text.split(pair.input_ids, layer, pair.attention_mask)
    embeds = image(image.hidden_states), text(text.hidden_states)
    at_zero = image(0 * image.hidden_states), text(0 * text.hidden_states)
    return tuple(float(cosine_similarity(at_zero[side], embeds[1 - side])) for side in (0, 1))


def explain_by_cocoa(clip, pair, examples, seed, by_nib=False):
    """Contrast the 8 examples that are nearest to the text with all others, from pixels or, by NIB, from tokens."""
    images = examples.image_embeds()
    with torch.no_grad():
        text = clip.text.embed(pair.input_ids, pair.attention_mask)
    order = cosine_similarity(images, text).argsort(descending=True)
    corpus, foils = images[order[:8]], images[order[8:]]
    if by_nib:
        split = clip.image.split(pair.pixel_values, 3 * len(clip.image.blocks) // 4)
        tokens, difference = cocoa.of_tokens(split, split.hidden_states, corpus, foils)
        rows, columns = clip.grid(pair.pixel_values)
        scores = tokens[:, -rows * columns :].view(rows, columns)  # without class token
        return Explanation([of_map(scores)], [(float(tokens.sum()), float(difference))], clip.model, scores)
    scores, difference = cocoa.of_pixels(clip.image.embed, pair.pixel_values, corpus, foils)
    cells = sum_cells(scores)
    return Explanation([of_map(cells)], [(float(scores.sum()), float(difference))], clip.model, cells)


def _textspan(clip, pair, examples, seed):
    """Draw the text's map, and name the head that writes most of the similarity."""
    parts = textspan.decompose(clip, pair.pixel_values)
    with torch.no_grad():
        text = clip.text.embed(pair.input_ids, pair.attention_mask)
    scores = textspan.heat_map(parts, text)[0]
    direction = normalize(text, dim=-1)[0] / parts.total().norm()
    of_head = parts.attention[0].sum(2) @ direction  # (layers, heads)
    layer, head = divmod(int(of_head.argmax()), of_head.shape[1])

    def write(pixel_values):
        return textspan.decompose(clip, pixel_values).attention.sum(3)  # (pictures, layers, heads, embed)

    outputs = examples.once("heads", lambda: embed_in_parts(write, examples.pixel_values(), 16))[:, layer, head]
    chosen = textspan.text_span(outputs, examples.text_embeds(), 5)
    texts = examples.texts()
    total, whole = parts.total()[0] @ direction, similarity_with(clip, pair)(pair.pixel_values)
    words: dict = {}
    for row, share in chosen:
        for word in texts[row].split():
            words[word] = words.get(word, 0.0) + share
    note = f"layer {layer}, head {head}: " + "; ".join(texts[row] for row, _ in chosen[:2])
    return Explanation([of_map(scores), words], [(float(total), float(whole))], clip.model, scores, note)


def _exemplars(clip, pair, examples, seed):
    """Say the words of the 5 nearest pairs, and the similarity that theirs suggest."""
    images, texts = examples.image_embeds(), examples.text_embeds()
    known = examples.once("exemplars", lambda: Exemplars(images, texts))
    with torch.no_grad():
        image, text = clip.image.embed(pair.pixel_values), clip.text.embed(pair.input_ids, pair.attention_mask)
    found = known.nearest(image, text, k=5)
    rows, weights = found.rows[0], found.weights[0]
    words: dict = {}
    for row, weight in zip(rows.tolist(), weights.tolist()):
        for word in examples.texts()[row].split():
            words[word] = words.get(word, 0.0) + weight
    guess = (weights * cosine_similarity(images[rows], texts[rows])).sum()
    note = f"confidence {float(found.confidence):.2f}" + ("" if bool(found.known) else ": no knowledge")
    shown = tuple(examples.chosen[row] for row in rows.tolist())
    sums = [(float(guess), float(cosine_similarity(image, text)))]
    return Explanation([words], sums, clip.model, note=note, rows=shown)


def _falcon(clip, pair, examples, seed, n_coordinates=8):
    """Say in words what the coordinates of largest variance stand for; they carry a part of the similarity."""
    embeds = normalize(examples.image_embeds(), dim=-1)
    coordinates = embeds.var(0).topk(n_coordinates).indices.tolist()

    def explain_all():
        given = examples.image_embeds(), examples.texts()
        return [falcon.explain(*given, [coordinate], examples.embed_texts) for coordinate in coordinates]

    words = examples.once("falcon", explain_all)
    with torch.no_grad():
        image, text = clip.image.embed(pair.pixel_values), clip.text.embed(pair.input_ids, pair.attention_mask)
    products = (normalize(image, dim=-1) * normalize(text, dim=-1))[0]
    sums = [(float(products[coordinates].sum()), float(products.sum()))]
    high, low = falcon.choose(embeds, coordinates[:1], 2)
    rows = tuple(examples.chosen[row] for row in [*high.tolist(), *low.tolist()])
    said = {(coordinate, word): score for coordinate, of in zip(coordinates, words) for word, score in of.items()}
    names = [f"{coordinate}: {', '.join(list(of)[:2])}" for coordinate, of in zip(coordinates, words)]
    note = f"above: activate {coordinates[0]}; below: look-alikes. " + "; ".join(names[:3])
    return Explanation([said], sums, clip.model, note=note, rows=rows)


def features(clip: HookedCLIP, pixel_values: Tensor) -> Tensor:
    """Return what LICO's classifier reads, (batch, width, grid_h, grid_w): hidden states at 3/4 of the blocks."""
    if hasattr(clip.image, "feature_map"):  # a convolutional tower
        return clip.image.feature_map(pixel_values)
    grid = clip.grid(pixel_values)
    states = clip.image.split(pixel_values, 3 * len(clip.image.blocks) // 4).hidden_states
    return states[:, -grid[0] * grid[1] :].mT.unflatten(2, grid).contiguous()  # without class token


def _lico(clip, pair, examples, seed):
    """Train a classifier on the examples, and draw its Grad-CAM of the kind that the prompt names."""
    kinds = sorted(set(examples.labels()))

    def train():
        input_ids, mask, _ = to_tokens(clip, [to_prompt(kind) for kind in kinds])
        tokens = clip.text.split(input_ids, len(clip.text.blocks), mask).hidden_states
        inputs = embed_in_parts(lambda x: features(clip, x), examples.pixel_values())
        labels = torch.tensor([kinds.index(kind) for kind in examples.labels()], device=inputs.device)
        return lico.train(inputs, labels, tokens, mask, seed=seed)

    model = examples.once(("lico", seed), train)
    inputs = features(clip, pair.pixel_values)
    logits = model(inputs)[1]
    label = logits.argmax(1)
    if pair.kind in kinds:
        label = torch.full_like(label, kinds.index(pair.kind))
    scores, logit = lico.gradcam(model, inputs, label)
    difference = logit - model.head.bias[label]  # from features that are zero
    note = f"of the class {kinds[int(label)]}"
    return Explanation([of_map(scores)], [(float(scores.sum()), float(difference))], model, scores[0], note)


SYSTEMS = {
    "COCOA": System(explain_by_cocoa),
    "TEXTSPAN": System(_textspan),
    "Hossain et al.": System(_exemplars),
    "LICO": System(_lico, "objects"),
    "FALCON": System(_falcon),
    "M2IB": System(method("m2ib", later=1)),
    "NIB": System(method("nib")),
}
