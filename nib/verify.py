"""Check on one model that everything `nib` relies on is exact: `python -m nib.verify MODEL`.

    python -m nib.verify                                              # the embedded model
    python -m nib.verify google/siglip2-base-patch16-224 --image photo.jpg --text "a red car"
    python -m nib.verify path/to/model --json

The exit code is 1 when a check fails.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
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
Inputs = tuple[Tensor, Tensor, Tensor]  # pixel values, token ids and their mask
Found = Iterator[tuple[str, float, float]]  # what is checked, the value measured and its limit


def verify(clip: HookedCLIP, picture=None, text: str | None = None, n_steps: int = 10) -> list[dict]:
    """Run all checks, with the model cast to float64 and back.

        rows = verify(nib.load())
        assert all(row["passed"] for row in rows)

    Args:
        picture: a picture to check with; None for noise.
        text: a caption; None for three of unequal length, one with a repeated word.
        n_steps: nodes of the path, at least 2.

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
    try:
        with torch.inference_mode(False), torch.enable_grad():
            found = list(_run_checks(clip, picture, text, n_steps))
    finally:
        for module in training:
            module.training = True
    return [
        {"check": check, "value": float(value), "limit": limit, "passed": bool(value <= limit)}
        for check, value, limit in found
    ]


def _run_checks(clip: HookedCLIP, picture, text: str | None, n_steps: int) -> Found:
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    dtype, hooks = clip.dtype, _count_hooks(clip)
    clip.model.double()
    try:
        inputs = _make_inputs(clip, picture, text)
        yield from _check_suffix(clip, inputs)
        yield from _check_integral(clip, inputs, n_steps)
        yield from _check_batches(clip, *inputs)
        yield from _check_completeness(clip, inputs)
    finally:
        clip.model.to(dtype)
    after = clip.model.state_dict()
    same = (after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())
    yield "weights changed", sum(not each for each in same), 0
    yield "hooks left behind", _count_hooks(clip) - hooks, 0
    pixel_values, *caption = (values[:1] for values in inputs)
    for _ in range(2):  # the first call warms up
        started = time.perf_counter()
        nib.METHODS["nib"](clip, pixel_values.to(dtype), *caption, n_steps=n_steps)
    yield f"seconds a pair, {str(dtype).removeprefix('torch.')}", time.perf_counter() - started, float("inf")


def _count_hooks(clip: HookedCLIP) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in clip.model.modules())


def _make_inputs(clip: HookedCLIP, picture, text: str | None) -> Inputs:
    """Return three pairs."""
    if picture is not None:
        pixel_values = to_pixel_values(clip, picture).expand(3, -1, -1, -1)
    else:
        side = clip.image.image_size
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


def _sides(clip: HookedCLIP, inputs: Inputs) -> list[tuple]:
    """Name each side, and give its tower, inputs and mask."""
    return [("picture", clip.image, inputs[0], None), ("text", clip.text, *inputs[1:])]


def _check_suffix(clip: HookedCLIP, inputs: Inputs) -> Found:
    """The tower, cut and joined, is the model's own forward, at several layers."""
    for side, tower, values, mask in _sides(clip, inputs):
        own = tower.embed(values, mask)
        blocks = len(tower.blocks)
        for layer in sorted({0, blocks // 2, tower.default_layer, blocks - 1, blocks}):
            split = tower.split(values, layer, mask)
            error = (split(split.hidden_states) - own).norm(dim=-1) / own.norm(dim=-1)
            yield f"{side}: cut before block {layer} and joined, relative error", error.max(), EXACT


def integrate_plainly(tower: Tower, inputs, mask, targets, layer: int, n_steps: int) -> Tensor:
    """Sum z . dF(lambda z) over right Riemann nodes by autograd in the model's own forward: (batch, tokens)."""
    total = torch.zeros((), dtype=targets.dtype, device=targets.device)
    for step in range(1, n_steps + 1):
        kept: list[Tensor] = []  # z and lambda z

        def narrow(module, args, kwargs, kept=kept, node=step / n_steps):
            z = args[0] if args else kwargs["hidden_states"]
            kept.extend((z.detach(), (node * z.detach()).requires_grad_()))
            return ((kept[1], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": kept[1]})

        with tower.blocks[layer].register_forward_pre_hook(narrow, with_kwargs=True), torch.enable_grad():
            similarity = cosine_similarity(tower.embed(inputs, mask), targets)
        (gradient,) = torch.autograd.grad(similarity.sum(), kept[1])
        total = total + (kept[0] * gradient).sum(-1) / n_steps
    return total


def _check_integral(clip: HookedCLIP, inputs: Inputs, n_steps: int) -> Found:
    """NIB is captum's integrated gradients on the suffix, and a sum in the model's own forward without any suffix."""
    from captum.attr import IntegratedGradients  # takes a second, which `import nib` should not

    sides = _sides(clip, inputs)
    embeds = [tower.embed(values, mask) for _, tower, values, mask in sides]
    for (side, tower, values, mask), targets in zip(sides, reversed(embeds)):
        split = tower.split(values, None, mask)
        found, _ = integrate(split, targets[:, None], n_steps)
        plain = integrate_plainly(tower, values, mask, targets, split.layer, n_steps)
        yield f"{side}: NIB less a hook in the model's own forward, largest", (found[:, 0] - plain).abs().max(), EXACT
        one, goal = split[:1], targets[:1]
        explain = IntegratedGradients(lambda z, one=one, goal=goal: cosine_similarity(one(z), goal.expand(len(z), -1)))
        rule = dict(baselines=0.0, method="riemann_right", n_steps=n_steps, internal_batch_size=n_steps)
        by_captum = explain.attribute(one.hidden_states, **rule).sum(-1)
        yield f"{side}: NIB less captum's integrated gradients, largest", (found[:1, 0] - by_captum).abs().max(), CAPTUM


def _check_batches(clip: HookedCLIP, pixel_values, input_ids, attention_mask) -> Found:
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
    yield "a batch less single pairs, picture, largest", error, EXACT
    what = "padded captions less captions without padding, largest"
    if clip.text.sees_padding:
        what = "a batch less single pairs, text (the model sees its padding, and it has scores), largest"
    yield what, padding, EXACT


def _check_completeness(clip: HookedCLIP, inputs: Inputs) -> Found:
    """The gap of Theorem 3 falls where more nodes look at the path."""
    options = dict(quadrature="gausslegendre", lambda_min=0.1)
    few, many = (nib.METHODS["nib"](clip, *inputs, n_steps=n_steps, **options) for n_steps in (8, 256))
    for side, name in (("image_sums", "picture"), ("text_sums", "text")):
        before, after = (float(getattr(scores, side).gap.abs().max()) for scores in (few, many))
        yield f"{name}: gap on [0.1, 1] with 256 nodes", after, max(1e-6, 0.5 * before)


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
        for row in rows:  # JSON holds no NaN and no infinity
            row |= {name: row[name] if np.isfinite(row[name]) else None for name in ("value", "limit")}
        print(json.dumps(rows, indent=1, allow_nan=False))
    else:
        for row in rows:
            limit = "" if np.isinf(row["limit"]) else f"(at most {row['limit']:.1e})"
            print(f"{'ok  ' if row['passed'] else 'FAIL'}  {row['check']:90} {row['value']:.2e} {limit}")
    return int(not all(row["passed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
