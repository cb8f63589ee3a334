"""Look into the blocks of the embedded model, and write `blocks.csv`.

    python -m data.mini_clip.blocks [--model FOLDER]

For each tower and block:

- `largest_cosine`: between its weight matrices, as one vector, and those of any other block of the tower; 1 is a copy;
- `recall_without`: R@1 of the 500 scenes, mean of both directions, without the block (`recall`: the whole model's);
- `share_on_patches` (image): of the class token's attention, mean over heads and pictures;
- `cosine_without_patches` (image): of the picture's embedding with itself after every patch that enters the block is
  replaced by the mean patch of all pictures; 1 would say that the class token no longer reads them.
"""

import argparse
import csv
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cosine_similarity, normalize

import nib
from nib.inputs import to_pixel_values, to_tokens

HERE = Path(__file__).parent
PICTURES = 100  # for attention and ablation


def largest_cosines(blocks) -> np.ndarray:
    """Return the largest cosine of each block's matrices with those of another block."""
    vectors = [torch.cat([p.flatten() for p in block.parameters() if p.ndim == 2]) for block in blocks]
    vectors = normalize(torch.stack(vectors).float(), dim=1)
    cosines = vectors @ vectors.T
    return cosines.fill_diagonal_(-1).amax(1).numpy()


@contextmanager
def changed(block, change):
    """Change what a block does with its hidden states for a while."""
    handle = block.register_forward_hook(lambda module, args, output: change(args, output))
    try:
        yield
    finally:
        handle.remove()


def recall(images: torch.Tensor, texts: torch.Tensor, captions: np.ndarray) -> float:
    """Return R@1, mean of both directions; an identical caption counts as right."""
    similarity = normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    hits = [captions[similarity.argmax(axis)] == captions for axis in (0, 1)]
    return float(np.mean(hits))


@torch.no_grad()
def inspect(clip) -> list[dict]:
    """Measure every block of both towers."""
    data = Dataset.from_parquet(str(HERE.parent / "scenes" / "scenes.parquet"))
    captions = np.array(data["text"][:])
    pixel_values = torch.cat([to_pixel_values(clip, image) for image in data["image"]])
    input_ids, attention_mask, _ = to_tokens(clip, captions.tolist())
    vision, text = clip.model.vision_model.encoder.layers, clip.model.text_model.encoder.layers

    def embed_images(pixels=pixel_values):
        return torch.cat([clip.image.embed(part) for part in pixels.split(50)])

    def embed_texts():
        return clip.text.embed(input_ids, attention_mask)

    images, texts = embed_images(), embed_texts()
    whole = recall(images, texts, captions)
    rows = []
    for tower, blocks, embed in (("image", vision, embed_images), ("text", text, embed_texts)):
        for number, (block, cosine) in enumerate(zip(blocks, largest_cosines(blocks))):
            with changed(block, lambda args, output: args[0]):
                embeds = embed()
            without = recall(embeds, texts, captions) if tower == "image" else recall(images, embeds, captions)
            rows.append(dict(tower=tower, block=number, largest_cosine=cosine, recall=whole, recall_without=without))
    few = pixel_values[:PICTURES]
    clip.model.set_attn_implementation("eager")
    attentions = clip.model.vision_model(few, output_attentions=True, output_hidden_states=True)
    clip.model.set_attn_implementation("sdpa")
    for row, block, attention, states in zip(rows, vision, attentions.attentions, attentions.hidden_states):
        row["share_on_patches"] = float(1 - attention[:, :, 0, 0].mean())
        mean = states[:, 1:].mean((0, 1), keepdim=True)  # (1, 1, width)

        def without_patches(module, args, mean=mean):
            hidden_states = torch.cat([args[0][:, :1], mean.expand_as(args[0][:, 1:])], 1)
            return (hidden_states, *args[1:])

        handle = block.register_forward_pre_hook(without_patches)
        row["cosine_without_patches"] = float(cosine_similarity(embed_images(few), images[:PICTURES]).mean())
        handle.remove()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="folder of the model; the embedded one if left out")
    parser.add_argument("--output", type=Path, default=HERE / "blocks.csv")
    args = parser.parse_args()
    found = inspect(nib.load(args.model))
    with open(args.output, "w", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: round(v, 4) if isinstance(v, (float, np.floating)) else v for name, v in row.items()}
            for row in found
        )
    for row in found:
        print(
            " | ".join(
                f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value) for value in row.values()
            )
        )
