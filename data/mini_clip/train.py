"""Train the embedded CLIP on drawn scenes, from nothing.

    python -m data.mini_clip.train                      # on the CPU, resumes where it stopped
    python -m data.mini_clip.train --device cuda --steps 12000

The model has ViT-B/32's geometry (224 pixels, patches of 32, 12 + 12 blocks) at a small width.
It is grown: a third of the time goes to 4 + 4 blocks, then every block is repeated three times
and all 12 + 12 are trained on. In the last steps, the focus, almost half of a batch is one scene of
every kind of object alone, because scenes of several objects can be told apart without knowing
each. A step's batch is a pure function of the seed and the step, so a resumed run draws what an
uninterrupted one would have drawn.
"""

import argparse
import copy
import csv
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from data.mini_clip.tokenizer import CONTEXT_LENGTH, build_tokenizer
from data.scenes.aerial import aerial_caption, draw_aerial
from data.scenes.atlas import read_objects
from data.scenes.build import read_captions
from data.scenes.grammar import caption, short_caption
from data.scenes.scenes import SIZE, draw_scene
from data.scenes.textures import Textures

HERE = Path(__file__).parent
DEPTH, REPEATS, WIDTH = 12, 3, 128
AERIAL_SHARE, SHORT_SHARE = 0.2, 0.12
FOCUS_RATE = 0.6  # of the peak learning rate
LOG_FIELDS = ["step", "depth", "minutes", "loss", "batch_accuracy", "learning_rate"]


class Batches(Dataset):
    """Batch number `step`, drawn when asked for: uint8 pictures and one caption each.

    Captions of the evaluation splits are never used; a scene that can only be described by
    one of them is drawn again. From step `focus_at` on, batches hold one object of every kind.
    """

    def __init__(self, seed: int, steps: int, batch_size: int, focus_at: int | None = None):
        self.seed, self.steps, self.batch_size = seed, steps, batch_size
        self.focus_at = steps if focus_at is None else focus_at
        self.names = [row["name"] for row in read_objects()]
        self.textures = Textures(seed, variants=8)
        self.held_out = read_captions()

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        alone = rng.permutation(self.names)[: self.batch_size // 2].tolist() if step >= self.focus_at else []
        names = alone + [None] * (self.batch_size - len(alone))
        pictures, captions = zip(*(self.draw_pair(rng, name) for name in names))
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), list(captions)

    def draw_pair(self, rng: np.random.Generator, name: str | None = None) -> tuple[np.ndarray, str]:
        while True:
            if name:
                scene, write = draw_scene(rng, self.textures, names=[name]), short_caption
            elif rng.random() < AERIAL_SHARE:
                scene, write = draw_aerial(rng), aerial_caption
            else:
                scene = draw_scene(rng, self.textures)
                write = short_caption if rng.random() < SHORT_SHARE else caption
            for _ in range(5):
                text = write(rng, scene)
                if text not in self.held_out:
                    return np.asarray(scene.image), text


def make_config(tokenizer, depth: int) -> CLIPConfig:
    """Give ViT-B/32's geometry at a small width."""
    shared = dict(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=depth,
        num_attention_heads=4, projection_dim=WIDTH,
    )  # fmt: skip
    ids = dict(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPConfig(
        text_config=dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT_LENGTH, **ids, **shared),
        vision_config=dict(image_size=SIZE, patch_size=32, **shared),
        projection_dim=WIDTH,
    )


def grow(model: CLIPModel, tokenizer) -> CLIPModel:
    """Repeat every block `REPEATS` times.

    The output projections of attention and MLP are divided by `REPEATS`, so that the copies of
    a block together add to the residual stream about what the one block added.
    """
    grown = CLIPModel(make_config(tokenizer, DEPTH))
    state = {}
    for name, value in model.state_dict().items():
        if ".encoder.layers." not in name:
            state[name] = value
            continue
        tower, index, rest = re.fullmatch(r"(.*\.layers)\.(\d+)\.(.*)", name).groups()
        if rest.startswith(("self_attn.out_proj", "mlp.fc2")):
            value = value / REPEATS
        for repeat in range(REPEATS):
            state[f"{tower}.{int(index) * REPEATS + repeat}.{rest}"] = value.clone()
    grown.load_state_dict(state)
    return grown


def learning_rate(step: int, grow_at: int, steps: int, focus_steps: int, peak: float) -> float:
    """Follow one cosine over all steps and a lower one over the focus, warmed up at each start."""
    if step >= steps:
        since, done, peak = step - steps, (step - steps) / focus_steps, FOCUS_RATE * peak
    else:
        since, done = step if step < grow_at else step - grow_at, step / steps
    return peak * min(1, (since + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: CLIPModel) -> torch.optim.AdamW:
    """Decay matrices only, as CLIP does."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def train_step(model, optimizer, pixel_values, tokens) -> tuple[float, float]:
    """Take one step of the symmetric InfoNCE loss; return it and the accuracy within the batch."""
    output = model(pixel_values=pixel_values, **tokens, return_loss=True)
    optimizer.zero_grad(set_to_none=True)
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(100))
    hits = output.logits_per_image.argmax(1) == torch.arange(len(pixel_values), device=pixel_values.device)
    return output.loss.item(), hits.float().mean().item()


def checkpoint_path(output: Path) -> Path:
    return output / "checkpoints" / "last.pt"


def save_checkpoint(output: Path, **state) -> None:
    """Write beside, then move into place: a kill leaves the last whole checkpoint."""
    path = checkpoint_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(tokenizer, args) -> tuple[CLIPModel, torch.optim.AdamW, int, float, list]:
    """Continue from the last checkpoint, or start."""
    torch.manual_seed(args.seed)
    path = checkpoint_path(args.output)
    if not path.exists():
        model = CLIPModel(make_config(tokenizer, DEPTH // REPEATS)).to(args.device)
        return model, make_optimizer(model), 0, 0.0, []
    state = torch.load(path, map_location=args.device, weights_only=True)
    if state["plan"] != [args.seed, args.steps, args.focus_steps, args.batch_size]:
        raise ValueError(
            f"{path} is of a run with other seed, steps, focus steps or batch size; delete it to start anew"
        )
    model = CLIPModel(make_config(tokenizer, state["depth"])).to(args.device)
    model.load_state_dict(state["model"])
    optimizer = make_optimizer(model)
    optimizer.load_state_dict(state["optimizer"])
    return model, optimizer, state["step"], state["minutes"], state["log"]


def save(output: Path, model: CLIPModel, tokenizer, log: list) -> None:
    """Write weights in half precision, configuration, tokenizer, image processor and the curve."""
    copy.deepcopy(model).to("cpu", torch.float16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(output)
    with open(output / "log.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([LOG_FIELDS, *log])


def main(args) -> None:
    """Run all steps, growing on the way."""
    tokenizer = build_tokenizer()
    model, optimizer, first, minutes, log = load_checkpoint(tokenizer, args)
    grow_at = int(args.steps * args.grow_at)
    processor = CLIPImageProcessor()
    mean, std = (torch.tensor(v, device=args.device).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    total = args.steps + args.focus_steps
    batches = Batches(args.seed, total, args.batch_size, focus_at=args.steps)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(first, total), num_workers=args.workers, prefetch_factor=4
    )
    start = time.monotonic() - 60 * minutes
    progress = tqdm(loader, initial=first, total=total, unit="step", mininterval=10)
    for step, (pictures, captions) in enumerate(progress, start=first):
        if step == grow_at:
            model = grow(model, tokenizer).to(args.device)
        if step in (grow_at, args.steps):
            optimizer = make_optimizer(model)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, grow_at, args.steps, args.focus_steps, args.learning_rate)
        pixel_values = (pictures.to(args.device) / 255 - mean) / std
        tokens = tokenizer(captions, padding=True, return_tensors="pt").to(args.device)
        loss, accuracy = train_step(model, optimizer, pixel_values, tokens)
        if step % 20 == 0:
            depth, minutes = model.config.vision_config.num_hidden_layers, (time.monotonic() - start) / 60
            log.append([step, depth, *(round(v, 6) for v in (minutes, loss, accuracy, group["lr"]))])
            progress.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.2f}")
        if (step + 1) % args.checkpoint_every == 0 or step + 1 == total:
            save_checkpoint(
                args.output,
                model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1, log=log,
                depth=model.config.vision_config.num_hidden_layers, minutes=(time.monotonic() - start) / 60,
                plan=[args.seed, args.steps, args.focus_steps, args.batch_size],
            )  # fmt: skip
    save(args.output, model, tokenizer, log)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--focus-steps", type=int, default=360, help="after these, one object of every kind a batch")
    parser.add_argument("--grow-at", type=float, default=0.5, help="fraction of the steps (a third of the time)")
    parser.add_argument("--batch-size", type=int, default=192)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw ahead")
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of weights, curve and checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
