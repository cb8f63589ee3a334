"""Check on one model that everything `nib` relies on is exact: `python -m nib.verify MODEL`.

    python -m nib.verify                                              # the embedded model
    python -m nib.verify google/siglip2-base-patch16-224 --image photo.jpg --text "a red car"
    python -m nib.verify path/to/model --json

Exports `verify` and `integrate_plainly`. The exit code is 1 when a check fails. Sums are compared in float64.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import nib
from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.inputs import to_pixel_values, to_tokens
from nib.integrate import integrate
from nib.towers import Tower

EXACT = 1e-8  # in cosine units, float64
CAPTUM = 1e-6  # captum keeps its nodes in float32
CAPTIONS = ["a dog next to a dog on the grass", "a cat", "a red bus in the snow"]


def verify(clip: HookedCLIP, picture=None, text: str | None = None, n_steps: int = 10) -> list[dict]:
    """Run all checks, on a float64 copy of the model's numbers.

        rows = verify(nib.load())
        assert all(row["passed"] for row in rows)

    Args:
        clip: a model; it is in its own precision again afterwards.
        picture: a picture to check with; None for noise.
        text: a caption; None for three of unequal length, one with a repeated word.

    Returns:
        For each check its `check`, the `value` measured, the `limit` that it must keep, and whether it `passed`.
    """
    if not isinstance(clip, HookedCLIP):
        raise TypeError(f"clip must be what nib.load or nib.HookedCLIP gives, got {type(clip).__name__}")
    check_count("n_steps", n_steps, 2, limit="nodes")  # captum takes no fewer
    if text is not None and clip.tokenizer is None:
        raise ValueError("text needs a tokenizer, and this model came without: pass processor=, or no text")
    training = [module for module in clip.model.modules() if module.training]
    clip.model.eval()
    with torch.inference_mode(False), torch.enable_grad():
        rows = _run_checks(clip, picture, text, n_steps)
    for module in training:
        module.training = True
    return rows


def _run_checks(clip: HookedCLIP, picture, text: str | None, n_steps: int) -> list[dict]:
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    rows, dtype, hooks = [], clip.dtype, _count_hooks(clip)

    def add(check: str, value: float, limit: float) -> None:
        rows.append({"check": check, "value": float(value), "limit": limit, "passed": bool(value <= limit)})

    clip.model.double()
    try:
        pixel_values, input_ids, attention_mask = _make_inputs(clip, picture, text)
        _check_suffix(clip, pixel_values, input_ids, attention_mask, add)
        _check_integral(clip, pixel_values, input_ids, attention_mask, n_steps, add)
        _check_batches(clip, pixel_values, input_ids, attention_mask, add)
        _check_completeness(clip, pixel_values, input_ids, attention_mask, add)
    finally:
        clip.model.to(dtype)
    after = clip.model.state_dict()
    same = (after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())
    add("weights changed", sum(not each for each in same), 0)
    add("hooks left behind", _count_hooks(clip) - hooks, 0)
    inputs = pixel_values[:1].to(dtype), input_ids[:1], attention_mask[:1]
    nib.METHODS["nib"](clip, *inputs, n_steps=n_steps)
    started = time.perf_counter()
    nib.METHODS["nib"](clip, *inputs, n_steps=n_steps)
    add(f"seconds a pair, {str(dtype).removeprefix('torch.')}", time.perf_counter() - started, float("inf"))
    return rows


def _count_hooks(clip: HookedCLIP) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in clip.model.modules())


def _make_inputs(clip: HookedCLIP, picture, text: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return three pairs: pictures, token ids and their mask."""
    if picture is not None:
        pixel_values = to_pixel_values(clip, picture).expand(3, -1, -1, -1)
    else:
        side = clip.image_size
        noise = torch.randn(3, clip.image.channels, side, side, generator=torch.Generator().manual_seed(0))
        pixel_values = noise.to(clip.device, clip.dtype)
    if clip.tokenizer is not None:
        captions = CAPTIONS if text is None else [text, CAPTIONS[0], CAPTIONS[1]]
        input_ids, attention_mask, _ = to_tokens(clip, captions, truncate=True)
        return pixel_values, input_ids, attention_mask
    # Without a tokenizer: ids that no rule takes for begin, end or padding, between the ids that it does.
    padding, end = clip.text.padding_id, clip.text.vocabulary - 1
    if not clip.text.sees_padding:  # in a row of all ids the end's place is its id
        end = int(clip.text.find_end(torch.arange(end + 1, device=clip.device)[None]))
    longest = clip.context_length if clip.text.sees_padding else min(12, clip.context_length)
    input_ids = torch.full((3, longest), padding, device=clip.device)
    attention_mask = torch.zeros_like(input_ids)
    for row, length in enumerate((min(10, longest), 3, 6)):
        words = torch.arange(length, device=clip.device) % 5 + 5
        words[-1] = end
        input_ids[row, :length], attention_mask[row, :length] = words, 1
    return pixel_values, input_ids, attention_mask


def _sides(clip: HookedCLIP, pixel_values, input_ids, attention_mask) -> Iterator[tuple]:
    """Name each side, and give its tower, inputs and mask."""
    yield "picture", clip.image, pixel_values, None
    yield "text", clip.text, input_ids, attention_mask


def _check_suffix(clip, pixel_values, input_ids, attention_mask, add: Callable) -> None:
    """The tower, cut and joined, is the model's own forward, at several layers."""
    for side, tower, inputs, mask in _sides(clip, pixel_values, input_ids, attention_mask):
        own = tower.embed(inputs, mask)
        blocks = len(tower.blocks)
        for layer in sorted({0, blocks // 2, tower.default_layer, blocks - 1, blocks}):
            split = tower.split(inputs, layer, mask)
            error = (split(split.hidden_states) - own).norm(dim=-1) / own.norm(dim=-1)
            add(f"{side}: cut before block {layer} and joined, relative error", error.max(), EXACT)


@contextmanager
def _narrow(tower: Tower, layer: int, node: float) -> Iterator[list[Tensor]]:
    """Multiply what enters a block by `node`, in the model's own forward; the list gets z and then node z."""
    kept: list[Tensor] = []

    def narrow(module, args, kwargs):
        z = args[0] if args else kwargs["hidden_states"]
        kept.extend((z.detach(), (node * z.detach()).requires_grad_()))
        return ((kept[1], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": kept[1]})

    handle = tower.blocks[layer].register_forward_pre_hook(narrow, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


def integrate_plainly(tower: Tower, inputs, mask, targets, layer: int, n_steps: int) -> Tensor:
    """Sum z . dF(lambda z) over right Riemann nodes by autograd in the model's own forward: (batch, tokens)."""
    total = torch.zeros((), dtype=targets.dtype, device=targets.device)
    for step in range(1, n_steps + 1):
        with _narrow(tower, layer, step / n_steps) as kept, torch.enable_grad():
            similarity = cosine_similarity(tower.embed(inputs, mask), targets)
        (gradient,) = torch.autograd.grad(similarity.sum(), kept[1])
        total = total + (kept[0] * gradient).sum(-1) / n_steps
    return total


def _check_integral(clip, pixel_values, input_ids, attention_mask, n_steps: int, add: Callable) -> None:
    """NIB is captum's integrated gradients on the suffix, and a sum in the model's own forward without any suffix."""
    from captum.attr import IntegratedGradients  # takes a second, which `import nib` should not

    embeds = {"picture": clip.image.embed(pixel_values), "text": clip.text.embed(input_ids, attention_mask)}
    for side, tower, inputs, mask in _sides(clip, pixel_values, input_ids, attention_mask):
        targets = embeds["text" if side == "picture" else "picture"]
        split = tower.split(inputs, None, mask)
        found, _ = integrate(split, targets[:, None], n_steps)
        plain = integrate_plainly(tower, inputs, mask, targets, split.layer, n_steps)
        add(f"{side}: NIB less a hook in the model's own forward, largest", (found[:, 0] - plain).abs().max(), EXACT)
        one, goal = split[:1], targets[:1]
        explain = IntegratedGradients(lambda z, one=one, goal=goal: cosine_similarity(one(z), goal.expand(len(z), -1)))
        rule = dict(baselines=0.0, method="riemann_right", n_steps=n_steps, internal_batch_size=n_steps)
        by_captum = explain.attribute(one.hidden_states, **rule).sum(-1)
        add(f"{side}: NIB less captum's integrated gradients, largest", (found[:1, 0] - by_captum).abs().max(), CAPTUM)


def _check_batches(clip, pixel_values, input_ids, attention_mask, add: Callable) -> None:
    """A batch gives what single pairs give, and padding changes nothing, unless the model sees it."""
    explain = nib.METHODS["nib"]
    together = explain(clip, pixel_values, input_ids, attention_mask, n_steps=3)
    error, padding = 0.0, 0.0
    for row in range(len(input_ids)):
        length = input_ids.shape[1] if clip.text.sees_padding else int(attention_mask[row].sum())
        own = slice(row, row + 1)
        single = explain(clip, pixel_values[own], input_ids[own, :length], attention_mask[own, :length], n_steps=3)
        error = max(error, float((single.image - together.image[own]).abs().max()))
        padding = max(padding, float((single.text - together.text[own, :length]).abs().max()))
    add("a batch less single pairs, picture, largest", error, EXACT)
    if clip.text.sees_padding:
        add("a batch less single pairs, text (the model sees its padding, and it has scores), largest", padding, EXACT)
    else:
        add("padded captions less captions without padding, largest", padding, EXACT)


def _check_completeness(clip, pixel_values, input_ids, attention_mask, add: Callable) -> None:
    """The gap of Theorem 3 falls where more nodes look at the path."""
    for side in ("image", "text"):
        gaps = []
        for n_steps in (8, 256):
            options = dict(n_steps=n_steps, quadrature="gausslegendre", lambda_min=0.1)
            scores = nib.METHODS["nib"](clip, pixel_values, input_ids, attention_mask, **options)
            gaps.append(float(getattr(scores, f"{side}_gap").abs().max()))
        name = "picture" if side == "image" else side
        add(f"{name}: gap on [0.1, 1] with 256 nodes", gaps[1], max(1e-6, 0.5 * gaps[0]))


def main(arguments: list[str] | None = None) -> int:
    """Check a model, print the table, and return 1 where anything failed."""
    parser = argparse.ArgumentParser("python -m nib.verify", description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", help="a hub id, folder or state dict; default: the embedded model")
    parser.add_argument("--image", type=Path, help="a picture to check with; default: noise")
    parser.add_argument("--text", help="a caption to check with")
    parser.add_argument("--processor", help="a hub id or folder whose tokenizer serves a model without one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    args = parser.parse_args(arguments)
    try:
        clip = nib.load(args.model, args.device, processor=args.processor)
        rows = verify(clip, args.image, args.text)
    except (ValueError, TypeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if args.json:
        numbers = [{name: _to_json(value) for name, value in row.items()} for row in rows]
        print(json.dumps(numbers, indent=1, allow_nan=False))
    else:
        for row in rows:
            limit = "" if np.isinf(row["limit"]) else f"(at most {row['limit']:.1e})"
            print(f"{'ok  ' if row['passed'] else 'FAIL'}  {row['check']:90} {row['value']:.2e} {limit}")
    return int(not all(row["passed"] for row in rows))


def _to_json(value):
    """Return a value that JSON holds: null for NaN and infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
