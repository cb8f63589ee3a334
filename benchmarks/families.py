"""Build a tiny random model of every family that `nib` opens, with a tokenizer and a processor of its kind.

    python -m benchmarks.families  # verifies each, and writes the table of docs/models.md anew

Exports `FAMILIES`, `SIZES`, `CAPTIONS`, `build`, `randomise` and `draw_pictures`; the tests run on these models too.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

import nib
from nib.inputs import to_tokens
from nib.verify import verify

WORDS = ["a", "dog", "cat", "next", "to", "the", "on", "grass", "red", "hippopotamus", "in", "snow"]
CAPTIONS = ["a dog next to a dog on the grass", "cat", "a red hippopotamus in the snow"]  # repeated, one word, padded
SIZES = {"small": (3, 2, 32, 36), "large": (4, 3, 48, 53)}  # image blocks, text blocks, width, side: 53 is no multiple
PATCH, CONTEXT = 12, 14
FEW = {"rise": dict(n_masks=4, text_masks=4), "m2ib": dict(n_steps=2, n_noise=1), "agi": dict(n_steps=1)}
FEW |= {"lime": dict(n_samples=4)}
START, END = "<!-- written by `python -m benchmarks.families` -->", "<!-- end -->"


def _tokenizer(begin: str | None, end: str, padding: str) -> PreTrainedTokenizerFast:
    specials = list(dict.fromkeys(token for token in (padding, begin, "<unk>", end) if token))
    ids = {token: number for number, token in enumerate([*specials, *WORDS])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    parts = [*([begin] if begin else []), "$A", end]
    inner.post_processor = TemplateProcessing(single=" ".join(parts), special_tokens=[(t, ids[t]) for t in specials])
    names = dict(eos_token=end, pad_token=padding, unk_token="<unk>") | (dict(bos_token=begin) if begin else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def _sides(size: str, tokenizer, **text):
    image_blocks, text_blocks, width, side = SIZES[size]
    shared = dict(hidden_size=width, intermediate_size=2 * width, num_attention_heads=4)
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    ids |= dict(bos_token_id=tokenizer.bos_token_id or 0, vocab_size=len(tokenizer))
    text_side = shared | ids | dict(num_hidden_layers=text_blocks, max_position_embeddings=CONTEXT) | text
    image_side = shared | dict(num_hidden_layers=image_blocks, image_size=side // PATCH * PATCH, patch_size=PATCH)
    return dict(text_config=text_side, vision_config=image_side)


def _clip_like(config, model):
    def make(size):
        tokenizer = _tokenizer("<begin>", "<end>", "<pad>")
        return model(config(**_sides(size, tokenizer), projection_dim=16)), tokenizer, CLIPImageProcessorPil

    return make


def _bert_like(config, model):
    def make(size):
        tokenizer = _tokenizer("<begin>", "<end>", "<pad>")
        width = {"project_dim": 24} if config is AltCLIPConfig else {}
        more = dict(max_position_embeddings=CONTEXT + (1 if width else 0), type_vocab_size=1) | width
        return model(config(**_sides(size, tokenizer, **more), projection_dim=16)), tokenizer, CLIPImageProcessorPil

    return make


def _siglip(size):
    tokenizer = _tokenizer(None, "<end>", "<end>")  # as SigLIP's: one token ends and pads
    return SiglipModel(SiglipConfig(**_sides(size, tokenizer))), tokenizer, SiglipImageProcessorPil


def _siglip_end(size):
    tokenizer = _tokenizer(None, "<end>", "<pad>")  # as SigLIP 2's
    return SiglipModel(SiglipConfig(**_sides(size, tokenizer))), tokenizer, SiglipImageProcessorPil


def _siglip2(size):
    tokenizer = _tokenizer(None, "<end>", "<pad>")
    sides = _sides(size, tokenizer)
    side = sides["vision_config"].pop("image_size") // PATCH
    sides["vision_config"]["num_patches"] = side**2
    return Siglip2Model(Siglip2Config(**sides)), tokenizer, Siglip2ImageProcessorPil


FAMILIES = {
    "clip": _clip_like(CLIPConfig, CLIPModel),
    "clipseg": _clip_like(CLIPSegConfig, CLIPSegModel),
    "metaclip_2": _clip_like(MetaClip2Config, MetaClip2Model),
    "siglip": _siglip,
    "siglip, end apart": _siglip_end,
    "siglip2": _siglip2,
    "altclip": _bert_like(AltCLIPConfig, AltCLIPModel),
    "chinese_clip": _bert_like(ChineseCLIPConfig, ChineseCLIPModel),
}


def build(family: str, size: str = "small") -> nib.HookedCLIP:
    """Return a float64 model with weights at a scale at which blocks and norms matter."""
    model, tokenizer, processor = FAMILIES[family](size)
    side = SIZES[size][3]
    if processor is Siglip2ImageProcessorPil:
        options = dict(patch_size=PATCH, max_num_patches=12)
    else:
        edge = {"shortest_edge": side} if processor is CLIPImageProcessorPil else {"height": side, "width": side}
        options = dict(size=edge, crop_size=side) if processor is CLIPImageProcessorPil else dict(size=edge)
    model = randomise(model).double()
    return nib.HookedCLIP(model, tokenizer, processor(**options))


def draw_pictures(clip: nib.HookedCLIP, size: str, n: int = 3) -> torch.Tensor:
    """Return random pictures: not square where the family allows it, else of a side that the patch does not divide."""
    side = SIZES[size][3]
    height, width = (side, side - PATCH) if size == "large" else (side, side)
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Redraw all weights at a scale at which blocks and layer norms matter; norms stay near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            is_norm = "norm" in name.lower() or "_LN" in name
            parameter.copy_(0.25 * noise + (is_norm and name.endswith("weight")))
    return model


def tabulate() -> str:
    """Verify every family at both sizes and try every method: a Markdown table."""
    lines = [
        "| family | checks passed | largest error against the model's own forward | methods that run |",
        "|---|---|---|---|",
    ]
    for family in FAMILIES:
        rows, runs, refused = [], [], {}
        for size in SIZES:
            clip = build(family, size)
            rows += verify(clip)
            ids, mask, _ = to_tokens(clip, CAPTIONS)
            for name, method in nib.METHODS.items():
                try:
                    method(clip, draw_pictures(clip, size), ids, mask, **FEW.get(name, {}))
                    runs.append(name)
                except ValueError as error:
                    refused[name] = str(error)
        worst = max(row["value"] for row in rows if "own forward" in row["check"] or "joined" in row["check"])
        passed = sum(row["passed"] for row in rows)
        said = f"all {len(set(runs))}" if not refused else f"{len(set(runs))}; not {', '.join(refused)}"
        error = "< 1e-14" if worst < 1e-14 else f"{worst:.0e}"  # below it the digits are of the machine
        lines.append(f"| `{family}` | {passed} of {len(rows)} | {error} | {said} |")
    return "\n".join(lines)


def main() -> int:
    page = Path(__file__).parents[1] / "docs/models.md"
    before, _, rest = page.read_text().partition(START)
    page.write_text(f"{before}{START}\n{tabulate()}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
