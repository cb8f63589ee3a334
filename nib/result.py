"""What an attribution gives: `Attribution`, the scores of one picture and one caption, to read, draw and tabulate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nib.checks import check_count, check_finite, read_limit, to_real
from nib.files import to_path, write_whole
from nib.heatmaps import to_heatmap
from nib.methods.scores import Sums

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from nib.interaction import Interactions


@dataclass(eq=False)  # == of arrays is an array
class Attribution:
    """Signed scores of the patches of one picture and the words of one caption.

    For NIB they are in cosine units: positive scores raise the similarity, negative ones lower it.

    Attributes:
        image_scores: (grid_h, grid_w).
        image_pixel_scores: (height, width), the map at the pixels of `picture` where the method has one, else None;
            shown and stretched in place of `image_scores`.
        image_class_score: score of the class token, which is not on the map; None where it has none.
        tokens, token_scores: all tokens, begin and end included, and (tokens,) scores.
        words, word_scores: words, and (words,) sums over each word's tokens; begin and end left out.
        begin_score, end_score: of the tokens before and after the words; None where the family has none.
        padding_score: sum over the padding, of a model that sees its padding (SigLIP), else None.
        similarity: cosine of the two embeddings.
        image, text: `Sums` of a side, what all its scores should add up to and how far they miss it; None for methods
            without such a sum.
        picture: (height, width, 3) uint8, what the model saw.
        caption: its text.
        method, parameters: what computed it.
    """

    image_scores: np.ndarray
    image_class_score: float | None
    image_pixel_scores: np.ndarray | None
    tokens: list[str]
    token_scores: np.ndarray
    words: list[str]
    word_scores: np.ndarray
    begin_score: float | None
    end_score: float | None
    padding_score: float | None
    similarity: float
    image: Sums | None
    text: Sums | None
    picture: np.ndarray = field(repr=False)
    caption: str
    method: str
    parameters: dict[str, Any]

    @property
    def image_map(self) -> np.ndarray:
        """The finest map that there is: (height, width) at pixels, else (grid_h, grid_w)."""
        return self.image_scores if self.image_pixel_scores is None else self.image_pixel_scores

    @property
    def unit(self) -> str:
        """What the scores add up to by Theorem 3, "cosine" or "logit"; empty for a method without such a sum."""
        return "" if self.image is None else self.parameters.get("target", "cosine")

    def heatmap(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the map as (height, width) in [0, 1], by default at the size of the picture."""
        if size is not None and not (isinstance(size, (tuple, list)) and len(size) == 2):
            raise ValueError(f"size must be (height, width), got {size!r}")
        for name, side in zip(("height", "width"), size or ()):
            check_count(name, side, limit="pixels")
        if size is not None and size[0] * size[1] > (most := read_limit("pixels")):
            raise ValueError(f"size must be at most {most:,} pixels, got {size[0]} x {size[1]}")
        check_finite("scores of a heat map", scores := to_real("scores of a heat map", self.image_map))
        return to_heatmap(scores[None], size or self.picture.shape[:2])[0].numpy()

    def plot(self) -> "Figure":
        """Show the picture, the signed map and the signed words; zero is neutral.

        For NIB the caption says what the scores of each side add up to, and how far they miss F(z) - F(lambda_min z)
        and F(z) - F(0).
        """
        from nib.plotting import plot_attribution  # here, so that numbers alone do not wait for matplotlib

        title = f'{self.method}: "{self.caption}"   similarity {self.similarity:.3f}'
        if self.image is not None and {"lambda_min", "baseline", "rectified"} <= set(self.parameters):
            title += f"\n{self._describe_sum('image', self.image, 0)}\n{self._describe_sum('text', self.text, 1)}"
            if self.padding_score is not None:
                title += f"\nthe padding, which this model sees, holds {self.padding_score:+.3f} of the text's sum"
            if self.parameters["rectified"]:
                title += "\nthe sums are those before negative scores were set to 0, what is shown is after"
        return plot_attribution(self.picture, self.image_map, self.words, self.word_scores, title, self.unit)

    def _describe_sum(self, side: str, sums: Sums, number: int) -> str:
        difference, gap, from_zero = sums
        total = difference + gap
        path = self.parameters["lambda_min"], self.parameters["baseline"]
        start, baseline = (value[number] if isinstance(value, (tuple, list)) else value for value in path)
        is_zero = isinstance(baseline, str) and baseline == "zero"
        words = f"{side} scores add up to {total:+.3f}; "
        if start:
            point = f"{start:g} z" if is_zero else f"the path at {start:g}"
            words += f"F(z) - F({point}) is {difference:+.3f}, gap {gap:+.3f}; "
        return words + f"F(z) - F({'0' if is_zero else 'baseline'}) is {total - from_zero:+.3f}, gap {from_zero:+.3f}"

    def to_frame(self) -> "pd.DataFrame":
        """Return all scores as a table, one row a patch, token and word: part, name, row, column, score."""
        import pandas as pd  # here, so that `import nib` does not wait for it

        rows, columns = np.indices(self.image_scores.shape)
        places = dict(row=rows.ravel(), column=columns.ravel())
        parts = [pd.DataFrame({"part": "patch", "name": "", **places, "score": self.image_scores.ravel()})]
        if self.image_class_score is not None:
            parts.append(pd.DataFrame({"part": ["class token"], "score": [self.image_class_score]}))
        parts.append(pd.DataFrame({"part": "token", "name": self.tokens, "score": self.token_scores}))
        parts.append(pd.DataFrame({"part": "word", "name": self.words, "score": self.word_scores}))
        if self.padding_score is not None:
            parts.append(pd.DataFrame({"part": ["padding"], "score": [self.padding_score]}))
        return pd.concat(parts, ignore_index=True)[["part", "name", "row", "column", "score"]]

    def to_html(
        self,
        path: str | Path | None = None,
        *,
        interactions: "Interactions | None" = None,
        others: "Sequence[Attribution]" = (),
    ) -> str:
        """Return an interactive page, one file that needs no network: the map over the picture, and the words.

            result.to_html("page.html", others=[nib.attribute(clip, picture, caption, layer=6)])

        Mouse or keyboard on a patch or a word reads its score. Maps at pixels are shown patch by patch.

        Args:
            path: where to write the page, too; it is moved into place when it is whole.
            interactions: `nib.interactions` of the same picture and caption; each word then shows its own map.
            others: attributions of the same picture and caption by other methods or parameters, for a slider.

        Raises:
            TypeError: not a path, no `Interactions`, or no `Attribution`s.
            ValueError: another picture, caption or grid, or scores that are NaN; nothing is written.
        """
        from nib.explorer import make_page  # here, so that numbers alone do not wait for it

        path = None if path is None else to_path("path", path)
        page = make_page(self, interactions, others)
        if path is not None:
            with write_whole(path) as partial:
                partial.write_text(page, encoding="utf-8")
        return page

    def _repr_html_(self) -> str:
        """Show the interactive page, and where a viewer strips it, the words and the strongest patches."""
        from nib.explorer import embed_page

        return embed_page(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture as plain numbers, strings and lists, ready for JSON."""
        return {name: _to_plain(value) for name, value in vars(self).items() if name != "picture"}


def _to_plain(value: Any) -> Any:
    value = value._asdict() if isinstance(value, Sums) else value
    if isinstance(value, dict):
        return {name: _to_plain(inner) for name, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_to_plain(inner) for inner in value)
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    return float(value) if isinstance(value, Real) and not isinstance(value, (int, float)) else value
