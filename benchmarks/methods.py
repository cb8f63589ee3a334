"""Time each method against the plain form that a first implementation is.

    python -m benchmarks.methods                    # ViT-B/32 geometry, random weights, 2 threads
    python -m benchmarks.methods --methods m2ib rise --repeats 5

The plain forms take one pair at a time, unpadded, and run both towers in full wherever the method
needs a gradient, with parameters that require gradients: as one writes it on top of `CLIPModel`.
M2IB runs both towers on all noise copies at each step, for each modality. RISE and MFABA run only the
tower that they explain. Both forms run in one process, in turns; the plain one on `--plain-pairs`
pairs, ours on `--pairs` at once, and seconds are per pair. RISE runs `--masks` masks instead of 6000,
and as many fewer for the caption, in the same batches in both forms.
Writes benchmarks/methods.csv and prints medians and the ratio with the range over repeats.
"""

import argparse
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

import nib
from benchmarks.contenders import make_clip, make_pairs, timed
from nib.methods.m2ib import draw_noise
from nib.methods.rise import draw_image_masks, draw_text_masks


@contextmanager
def hooked(*pairs):
    """Hook modules while the `with` lasts."""
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def towers(model):
    return model.vision_model, model.text_model


def run(model, pixel_values, input_ids):
    """Return the cosine of a pair by the whole model."""
    output = model(pixel_values=pixel_values, input_ids=input_ids)
    return cosine_similarity(output.image_embeds, output.text_embeds)


def plain_states(model, pixel_values, input_ids, args):
    """Grad-CAM: keep the output of a block and its gradient."""
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    with hooked(*((tower.encoder.layers[args.layer - 1], keep) for tower in towers(model))):
        run(model, pixel_values, input_ids).sum().backward()
    return [(states * states.grad).sum(-1).clamp(min=0).detach() for states in kept]


def plain_attention(model, pixel_values, input_ids, args):
    """Chefer, saliency, FastIG: keep the last attention and its gradient."""
    kept = []

    def keep(module, inputs, output):
        output[1].retain_grad()
        kept.append(output[1])

    model.set_attn_implementation("eager")
    with hooked(*((tower.encoder.layers[-1].self_attn, keep) for tower in towers(model))):
        (model.logit_scale.exp() * run(model, pixel_values, input_ids)).sum().backward()
    model.set_attn_implementation("sdpa")
    return [(a * a.grad).mean(1).detach()[:, row] for a, row in zip(kept, (0, -1))]


def plain_inputs(model, pixel_values, input_ids, args):
    """Pixel gradient, input times gradient: keep the token embeddings too."""
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    pixel_values = pixel_values.clone().requires_grad_()
    with hooked((model.text_model.embeddings.token_embedding, keep)):
        run(model, pixel_values, input_ids).sum().backward()
    return (pixel_values * pixel_values.grad).sum(1).detach(), (kept[0] * kept[0].grad).sum(-1).detach()


def plain_mfaba(model, pixel_values, input_ids, args):
    """Step from the embeddings of each tower, the other embedding fixed."""
    image_embeds = model.get_image_features(pixel_values=pixel_values).pooler_output.detach()
    text_embeds = model.get_text_features(input_ids=input_ids).pooler_output.detach()
    sides = (
        (model.vision_model.embeddings, model.get_image_features, dict(pixel_values=pixel_values), text_embeds),
        (model.text_model.embeddings, model.get_text_features, dict(input_ids=input_ids), image_embeds),
    )
    scores = []
    for module, encode, inputs, target in sides:
        x, total = module(**inputs).detach(), 0
        for _ in range(args.n_steps):
            x.requires_grad_()
            with hooked((module, lambda module, inputs, output, x=x: x)):
                cosine_similarity(encode(**inputs).pooler_output, target).sum().backward()
            change = -0.01 * x.grad.sign()
            total = total - (change * x.grad).sum(-1)
            x = (x + change).detach()
        scores.append(total)
    return scores


@torch.no_grad()
def plain_rise(model, pixel_values, input_ids, args):
    """Mask pixels, then token embeddings, in batches."""
    image_embeds = model.get_image_features(pixel_values=pixel_values).pooler_output
    text_embeds = model.get_text_features(input_ids=input_ids).pooler_output
    masks = torch.cat(list(draw_image_masks(args.masks, 8, 0.1, pixel_values.shape[-2:], 0, args.batch_size)))
    masks = masks.to(pixel_values)
    embeds = [
        model.get_image_features(pixel_values=pixel_values * part[:, None]).pooler_output
        for part in masks.split(args.batch_size)
    ]
    image = torch.einsum("m,mhw->hw", cosine_similarity(torch.cat(embeds), text_embeds), masks) / args.masks / 0.1
    tokens = input_ids.shape[1]
    masks = draw_text_masks(args.text_masks, [tokens], 1, 0.1, 0, 8, tokens)[:, 0].to(
        pixel_values
    )  # (masks, tokens, 1)
    embeds = []
    for part in masks.split(args.batch_size):
        with hooked((model.text_model.embeddings.token_embedding, lambda m, i, output, part=part: output * part)):
            embeds.append(model.get_text_features(input_ids=input_ids.expand(len(part), -1)).pooler_output)
    return image, torch.einsum(
        "m,mtw->t", cosine_similarity(torch.cat(embeds), image_embeds), masks
    ) / args.text_masks / 0.1


def plain_m2ib(model, pixel_values, input_ids, args):
    """Fit each bottleneck through both whole towers, on 10 copies at each step."""
    scores = []
    for tower in towers(model):
        block, kept = tower.encoder.layers[args.layer - 1], []
        with torch.no_grad(), hooked((block, lambda module, inputs, output, kept=kept: kept.append(output))):
            run(model, pixel_values, input_ids)
        z = kept[0]
        alpha = torch.full_like(z, 5.0).requires_grad_()
        optimiser = torch.optim.Adam([alpha], lr=1)
        for noise in draw_noise(z, args.n_steps, 10, 0)[:-1]:  # the last pass changes nothing any more
            passed = alpha.sigmoid()

            def mix(module, inputs, output, passed=passed, noise=noise):
                return passed * output + (1 - passed) * noise

            with hooked((block, mix)):
                similarity = run(model, pixel_values.expand(10, -1, -1, -1), input_ids.expand(10, -1))
            optimiser.zero_grad()
            (0.1 * divergence(alpha, z).mean() - similarity.mean()).backward()
            optimiser.step()
        scores.append(divergence(alpha, z).sum(-1).detach())
    return scores


def divergence(alpha, z):
    left, passed = (-alpha).sigmoid(), alpha.sigmoid()
    return -left.log() + (left**2 + (passed * z) ** 2 - 1) / 2


PLAIN = {
    "m2ib": plain_m2ib,
    "rise": plain_rise,
    "gradcam": plain_states,
    "chefer": plain_attention,
    "saliency": plain_attention,
    "mfaba": plain_mfaba,
    "fast_ig": plain_attention,
    "pixel_gradient": plain_inputs,
    "input_x_gradient": plain_inputs,
}


def time_plain(clip, method, batch, args) -> float:
    """Time the plain form: seconds a pair."""
    clip.model.requires_grad_(True)
    seconds = 0.0
    for row in range(args.plain_pairs):
        ids = batch["input_ids"][row : row + 1, : batch["attention_mask"][row].sum()]
        pixels = batch["pixel_values"][row : row + 1]
        seconds += timed(clip, lambda ids=ids, pixels=pixels: PLAIN[method](clip.model, pixels, ids, args))[0]
        clip.model.zero_grad(set_to_none=True)
    clip.model.requires_grad_(False)
    return seconds / args.plain_pairs


def time_ours(clip, method, batch, args) -> float:
    """Time `nib`: seconds a pair."""
    options = dict(batch_size=args.batch_size)
    if method in ("m2ib", "gradcam"):
        options["layer"] = args.layer
    if method in ("m2ib", "mfaba"):
        options["n_steps"] = args.n_steps
    if method == "rise":
        options |= dict(n_masks=args.masks, text_masks=args.text_masks)
    seconds, _ = timed(clip, lambda: nib.METHODS[method](clip, **batch, **options))
    return seconds / len(batch["input_ids"])


def main(args) -> None:
    torch.set_num_threads(args.threads)
    clip = make_clip(args.device, args.dtype)
    batch = make_pairs(clip, args.pairs)
    rows = []
    for repeat in range(-1, args.repeats):  # the first one warms up
        for method in tqdm(args.methods, desc=f"repeat {repeat}"):
            if repeat < 0 and method in ("m2ib", "rise"):
                continue  # long enough to need no warming up
            plain, ours = time_plain(clip, method, batch, args), time_ours(clip, method, batch, args)
            if repeat >= 0:
                rows.append(dict(method=method, repeat=repeat, plain_seconds=plain, nib_seconds=ours))
    frame = pd.DataFrame(rows).assign(ratio=lambda frame: frame.plain_seconds / frame.nib_seconds)
    settings = dict(pairs=args.pairs, layer=args.layer, n_steps=args.n_steps, masks=args.masks)
    settings |= dict(batch_size=args.batch_size, device=args.device, dtype=args.dtype, threads=args.threads)
    frame = frame.assign(**settings)
    frame.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    table = frame.groupby("method", sort=False)[["plain_seconds", "nib_seconds", "ratio"]].median()
    table["lowest"], table["highest"] = frame.groupby("method").ratio.min(), frame.groupby("method").ratio.max()
    lengths = batch["attention_mask"].sum(1).tolist()
    print(
        f"{args.pairs} pairs, captions of {lengths} tokens, layer {args.layer}, {args.threads} threads, {args.device}"
    )
    print(f"medians of {args.repeats} repeats, seconds a pair; {args.n_steps} steps, RISE with {args.masks} masks")
    print(table.to_string(float_format="%.3f"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(PLAIN), choices=list(PLAIN))
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--plain-pairs", type=int, default=1)
    parser.add_argument("--layer", type=int, default=10, help="of M2IB and Grad-CAM")
    parser.add_argument("--n-steps", type=int, default=10, help="of M2IB and MFABA")
    parser.add_argument("--masks", type=int, default=64, help="of RISE, for the picture; the paper takes 6000")
    parser.add_argument("--text-masks", type=int, default=2, help="of RISE, for the caption; the paper takes 200")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    main(parser.parse_args())
