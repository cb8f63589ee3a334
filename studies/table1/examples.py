"""Keep count of what a system reads beyond the pair that it explains.

Exports `Pair`, `make_pairs`, `to_prompt` and `Examples`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from datasets import Dataset
from torch import Tensor

from nib.clip import HookedCLIP
from nib.datasets import with_article
from nib.inputs import to_pixel_values, to_tokens
from nib.shapes import AttentionMask, Embeds, InputIds, PixelValues


@dataclass
class Pair:
    """A picture and a prompt that names one object in it.

    Attributes:
        pixel_values: (1, channels, height, width).
        input_ids, attention_mask: (1, tokens).
        text: the prompt.
        kind: the object that it names.
    """

    pixel_values: PixelValues
    input_ids: InputIds
    attention_mask: AttentionMask
    text: str
    kind: str


def make_pairs(clip: HookedCLIP, data: Dataset) -> list[Pair]:
    """Ask for the first object of each scene: "a photo of a cat"."""
    kinds = [names[0] for names in data["objects"]]
    texts = [to_prompt(kind) for kind in kinds]
    input_ids, attention_mask, _ = to_tokens(clip, texts)
    pictures = [to_pixel_values(clip, picture) for picture in data["image"]]
    tokens = zip(input_ids.split(1), attention_mask.split(1))
    return [Pair(picture, *ids, text, kind) for picture, ids, text, kind in zip(pictures, tokens, texts, kinds)]


def to_prompt(kind: str) -> str:
    """Name a kind: "a photo of a cat"."""
    return f"a photo of {with_article(kind)}"


@dataclass
class Examples:
    """Some rows of a data set, and what has been read of them.

    Every property reads rows and says so in `rows_read`, `labels_read` likewise; `kept` holds what a system has made of
    them (a trained classifier, say), so that it is made once.

    Attributes:
        clip: embeds them.
        data: with the columns `image`, `text` and `objects`.
        chosen: which rows may be read.
        rows_read: rows of which anything was read.
        labels_read: rows of which the class was read.
        kept: by any key.
        prepared: pixel values by row, which several draws of one data set may share.
    """

    clip: HookedCLIP
    data: Dataset
    chosen: Sequence[int]
    rows_read: set[int] = field(default_factory=set)
    labels_read: set[int] = field(default_factory=set)
    kept: dict = field(default_factory=dict)
    prepared: dict[int, PixelValues] = field(default_factory=dict)

    @classmethod
    def draw(cls, clip: HookedCLIP, data: Dataset, share: float, seed: int, prepared: dict | None = None) -> "Examples":
        """Draw a share of the rows."""
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        chosen = sorted(order[: round(share * len(data))].tolist())
        return cls(clip, data, chosen, prepared={} if prepared is None else prepared)

    def _read(self, column: str) -> list:
        self.rows_read.update(self.chosen)
        return self.data.select(self.chosen)[column]

    def once(self, key, make):
        """Make something on the first call, and return it; what it reads counts on every call."""
        if key not in self.kept:
            before = set(self.rows_read), set(self.labels_read)
            self.rows_read, self.labels_read = set(), set()
            self.kept[key] = make(), self.rows_read, self.labels_read
            self.rows_read, self.labels_read = before
        value, rows, labels = self.kept[key]
        self.rows_read |= rows
        self.labels_read |= labels
        return value

    def pixel_values(self) -> PixelValues:
        """Return the pictures, (rows, channels, height, width)."""

        def prepare():
            for row, picture in zip(self.chosen, self._read("image")):
                if row not in self.prepared:
                    self.prepared[row] = to_pixel_values(self.clip, picture)
            return torch.cat([self.prepared[row] for row in self.chosen])

        return self.once("pixels", prepare)

    def texts(self) -> list[str]:
        """Return the captions."""
        return self.once("texts", lambda: list(self._read("text")))

    def image_embeds(self) -> Embeds:
        """Return the embeddings of the pictures, (rows, embed)."""
        return self.once("image embeds", lambda: embed_in_parts(self.clip.image.embed, self.pixel_values()))

    def text_embeds(self) -> Embeds:
        """Return the embeddings of the captions, (rows, embed)."""
        return self.once("text embeds", lambda: self.embed_texts(self.texts()))

    def embed_texts(self, texts: list[str]) -> Embeds:
        """Embed texts that need not be of the data set."""
        with torch.no_grad():
            return self.clip.text.embed(*to_tokens(self.clip, texts)[:2])

    def labels(self) -> list[str]:
        """Return the class of each row."""

        def read():
            self.labels_read.update(self.chosen)
            return [names[0] for names in self._read("objects")]

        return self.once("labels", read)


@torch.no_grad()
def embed_in_parts(embed, inputs: Tensor, size: int = 64) -> Tensor:
    """Run a function on parts of a batch; bounds memory."""
    return torch.cat([embed(part) for part in inputs.split(size)])
