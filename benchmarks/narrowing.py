"""Time NIB against the plain loop that a first implementation is.

    python -m benchmarks.narrowing                    # ViT-B/32 geometry, random weights, 2 threads
    python -m benchmarks.narrowing --device cuda --dtype bfloat16

The plain loop runs the prefix once, then the steps one after another with `.backward()` through the
suffix, parameters requiring gradients, and the texts one by one. Both run in one process, in turns.
Writes benchmarks/narrowing.csv and prints medians and the ratio with the range over repeats.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity
from tqdm import trange
from transformers import CLIPConfig, CLIPModel

import nib


def make_clip(device: str, dtype: str) -> nib.HookedCLIP:
    """Build a CLIP of ViT-B/32's geometry with random weights."""
    torch.manual_seed(0)
    config = CLIPConfig(projection_dim=512)
    config.text_config.eos_token_id = 49407
    return nib.HookedCLIP(CLIPModel(config).to(device, getattr(torch, dtype)))


def make_pairs(clip: nib.HookedCLIP, pairs: int) -> dict:
    """Draw random pictures, and captions of 8 to 16 tokens, padded."""
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(pairs, 3, clip.image_size, clip.image_size, generator=generator)
    input_ids = torch.full((pairs, 16), 49407)
    lengths = torch.randint(8, 17, (pairs,), generator=generator)
    for row, length in zip(input_ids, lengths):
        row[: length - 1] = torch.randint(1000, 40000, (int(length) - 1,), generator=generator)
    attention_mask = (torch.arange(16) < lengths[:, None]).long()
    tensors = dict(pixel_values=pixel_values.to(clip.dtype), input_ids=input_ids, attention_mask=attention_mask)
    return {name: tensor.to(clip.device) for name, tensor in tensors.items()}


def plain_suffix(split, z):
    """Run the model's own blocks, the last one too, and pool."""
    args, kwargs = split.arguments
    for block in split.tower.blocks[split.layer :]:
        z = block(z, *args, **kwargs)
    return split.tower.projection(split.tower.norm(z[torch.arange(len(z)), split.pool_index]))


def plain_side(split, target, n_steps):
    """Run the steps one after another for one tower."""
    scores = torch.zeros(split.hidden_states.shape[:2], device=target.device)
    for step in range(1, n_steps + 1):
        z = (split.hidden_states * step / n_steps).requires_grad_()
        cosine_similarity(plain_suffix(split, z), target).sum().backward()
        scores += (split.hidden_states * z.grad).sum(-1) / n_steps
    return scores


def plain_loop(clip, pixel_values, input_ids, attention_mask, layer, n_steps):
    """Explain a batch of pairs the plain way."""
    clip.model.requires_grad_(True)
    image = clip.image.split(pixel_values, layer)
    texts = [
        clip.text.split(ids[None, : mask.sum()], layer, mask[None, : mask.sum()])
        for ids, mask in zip(input_ids, attention_mask)
    ]
    with torch.no_grad():
        image_embeds = plain_suffix(image, image.hidden_states)
        text_embeds = torch.cat([plain_suffix(text, text.hidden_states) for text in texts])
    image_scores = plain_side(image, text_embeds, n_steps)
    text_scores = [plain_side(text, image_embeds[i : i + 1], n_steps) for i, text in enumerate(texts)]
    clip.model.zero_grad(set_to_none=True)
    clip.model.requires_grad_(False)
    return image_scores, text_scores


def timed(clip, function) -> tuple[float, object]:
    start = time.perf_counter()
    result = function()
    if clip.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def main(args) -> None:
    torch.set_num_threads(args.threads)
    clip = make_clip(args.device, args.dtype)
    pairs = make_pairs(clip, args.pairs)
    options = dict(layer=args.layer, n_steps=args.n_steps)
    rows = []
    for repeat in trange(-1, args.repeats, desc="repeats"):  # the first one warms up
        plain, (image_scores, text_scores) = timed(clip, lambda: plain_loop(clip, **pairs, **options))
        ours, scores = timed(clip, lambda: nib.METHODS["nib"](clip, **pairs, **options, batch_size=args.batch_size))
        if repeat >= 0:
            rows.append(dict(repeat=repeat, plain_seconds=plain, nib_seconds=ours, ratio=plain / ours))
    error = float((image_scores[:, 1:] - scores.image.flatten(1)).abs().max() / image_scores.abs().max())
    text_error = max(
        float((plain - ours[: plain.shape[1]]).abs().max() / plain.abs().max())
        for plain, ours in zip(text_scores, scores.text)
    )
    frame = pd.DataFrame(rows).assign(device=args.device, dtype=args.dtype, threads=args.threads, pairs=args.pairs)
    frame.assign(**options).to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(f"{args.pairs} pairs, layer {args.layer}, {args.n_steps} steps, {args.threads} threads, {args.device}")
    print(f"plain {frame.plain_seconds.median():.3f} s, nib {frame.nib_seconds.median():.3f} s")
    print(f"ratio {np.median(frame.ratio):.2f} ({frame.ratio.min():.2f} to {frame.ratio.max():.2f})")
    print(f"largest difference relative to the largest score: image {error:.1e}, text {text_error:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--layer", type=int, default=9)
    parser.add_argument("--n-steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    main(parser.parse_args())
