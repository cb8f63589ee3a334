"""Train the embedded CLIP on composed scenes, from nothing.

    python -m data.mini_clip.train                      # on the CPU, resumes where it stopped
    python -m data.mini_clip.train --device cuda --scale 4   # the same plan with four times the steps

The model has ViT-B/32's geometry (224 pixels, patches of 32, 12 + 12 blocks) at a small width. Three things make
two processor cores enough:

- It *grows*: 3 + 3 blocks, then 6 + 6, then 12 + 12. A new block stands between two old ones, with fresh weights and
  output projections of zero: the function is unchanged, and no block is the copy of another.
- *Objects first*: a batch begins with one scene of each of many kinds alone. Their share falls from stage to stage.
- Muon for the matrices of the blocks, AdamW for the rest; patches start at their principal components.

Trained so, the class token has read all it needs by block 7, and later blocks hardly look at a patch. In the *last
stage* half of the pictures lose their class token on the way: before a block drawn from 7 to 11 it becomes the mean of
the batch, so that only patches still say what is in the picture, and late blocks learn to read them.

A step's batch is a pure function of the seed and the step, so a resumed run draws what an uninterrupted one would have.
"""

import argparse
import contextlib
import copy
import csv
import math
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from data.mini_clip.tokenizer import CONTEXT_LENGTH, build_tokenizer
from data.scenes.aerial import aerial_caption, draw_aerial
from data.scenes.backgrounds import Backgrounds
from data.scenes.build import read_captions
from data.scenes.grammar import caption, object_caption, short_caption
from data.scenes.scenes import SIZE, draw_scene
from data.scenes.stamps import read_kinds

HERE = Path(__file__).parent
WIDTH, HEADS, PATCH = 128, 4, 32
AERIAL_SHARE, SHORT_SHARE = 0.35, 0.12  # of the scenes that are not of one object alone
WARM_UP = 60  # steps, after each growth
MUON_RATE, ADAM_RATE, DECAY = 3e-3, 1.5e-3, 0.05
LOG_FIELDS = ["step", "depth", "minutes", "loss", "batch_accuracy", "rate"]


class Stage(NamedTuple):
    """`steps` steps at `depth` blocks a tower.

    `alone` is the share of scenes of one object in a batch, `forget` that of pictures that lose their class token.
    """

    depth: int
    steps: int
    alone: float
    forget: float = 0.0


PLAN = (Stage(3, 700, 0.8), Stage(3, 450, 0.5), Stage(6, 1200, 0.45), Stage(12, 2500, 0.4), Stage(12, 800, 0.4, 0.5))
COOLING = 0.4  # the last part of the steps, in which the rate falls to zero; the last stage has its own
LAST_PEAK = 0.5  # of the rate in the last stage
FORGET_BEFORE = (7, 12)  # the class token is lost before one of these blocks; the end is not included


class Batches(Dataset):
    """Batch number `step`, composed when asked for: uint8 pictures and one caption each.

    Captions of the evaluation splits are never used, but for the prompts of single objects; a scene that can only be
    described by one of them is composed again.
    """

    def __init__(self, seed: int, plan: list[Stage], batch_size: int):
        self.seed, self.plan, self.batch_size = seed, plan, batch_size
        self.kinds = [row["name"] for row in read_kinds()]
        self.backgrounds = Backgrounds(seed, variants=10)
        self.held_out = read_captions()

    def __len__(self):
        return sum(stage.steps for stage in self.plan)

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        n_alone = int(stage_at(self.plan, step).alone * self.batch_size)
        alone = [str(name) for name in np.resize(rng.permutation(self.kinds), n_alone)]
        pairs = [self.compose(rng, name) for name in alone + [None] * (self.batch_size - n_alone)]
        pictures, captions = zip(*pairs)
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), list(captions)

    def compose(self, rng: np.random.Generator, name: str | None = None) -> tuple[np.ndarray, str]:
        """Compose a picture and a caption: of one object alone, from above, or of several objects."""
        while True:
            if name:
                scene = draw_scene(rng, self.backgrounds, names=[name])
                if rng.random() < 0.3:
                    return np.asarray(scene.image), object_caption(name)
                write = short_caption if rng.random() < 0.4 else caption
            elif rng.random() < AERIAL_SHARE:
                scene, write = draw_aerial(rng), aerial_caption
            else:
                scene = draw_scene(rng, self.backgrounds)
                write = short_caption if rng.random() < SHORT_SHARE else caption
            for _ in range(5):
                text = write(rng, scene)
                if text not in self.held_out:
                    return np.asarray(scene.image), text


def stage_at(plan: list[Stage], step: int) -> Stage:
    """Return the stage that a step belongs to."""
    ends = np.cumsum([stage.steps for stage in plan])
    return plan[min(int(np.searchsorted(ends, step, side="right")), len(plan) - 1)]


def make_config(tokenizer, depth: int) -> CLIPConfig:
    """Return ViT-B/32's geometry at a small width."""
    shared = dict(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=depth,
        num_attention_heads=HEADS, projection_dim=WIDTH,
    )  # fmt: skip
    ids = dict(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPConfig(
        text_config=dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT_LENGTH, **ids, **shared),
        vision_config=dict(image_size=SIZE, patch_size=PATCH, **shared),
        projection_dim=WIDTH,
    )


def start_patches(model: CLIPModel, pixel_values: torch.Tensor) -> None:
    """Start the patch embedding at the leading principal components of the patches, whitened, times one half."""
    patches = torch.nn.functional.unfold(pixel_values, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    components = (vectors[:, -WIDTH:] / values[-WIDTH:].sqrt()).T  # (width, channels * patch * patch)
    with torch.no_grad():
        weight = model.vision_model.embeddings.patch_embedding.weight
        weight.copy_(0.5 * components.reshape(weight.shape))


def grow(model: CLIPModel, tokenizer, depth: int) -> CLIPModel:
    """Put a new block after every old one; its output projections are zero, so that the function is unchanged."""
    grown = CLIPModel(make_config(tokenizer, depth))
    state = grown.state_dict()
    for name, value in model.state_dict().items():
        block = re.fullmatch(r"(.*\.layers)\.(\d+)\.(.*)", name)
        if block:
            tower, index, rest = block.groups()
            state[f"{tower}.{2 * int(index)}.{rest}"] = value
            if rest.startswith(("self_attn.out_proj", "mlp.fc2")):
                state[f"{tower}.{2 * int(index) + 1}.{rest}"] = torch.zeros_like(value)
        else:
            state[name] = value
    grown.load_state_dict(state)
    return grown


def make_optimizers(model: CLIPModel) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks and AdamW for the rest; only matrices decay."""
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if not (".layers." in name and p.ndim == 2)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(groups, lr=ADAM_RATE, betas=(0.9, 0.98))]


def rate(plan: list[Stage], step: int) -> float:
    """Return the learning rate as a share of its peak.

    It is warmed up after each growth and falls to zero at the end of all stages but the last. The last stage warms up
    and falls anew, from a lower peak.
    """
    *growing, last = plan
    end = sum(stage.steps for stage in growing)
    if step >= end:
        since, left, length, peak = step - end, end + last.steps - step, last.steps, LAST_PEAK
    else:
        begins = [
            sum(s.steps for s in plan[:i]) for i, s in enumerate(growing) if i == 0 or s.depth != plan[i - 1].depth
        ]
        since, left, length, peak = step - max(b for b in begins if b <= step), end - step, end, 1.0
    return peak * min(1, (since + 1) / WARM_UP) * min(1, left / (COOLING * length))


@contextlib.contextmanager
def forget_class_token(model: CLIPModel, rng: np.random.Generator, share: float):
    """Replace the class token of a share of the pictures by the mean of the batch, before a block drawn at random."""

    def forget(block, args, kwargs):
        states = args[0] if args else kwargs["hidden_states"]  # (batch, tokens, width)
        chosen = torch.from_numpy(rng.random(len(states)) < share).to(states.device)
        tokens = torch.where(chosen[:, None], states[:, 0].mean(0), states[:, 0])
        states = torch.cat([tokens[:, None], states[:, 1:]], dim=1)
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    block = model.vision_model.encoder.layers[rng.integers(*FORGET_BEFORE)] if share else None
    hook = block.register_forward_pre_hook(forget, with_kwargs=True) if share else None
    try:
        yield
    finally:
        if hook:
            hook.remove()


def contrast(model: CLIPModel, pixel_values, input_ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the symmetric InfoNCE loss and the accuracy within the batch.

    Padding stands behind the end token, which a causal tower cannot see: no attention mask is needed.
    """
    images = normalize(model.get_image_features(pixel_values=pixel_values).pooler_output.float(), dim=-1)
    texts = normalize(model.get_text_features(input_ids=input_ids).pooler_output.float(), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T  # (batch, batch)
    right = torch.arange(len(logits), device=logits.device)
    loss = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    return loss, (logits.argmax(1) == right).float().mean()


def train_step(model, optimizers, share: float, pixel_values, input_ids) -> tuple[float, float]:
    """Take one step; return the loss and the accuracy within the batch."""
    for optimizer, peak in zip(optimizers, (MUON_RATE, ADAM_RATE)):
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = peak * share
    with torch.autocast(pixel_values.device.type, torch.bfloat16):
        loss, accuracy = contrast(model, pixel_values, input_ids)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(100))
    return loss.item(), accuracy.item()


def save_checkpoint(path: Path, **state) -> None:
    """Write beside, then move into place: a kill leaves the last whole checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def save(output: Path, model: CLIPModel, tokenizer, log: list) -> None:
    """Write weights in half precision, configuration, tokenizer, image processor and the curve."""
    output.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to("cpu", torch.float16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(output)
    with open(output / "log.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([LOG_FIELDS, *log])


def main(args) -> None:
    """Run all stages, growing on the way, from the last checkpoint if there is one."""
    plan = [stage._replace(steps=max(1, round(args.scale * stage.steps))) for stage in PLAN]
    total, path = sum(stage.steps for stage in plan), args.output / "checkpoints" / "last.pt"
    tokenizer, processor = build_tokenizer(), CLIPImageProcessor()
    batches = Batches(args.seed, plan, args.batch_size)
    mean, std = (torch.tensor(v, device=args.device).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    state, identity = None, [args.seed, args.batch_size, [list(stage) for stage in plan]]
    if path.exists():
        state = torch.load(path, map_location=args.device, weights_only=True)
        if state["identity"] != identity:
            raise ValueError(f"{path} is of a run with another seed, batch size or plan; delete it to start anew")
    torch.manual_seed(args.seed)
    first, log = (state["step"], state["log"]) if state else (0, [])
    model = CLIPModel(make_config(tokenizer, stage_at(plan, max(0, first - 1)).depth)).to(args.device)
    if state:
        model.load_state_dict(state["model"])
    else:
        pictures = torch.cat([batches[total + number][0] for number in range(3)]).to(args.device)
        start_patches(model, (pictures / 255 - mean) / std)
    optimizers = make_optimizers(model)
    for optimizer, saved in zip(optimizers, state["optimizers"] if state else []):
        optimizer.load_state_dict(saved)
    start = time.monotonic() - 60 * (log[-1][2] if log else 0)
    loader = DataLoader(batches, None, sampler=range(first, total), num_workers=args.workers, prefetch_factor=6)
    progress = tqdm(loader, initial=first, total=total, unit="step", mininterval=20)
    for step, (pictures, captions) in enumerate(progress, start=first):
        depth, forget = stage_at(plan, step).depth, stage_at(plan, step).forget
        if step == total - plan[-1].steps:
            optimizers = make_optimizers(model)
        if depth != model.config.vision_config.num_hidden_layers:
            torch.manual_seed(args.seed + depth)
            model = grow(model, tokenizer, depth).to(args.device)
            optimizers = make_optimizers(model)
        pixel_values = (pictures.to(args.device) / 255 - mean) / std
        input_ids = tokenizer(captions, padding=True, return_tensors="pt")["input_ids"].to(args.device)
        with forget_class_token(model, np.random.default_rng([args.seed, step, 1]), forget):
            loss, accuracy = train_step(model, optimizers, rate(plan, step), pixel_values, input_ids)
        if step % 20 == 0:
            minutes = (time.monotonic() - start) / 60
            log.append([step, depth, *(round(v, 5) for v in (minutes, loss, accuracy, rate(plan, step)))])
            progress.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.2f}")
        if (step + 1) % args.checkpoint_every == 0 or step + 1 == total:
            optimizer_states = [optimizer.state_dict() for optimizer in optimizers]
            save_checkpoint(
                path, model=model.state_dict(), optimizers=optimizer_states, step=step + 1, log=log, identity=identity
            )
    save(args.output, model, tokenizer, log)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the steps of every stage")
    parser.add_argument("--batch-size", type=int, default=160)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose ahead")
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of weights, curve and checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
