"""Three ways to compute the same map, for benchmarks to race: a plain loop, captum, and `nib`.

Exports `make_clip`, `make_pairs`, `timed`, `Case` and `CONTENDERS`. Each contender takes a `Case` and gives the
scores of each side that is asked for, (captions, tokens), zero at padding; their equality is tested.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from captum.attr import IntegratedGradients
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPConfig, CLIPModel

import nib
from nib import last_block
from nib.integrate import integrate
from nib.towers import Split


def make_clip(device: str = "cpu", dtype: str = "float32") -> nib.HookedCLIP:
    """Build a CLIP of ViT-B/32's geometry with random weights."""
    torch.manual_seed(0)
    config = CLIPConfig(projection_dim=512)
    config.text_config.eos_token_id = 49407
    return nib.HookedCLIP(CLIPModel(config).to(device, getattr(torch, dtype)))


def make_pairs(clip: nib.HookedCLIP, pairs: int, captions: int | None = None) -> dict[str, Tensor]:
    """Draw random pictures, and captions of 8 to 16 tokens, padded; one a picture unless told."""
    generator = torch.Generator().manual_seed(0)
    captions, end = captions or pairs, clip.model.config.text_config.vocab_size - 1
    pixel_values = torch.randn(pairs, 3, clip.image.image_size, clip.image.image_size, generator=generator)
    input_ids = torch.full((captions, 16), end)
    lengths = torch.randint(8, 17, (captions,), generator=generator)
    for row, length in zip(input_ids, lengths):
        row[: length - 1] = torch.randint(1, end - 1, (int(length) - 1,), generator=generator)
    attention_mask = (torch.arange(16) < lengths[:, None]).long()
    tensors = dict(pixel_values=pixel_values.to(clip.dtype), input_ids=input_ids, attention_mask=attention_mask)
    return {name: tensor.to(clip.device) for name, tensor in tensors.items()}


def timed(clip: nib.HookedCLIP, function: Callable) -> tuple[float, object]:
    """Call a function and give its seconds and what it returned."""
    if clip.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = function()
    if clip.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


@dataclass
class Case:
    """What is to be explained: pairs, or one picture and many captions.

    Attributes:
        sides: "image", "text" or "both". Where one side alone is explained the embeddings of the other are given,
            as in practice where captions are compared with many pictures.
        batch_size: rows that go through the suffix at once, in captum (`internal_batch_size`) and `nib`.
    """

    clip: nib.HookedCLIP
    pixel_values: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    sides: str = "both"
    layer: int = 9
    n_steps: int = 10
    batch_size: int = 32

    def __post_init__(self):
        with torch.no_grad():
            self.image_embeds = self.clip.image.embed(self.pixel_values)
            self.text_embeds = self.clip.text.embed(self.input_ids, self.attention_mask)

    def cut(self) -> tuple[Split | None, Split | None]:
        """Run the prefixes that are needed."""
        image = self.clip.image.split(self.pixel_values, self.layer) if self.sides != "text" else None
        text = self.clip.text.split(self.input_ids, self.layer, self.attention_mask) if self.sides != "image" else None
        return image, text

    @torch.no_grad()
    def embed(self, image: Split | None, text: Split | None) -> tuple[Tensor, Tensor]:
        """Embed both sides from their cut towers, or give the embeddings that are known."""
        return (
            self.image_embeds if self.sides != "both" else image(image.hidden_states),
            self.text_embeds if self.sides != "both" else text(text.hidden_states),
        )


@contextmanager
def own_blocks() -> Iterator[None]:
    """Run the model's own last block, not the short form of `nib.last_block`."""
    with patch.object(last_block, "fits", return_value=False):
        yield


def explain_plainly(case: Case) -> dict[str, Tensor]:
    """Take the steps one after another and call `.backward()`, with parameters that require gradients.

    The prefix runs once. Captions are taken one by one, unpadded; so is a picture that many captions share.
    """
    clip, found = case.clip, {}
    clip.model.requires_grad_(True)
    with own_blocks():
        image = case.cut()[0]
        texts = [] if case.sides == "image" else list(_cut_one_by_one(case))
        image_embeds, text_embeds = case.image_embeds, case.text_embeds
        if case.sides == "both":
            with torch.no_grad():
                image_embeds = image(image.hidden_states)
                text_embeds = torch.cat([text(text.hidden_states) for text in texts])
        if image is not None:
            goals = [text_embeds] if len(image) == len(text_embeds) else text_embeds.split(1)
            found["image"] = torch.cat([_walk(case, image, goal) for goal in goals])
        if texts:
            found["text"] = torch.zeros_like(case.input_ids, dtype=clip.dtype)
            goals = image_embeds.expand(len(texts), -1).split(1)
            for row, text, goal in zip(found["text"], texts, goals):
                row[: text.hidden_states.shape[1]] = _walk(case, text, goal)[0]
    clip.model.zero_grad(set_to_none=True)
    clip.model.requires_grad_(False)
    return found


def _cut_one_by_one(case: Case) -> Iterator[Split]:
    for ids, mask in zip(case.input_ids, case.attention_mask):
        length = int(mask.sum())
        yield case.clip.text.split(ids[None, :length], case.layer, mask[None, :length])


def _walk(case: Case, split: Split, target: Tensor) -> Tensor:
    scores = torch.zeros_like(split.hidden_states[..., 0])
    for step in range(1, case.n_steps + 1):
        z = (split.hidden_states * step / case.n_steps).requires_grad_()
        cosine_similarity(split(z), target).sum().backward()
        scores += (split.hidden_states * z.grad).sum(-1) / case.n_steps
    return scores


def explain_with_captum(case: Case) -> dict[str, Tensor]:
    """Call captum's IntegratedGradients on the suffix, with frozen parameters."""
    with own_blocks():
        image, text = case.cut()
        image_embeds, text_embeds = case.embed(image, text)
        found = {}
        if image is not None:
            goals = [text_embeds] if len(image) == len(text_embeds) else text_embeds.split(1)
            found["image"] = torch.cat([_ask_captum(case, image, goal) for goal in goals])
        if text is not None:
            found["text"] = _ask_captum(case, text, image_embeds.expand(len(text), -1))
            found["text"] = torch.where(case.attention_mask.bool(), found["text"], 0)
    return found


def _ask_captum(case: Case, split: Split, target: Tensor) -> Tensor:
    def similarity(hidden_states: Tensor, target: Tensor) -> Tensor:
        return cosine_similarity(split(hidden_states), target)

    scores = IntegratedGradients(similarity).attribute(
        split.hidden_states,
        baselines=0,
        additional_forward_args=(target,),
        method="riemann_right",
        n_steps=case.n_steps,
        internal_batch_size=max(case.batch_size, len(split)),
    )
    return scores.sum(-1)


def explain_with_nib(case: Case) -> dict[str, Tensor]:
    """Call `nib`: the method for both sides, its loop for one."""
    path = dict(n_steps=case.n_steps, batch_size=case.batch_size)
    if case.sides == "both":
        inputs = case.pixel_values, case.input_ids, case.attention_mask
        scores = nib.METHODS["nib"](case.clip, *inputs, layer=case.layer, **path)
        image = torch.cat([scores.image_class[:, None], scores.image.flatten(1)], 1)
        return {"image": image, "text": scores.text}
    image, text = case.cut()
    image_embeds, text_embeds = case.embed(image, text)
    if image is not None:
        goals = text_embeds[:, None] if len(image) == len(text_embeds) else text_embeds[None]
        return {"image": integrate(image, goals, **path)[0].flatten(0, 1)}
    return {"text": integrate(text, image_embeds.expand(len(text), -1)[:, None], **path)[0][:, 0]}


CONTENDERS = {"plain loop": explain_plainly, "captum": explain_with_captum, "nib": explain_with_nib}
