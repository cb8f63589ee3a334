"""Train the embedded CLIP on drawn scenes, from nothing.

    python -m data.mini_clip.train                      # on the CPU, resumes where it stopped
    python -m data.mini_clip.train --device cuda --steps 12000

The model has ViT-B/32's geometry (224 pixels, patches of 32, 12 + 12 blocks) at a small width.
It is grown: a third of the time goes to 4 + 4 blocks, then every block is repeated three times
and all 12 + 12 are trained on. A step's batch is a pure function of the seed and the step, so a
resumed run draws what an uninterrupted one would have drawn.
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
from data.scenes.build import read_captions
from data.scenes.grammar import caption, short_caption
from data.scenes.scenes import SIZE, draw_scene
from data.scenes.textures import Textures

HERE = Path(__file__).parent
CHECKPOINT = HERE / "checkpoints" / "last.pt"
DEPTH, REPEATS, WIDTH = 12, 3, 128
AERIAL_SHARE, SHORT_SHARE = 0.2, 0.12
LOG_FIELDS = ["step", "depth", "minutes", "loss", "batch_accuracy", "learning_rate"]


class Batches(Dataset):
    """Batch number `step`, drawn when asked for: uint8 pictures and one caption each.

    Captions of the evaluation splits are never used; a scene that can only be described by
    one of them is drawn again.
    """

    def __init__(self, seed: int, steps: int, batch_size: int):
        self.seed, self.steps, self.batch_size = seed, steps, batch_size
        self.textures = Textures(seed, variants=8)
        self.held_out = read_captions()

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        pictures, captions = zip(*(self.draw_pair(rng) for _ in range(self.batch_size)))
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), list(captions)

    def draw_pair(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        while True:
            if rng.random() < AERIAL_SHARE:
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


def learning_rate(step: int, grow_at: int, steps: int, peak: float) -> float:
    """Follow one cosine over all steps, warmed up at the start and again after growing."""
    since = step if step < grow_at else step - grow_at
    return peak * min(1, (since + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))


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


def save_checkpoint(**state) -> None:
    """Write beside, then move into place: a kill leaves the last whole checkpoint."""
    CHECKPOINT.parent.mkdir(exist_ok=True)
    torch.save(state, CHECKPOINT.with_suffix(".tmp"))
    os.replace(CHECKPOINT.with_suffix(".tmp"), CHECKPOINT)


def load_checkpoint(tokenizer, args) -> tuple[CLIPModel, torch.optim.AdamW, int, float, list]:
    """Continue from the last checkpoint, or start."""
    torch.manual_seed(args.seed)
    if not CHECKPOINT.exists():
        model = CLIPModel(make_config(tokenizer, DEPTH // REPEATS)).to(args.device)
        return model, make_optimizer(model), 0, 0.0, []
    state = torch.load(CHECKPOINT, map_location=args.device, weights_only=True)
    if state["plan"] != [args.seed, args.steps, args.batch_size]:
        raise ValueError(f"{CHECKPOINT} is of a run with other seed, steps or batch size; delete it to start anew")
    model = CLIPModel(make_config(tokenizer, state["depth"])).to(args.device)
    model.load_state_dict(state["model"])
    optimizer = make_optimizer(model)
    optimizer.load_state_dict(state["optimizer"])
    return model, optimizer, state["step"], state["minutes"], state["log"]


def save(model: CLIPModel, tokenizer, log: list) -> None:
    """Write weights in half precision, configuration, tokenizer, image processor and the curve."""
    copy.deepcopy(model).to("cpu", torch.float16).save_pretrained(HERE)
    tokenizer.save_pretrained(HERE)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(HERE)
    with open(HERE / "log.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([LOG_FIELDS, *log])


def main(args) -> None:
    """Run all steps, growing on the way."""
    tokenizer = build_tokenizer()
    model, optimizer, first, minutes, log = load_checkpoint(tokenizer, args)
    grow_at = int(args.steps * args.grow_at)
    processor = CLIPImageProcessor()
    mean, std = (torch.tensor(v, device=args.device).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    batches = Batches(args.seed, args.steps, args.batch_size)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(first, args.steps), num_workers=args.workers, prefetch_factor=4
    )
    start = time.monotonic() - 60 * minutes
    progress = tqdm(loader, initial=first, total=args.steps, unit="step", mininterval=10)
    for step, (pictures, captions) in enumerate(progress, start=first):
        if step == grow_at:
            model = grow(model, tokenizer).to(args.device)
            optimizer = make_optimizer(model)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, grow_at, args.steps, args.learning_rate)
        pixel_values = (pictures.to(args.device) / 255 - mean) / std
        tokens = tokenizer(captions, padding=True, return_tensors="pt").to(args.device)
        loss, accuracy = train_step(model, optimizer, pixel_values, tokens)
        if step % 20 == 0:
            depth, minutes = model.config.vision_config.num_hidden_layers, (time.monotonic() - start) / 60
            log.append([step, depth, *(round(v, 6) for v in (minutes, loss, accuracy, group["lr"]))])
            progress.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.2f}")
        if (step + 1) % 50 == 0 or step + 1 == args.steps:
            save_checkpoint(
                model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1, log=log,
                depth=model.config.vision_config.num_hidden_layers, minutes=(time.monotonic() - start) / 60,
                plan=[args.seed, args.steps, args.batch_size],
            )  # fmt: skip
    save(model, tokenizer, log)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--grow-at", type=float, default=0.5, help="fraction of the steps (a third of the time)")
    parser.add_argument("--batch-size", type=int, default=192)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw ahead")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
