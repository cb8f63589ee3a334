"""Run methods over pairs and measure their maps, so that a killed run loses nothing.

Exports `evaluate`. Pairs are worked on in batches; each method and batch is one part, a parquet file whose
name holds the hash of all that it depends on. What is there is read, not computed again.
"""

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import nib
from nib.attribution import check_method
from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.evaluation.batches import TRUE_MASK, Batch, Pairs, Setting, check_settings, column, read_batch, to_rows
from nib.evaluation.parts import hash_all, hash_code, save_table, to_bytes
from nib.evaluation.released import attribute_text_to_batch
from nib.files import make_folder, to_path
from nib.inputs import to_tokens
from nib.methods import METHODS
from nib.methods.scores import SUMS, Scores
from nib.metrics.confidence import check_protocol, confidence, is_constant
from nib.metrics.faithfulness import absent_prompt, infidelity, max_sensitivity, randomisation
from nib.metrics.localisation import auc, average_precision, energy_inside, iou_at_mean, pointing_game, selectivity
from nib.metrics.removal import removal_curves
from nib.shapes import PairValues

# How `confidence` weighs the text under each; they differ too in what NIB's text is attributed against.
PROTOCOLS = {"paper": "paper", "released": "released", "released_own": "released"}
METRICS = (
    "confidence",
    "localisation",
    "completeness",
    "faithfulness",
    "absent_prompt",
    "randomisation",
    "infidelity",
    "max_sensitivity",
)
NO_ROWS = pd.DataFrame({"id": ["-"], "protocol": ["-"], "metric": ["-"], "value": [0.0]})[:0]  # for the types
LOCALISATION = {"pointing_game": pointing_game, "auc": auc, "energy_inside": energy_inside}
LOCALISATION |= {"average_precision": average_precision, "iou_at_mean": iou_at_mean}


def evaluate(
    clip: HookedCLIP,
    pairs: Pairs,
    methods: Setting | Sequence[Setting] = ("nib",),
    protocol: str | Sequence[str] = "paper",
    *,
    metrics: Sequence[str] = ("confidence",),
    batch_size: int = 32,
    shard: Sequence[int] = (0, 1),
    output: str | Path | None = None,
    truncate: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Explain pairs with each method and measure each map.

    A run with `output` that is killed goes on where it was; the same call gives the same table. Parts of other
    settings, pictures, weights or code of `nib` are not read.

    Args:
        pairs: rows with `id`, `image` and `text`, and for localisation `masks` of the size of their pictures, which are
            resized and cropped with them; a data set from `nib.datasets.load`, a list of dicts or a table. A picture
            that cannot be read is skipped, with a warning.
        methods: names, or dicts of a method and its parameters, `{"method": "m2ib", "beta": 0.5}`. Beside those of
            `nib.METHODS` there is a control, "true_mask", whose map is `masks`; it says nothing of the text.
        protocol: one of `PROTOCOLS`, or several. "released" weights the text as the released code does, and attributes
            it, for `nib` alone, against the mean similarity to all pictures of its batch; every other method
            explains a text against its own picture, as there. "released_own" is the same with `nib` too against its own
            picture. Pictures are the same under all, but for constant maps; see `nib.metrics.confidence`.
        metrics: some of `METRICS`. "localisation" says whether the map lies on `masks` (any value above 0), and by
            `selectivity` whether rather there than on `other_masks`, where the pairs have that column, NaN else;
            "completeness" gives what `nib.Scores` says of sums and gaps, in cosine units, for methods that have them.
            "faithfulness" gives deletion, insertion and their difference of patches and words; "absent_prompt" compares
            with the map of a prompt for what is not there, the column `absent`; "randomisation" with that of re-drawn
            models, which runs the method three times more; see `nib.metrics`. "infidelity" and "max_sensitivity" are
            captum's.
        batch_size: pairs at once; the released code's is 32, and NIB's text scores under "released" depend on it.
        shard: (i, n) evaluates batches i, i + n, i + 2 n ...; the tables of all n shards are the whole table.
        output: folder for the parts; None keeps nothing.
        truncate: cut captions longer than the model's context instead of raising.
        progress: show a bar when the work takes more than a few seconds.

    Returns:
        A tidy table: `id`, `method`, a column for each parameter that any setting names, `protocol`, `metric` and
        `value`; see `nib.metrics.HIGHER_IS_BETTER`. `attrs["skipped"]` lists the pairs left out, with the reason.

    Raises:
        KeyError, TypeError: an unknown method or parameter.
        ValueError: another bad argument, no pairs, an id that occurs twice, a caption that is empty or too long, or a
            mask of another size than its picture.
    """
    settings = check_settings(clip, methods, may_be_masks=True)
    described = [_describe(setting) for setting in settings]
    if twice := [setting for place, setting in enumerate(settings) if described[place] in described[:place]]:
        raise ValueError(f"methods must differ, got twice {twice[0]}")
    protocols = _check_choice("protocol", [protocol] if isinstance(protocol, str) else protocol, list(PROTOCOLS))
    metrics = _check_choice("metrics", metrics, METRICS)
    for name in protocols if "confidence" in metrics else ():
        check_protocol(clip, name)
    check_count("batch_size", batch_size)
    batch_size = int(batch_size)
    index, n_shards = _check_shard(shard)
    pairs = to_rows(pairs)
    texts, ids = column(pairs, "text"), [str(value) for value in column(pairs, "id")]
    if not ids or len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})[:5] if ids else []
        named = f", and twice {', '.join(twice)}" if twice else ""
        raise ValueError(f"pairs must be at least one, each with an id of its own, got {len(ids)} pairs{named}")
    if broken := [name for name in ids if name.encode(errors="ignore").decode() != name]:
        raise ValueError(f"an id must be text that UTF-8 can hold, got {broken[0]!r}")
    to_tokens(clip, texts, truncate)  # a bad caption is found before any work
    absent = None
    if "absent_prompt" in metrics:
        absent = column(pairs, "absent", needed=("absent",))
        to_tokens(clip, absent, truncate)
    parts = None if output is None else Parts(to_path("output", output), clip)
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    starts = range(0, len(ids), batch_size)[index::n_shards]
    with_masks = "localisation" in metrics or any(setting["method"] == TRUE_MASK for setting in settings)
    skipped: list[dict] = list(getattr(pairs, "skipped", []))
    tables: list[list[pd.DataFrame]] = [[] for _ in settings]
    with tqdm(total=len(starts) * len(settings), unit="batch", delay=3, disable=not progress) as bar:
        for start in starts:
            rows = range(start, min(start + batch_size, len(ids)))
            batch = read_batch(clip, pairs, rows, ids, texts, truncate, with_masks, skipped, absent)
            for setting, found in zip(settings, tables):
                bar.set_description(setting["method"], refresh=False)
                if batch is not None:
                    work = Work(clip, batch, setting, protocols, metrics)
                    with clip.ready():  # methods switch the kind of attention, and hook the model
                        found.append(work.measure() if parts is None else parts.get(work))
                bar.update()
    if skipped:
        named = ", ".join(f"{entry['id']} ({entry['reason']})" for entry in skipped[:5])
        warnings.warn(f"{len(skipped)} pairs were skipped, among them {named}", stacklevel=2)
    frames = [
        table.assign(**{name: _repeat(value, len(table)) for name, value in setting.items()})
        for setting, found in zip(settings, tables)
        for table in found or [NO_ROWS]
    ]
    frame = pd.concat(frames, ignore_index=True)[["id", *names, "protocol", "metric", "value"]]
    frame.attrs["skipped"] = skipped
    return frame


@dataclass
class Work:
    """One method on one batch: what it takes and how it is done."""

    clip: HookedCLIP
    batch: Batch
    setting: dict[str, Any]
    protocols: list[str]
    metrics: list[str]

    def measure(self) -> pd.DataFrame:
        """Return columns `id`, `protocol`, `metric` and `value`; what a protocol does not touch is under each."""
        parameters = dict(self.setting)
        method = parameters.pop("method")
        if method == TRUE_MASK:
            scores = self.batch.true_masks(self.clip)
        else:
            function, parameters = check_method(self.clip, method, parameters)  # fills in a preset
            scores = function(self.clip, *self.batch.arguments(), **parameters)
        shared = {}  # the same under every protocol
        if "localisation" in self.metrics:
            image, masks = scores.image_map.cpu(), self.batch.masks
            shared |= {name: function(image, masks) for name, function in LOCALISATION.items()}
            shared["selectivity"] = selectivity(image, masks, self.batch.other_masks)
        if "completeness" in self.metrics:
            sums = {name: getattr(scores, name) for name in SUMS}
            shared |= {name: numbers for name, numbers in sums.items() if numbers is not None}
        shared |= self.measure_faith(scores, method, parameters)
        frames, pictures = [], {}
        for protocol in self.protocols:
            values = dict(shared)
            if "confidence" in self.metrics:
                way = PROTOCOLS[protocol] if is_constant(scores.image_map).any() else "paper"  # else they are alike
                if way not in pictures:
                    pictures[way] = self.measure_side("image", scores, way)
                values |= pictures[way]
                if method != TRUE_MASK:
                    values |= self.measure_side("text", self.explain_text(scores, protocol, parameters), protocol)
            for metric, numbers in values.items():
                frame = dict(id=self.batch.ids, protocol=protocol, metric=metric, value=numbers.double().cpu().numpy())
                frames.append(pd.DataFrame(frame))
        return pd.concat(frames or [NO_ROWS], ignore_index=True)

    def measure_faith(self, scores: Scores, method: str, parameters: dict[str, Any]) -> dict[str, PairValues]:
        """Measure what the map says of the model; what a blind mask cannot be asked is left out."""
        clip, arguments, found = self.clip, self.batch.arguments(), {}
        if "faithfulness" in self.metrics:
            sides = ("image",) if method == TRUE_MASK else ("image", "text")
            found |= removal_curves(clip, *arguments, scores, sides=sides).summarise()
        if "infidelity" in self.metrics:
            found["infidelity"] = infidelity(clip, *arguments, scores)
        if method == TRUE_MASK:
            return found
        pictures, *text = arguments

        def explain(model=clip, pixel_values=pictures, text=text):
            return METHODS[method](model, pixel_values, *text, **parameters)

        if "absent_prompt" in self.metrics:
            found |= absent_prompt(scores.image, explain(text=self.batch.absent).image)
        if "randomisation" in self.metrics:
            found |= randomisation(clip, explain)
        if "max_sensitivity" in self.metrics:
            found["max_sensitivity"] = max_sensitivity(pictures, lambda x: explain(pixel_values=x).image)
        return found

    def measure_side(self, side: str, scores: Scores, protocol: str) -> dict[str, PairValues]:
        """Measure the confidence of one modality."""
        arguments, embeds = self.batch.arguments(), self.batch.embeds(self.clip)
        return confidence(self.clip, *arguments, scores, PROTOCOLS[protocol], sides=(side,), embeds=embeds)

    def explain_text(self, scores: Scores, protocol: str, parameters: dict[str, Any]) -> Scores:
        """Return the scores with the text's against what the protocol sets it against."""
        if self.setting["method"] != "nib" or protocol != "released":
            return scores
        embeds, _ = self.batch.embeds(self.clip)
        text = attribute_text_to_batch(self.clip, *self.batch.arguments(), image_embeds=embeds, **parameters)
        return replace(scores, text=text)

    def name(self, made_by: str) -> str:
        """Name the part after the method and the hash of all that its numbers depend on."""
        described = _describe([made_by, self.setting, self.protocols, self.metrics])
        return f"{self.setting['method']}-{hash_all(described, self.batch.hash())}.parquet"


class Parts:
    """The folder of finished parts."""

    def __init__(self, folder: Path, clip: HookedCLIP):
        self.folder = folder
        make_folder(folder)
        modules = [path for path in Path(nib.__file__).parent.rglob("*.py") if path.name != "plotting.py"]
        settings = clip.model.config.to_json_string()  # models of equal weights may differ in activation or heads
        self.made_by = hash_all(*map(to_bytes, clip.model.state_dict().values()), settings, hash_code(modules))

    def get(self, work: Work) -> pd.DataFrame:
        """Read a part, or compute and write it."""
        path = self.folder / work.name(self.made_by)
        if path.exists():
            try:
                return _read_part(path, work.batch.ids)
            except (OSError, ValueError) as error:
                reason = str(error).partition("\n")[0][:200]
            warnings.warn(f"{path} is no part of this evaluation and is computed again: {reason}", stacklevel=3)
        frame = work.measure()
        frame.attrs["rows"] = len(frame)
        save_table(frame, path)
        return _read_part(path, work.batch.ids)


def _read_part(path: Path, ids: list[str]) -> pd.DataFrame:
    """Read a part; a ValueError says why it is not a whole one of these pairs."""
    kept = pd.read_parquet(path)
    if list(kept) != list(NO_ROWS) or kept["value"].dtype != float:
        raise ValueError(f"it has the columns {dict(kept.dtypes.map(str))}")
    if kept["id"].tolist() != ids * (len(kept) // len(ids)):
        raise ValueError("it is of other pairs")
    if len(kept) != (rows := kept.attrs.pop("rows", None)):
        raise ValueError(f"it has {len(kept)} rows of {rows}")
    return kept


def _describe(setting: Any) -> str:
    """Write a setting as text that tells it from others; a tensor is told by its numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Tensor | np.ndarray):
            return hash_all(to_bytes(torch.as_tensor(value)))
        raise TypeError(f"a parameter must be numbers, text, lists or tensors, got {type(value).__name__}")

    return json.dumps(setting, sort_keys=True, default=plain)


def _repeat(value: Any, rows: int) -> Any:
    """Make a column of a parameter; pandas would take a pair for the column itself."""
    return [value] * rows if isinstance(value, (tuple, list, Tensor, np.ndarray)) else value


def _check_choice(name: str, values: Iterable[str], known: Sequence[str]) -> list[str]:
    chosen = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
    if not chosen or any(value not in known or chosen.count(value) > 1 for value in chosen):
        raise ValueError(f"{name} must be some of {list(known)}, got {values!r}")
    return chosen


def _check_shard(shard: Sequence[int]) -> tuple[int, int]:
    whole = (
        isinstance(shard, Sequence)
        and len(shard) == 2
        and all(isinstance(value, int) and not isinstance(value, bool) for value in shard)
    )
    if not whole or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard!r}")
    return shard[0], shard[1]
