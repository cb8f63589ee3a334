"""Bad pairs, masks, tables, files and figures are refused by name, and what is kept of another model is not read."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CAPTIONS, make_config
from PIL import Image
from transformers import CLIPModel

import nib
from benchmarks.families import randomise
from nib import metrics

PICTURE = Image.new("RGB", (60, 60), "red")
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def pairs():
    """Two pairs with masks of the pictures' own sizes, which are not square."""
    rng = np.random.default_rng(0)
    rows = []
    for number, (height, width) in enumerate([(60, 120), (120, 60)]):
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : height // 2, width // 4 : width // 2] = 1
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        rows.append({"id": str(number), "image": image, "text": CAPTIONS[number], "masks": mask})
    return rows


def evaluate(clip, pairs, methods="random", **options):
    return nib.evaluate(clip, pairs, methods, progress=False, **options)


# ---- masks


@pytest.mark.parametrize("method", ["gradcam", "true_mask"])
def test_masks_are_cropped_as_their_pictures_are(clip, pairs, method):
    cropped = []
    for pair in pairs:
        width, height = pair["image"].size
        left, top = (width - 60) // 2, (height - 60) // 2
        image = pair["image"].crop((left, top, left + 60, top + 60))
        cropped.append(pair | {"image": image, "masks": pair["masks"][top : top + 60, left : left + 60]})
    options = dict(methods=method, metrics=["localisation", "confidence"])
    assert evaluate(clip, pairs, **options).equals(evaluate(clip, cropped, **options))


def test_masks_are_resized_as_their_pictures_are(clip, pairs):
    big = [
        pair | {"image": pair["image"].resize((3 * pair["image"].width, 3 * pair["image"].height), 0)}
        | {"masks": np.kron(pair["masks"], np.ones((3, 3), np.uint8))} for pair in pairs
    ]  # fmt: skip
    options = dict(methods="center", metrics=["localisation"])
    assert evaluate(clip, big, **options).equals(evaluate(clip, pairs, **options))


def test_masks_of_pixel_values_are_taken_as_they_are(clip, pairs):
    for pair in pairs:
        pair |= {"image": torch.zeros(3, 60, 72), "masks": torch.arange(60 * 72).view(60, 72) % 5 == 0}
    assert evaluate(clip, pairs, "center", metrics=["localisation"])["value"].notna().sum() == 10


SIZE = r"masks of pair '1' must be numbers of the size of its picture, \(120, 60\), got"
MASKS = {
    "turned": (np.ones((60, 120)), SIZE),
    "of another size": (np.ones((60, 60)), SIZE),
    "text": ("mask.png", SIZE),
    "texts": (np.full((120, 60), "1"), SIZE),
    "scalar": (1, SIZE),
    "ragged": ([[1, 0], [1]], f"{SIZE} list"),
    "colour": (np.ones((120, 60, 3)), SIZE),
    "complex": (np.ones((120, 60), complex), SIZE),
    "NaN": (np.full((120, 60), NAN), "masks of pair '1' must be finite"),
    "empty": (np.zeros((120, 60)), "masks of pair '1' must have at least one pixel"),
    "none": (None, "pair '1' has none"),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_of_pairs_are_refused(clip, pairs, case):
    mask, message = MASKS[case]
    pairs[1]["masks"] = mask
    with pytest.raises(ValueError, match=message):
        evaluate(clip, pairs, metrics=["localisation"])


def test_a_mask_beside_what_the_model_sees_is_refused(clip, pairs):
    pairs[1]["masks"] = np.zeros((120, 60))
    pairs[1]["masks"][:20] = 1  # cut away
    with pytest.raises(ValueError, match="pair '1' must have at least one pixel in what the model sees"):
        evaluate(clip, pairs, metrics=["localisation"])


# ---- what is kept


def test_parts_of_a_model_of_equal_weights_and_other_heads_are_not_read(pairs, tmp_path, tokenizer, image_processor):
    models = [randomise(CLIPModel(make_config())).double()]
    for change in ({"hidden_act": "gelu"}, {"num_attention_heads": 8}):
        other = CLIPModel(make_config(**change)).double()
        other.load_state_dict(models[0].state_dict())
        models.append(other)
    clips = [nib.HookedCLIP(model, tokenizer, image_processor) for model in models]
    kept = [evaluate(clip, pairs, "gradcam", output=tmp_path) for clip in clips]
    assert all(table.equals(evaluate(clip, pairs, "gradcam")) for clip, table in zip(clips, kept))
    assert len(list(tmp_path.glob("*.parquet"))) == 3


def test_sensitivity_does_not_depend_on_the_batch(clip, pairs):
    tables = [evaluate(clip, pairs, "gradcam", metrics=["max_sensitivity"], batch_size=size) for size in (1, 2)]
    tables = [table.sort_values("id")["value"].to_numpy() for table in tables]
    np.testing.assert_allclose(*tables, rtol=1e-8)


# ---- metrics

MAPS, ON = torch.tensor([[[4.0, 3], [2, -1]]]), torch.tensor([[[True, False], [False, False]]])
LOCALISATION = [metrics.pointing_game, metrics.auc, metrics.energy_inside, metrics.average_precision]
LOCALISATION += [metrics.iou_at_mean, lambda maps, masks: metrics.selectivity(maps, masks, torch.tensor(masks) == 0)]


@pytest.mark.filterwarnings("ignore:To copy construct")
@pytest.mark.parametrize("measure", LOCALISATION)
def test_masks_and_maps_of_other_kinds(measure):
    expected = measure(MAPS, ON)
    for masks in (ON.byte() * 255, ON.float(), ON.numpy(), ON.tolist(), ON.int()):
        assert torch.equal(measure(MAPS, masks), expected)
    for maps in (MAPS.numpy(), MAPS.tolist(), MAPS.clone().requires_grad_()):
        assert torch.equal(measure(maps, ON), expected)
    for masks in (ON / 0, -ON.float()):
        with pytest.raises(ValueError, match="masks must be boolean or numbers"):
            measure(MAPS, masks)
    for maps, message in ((MAPS / 0, "scores must be finite"), (MAPS[:, :0], r"must be \(batch, \., \.\)")):
        with pytest.raises(ValueError, match=message):
            measure(maps, ON)


BAD_SCORES = {
    "NaN map": (lambda scores: scores.image.fill_(NAN), "must be finite"),
    "infinite words": (lambda scores: scores.text.fill_(INF), "must be finite"),
    "another grid": (lambda scores: setattr(scores, "image", scores.image[:, :4]), r"grid \(5, 5\).*do not fit"),
    "too few": (lambda scores: setattr(scores, "image", scores.image[:2]), "do not fit"),
}


@pytest.mark.parametrize("case", BAD_SCORES)
@pytest.mark.parametrize("measure", [metrics.removal_curves, metrics.infidelity])
def test_scores_that_cannot_be_measured(clip, pixel_values, tokens, case, measure):
    change, message = BAD_SCORES[case]
    scores = nib.Scores(torch.ones(3, 5, 5), torch.ones(tokens["input_ids"].shape), torch.zeros(3))
    change(scores)
    with pytest.raises(ValueError, match=message):
        measure(clip, pixel_values, *tokens.values(), scores)


@pytest.mark.parametrize("wrong", [MAPS / 0, MAPS * NAN])
def test_maps_of_absent_prompts_must_be_finite(wrong):
    for maps in ((MAPS, wrong), (wrong, MAPS)):
        with pytest.raises(ValueError, match="must be finite"):
            metrics.absent_prompt(*maps)
    assert metrics.absent_prompt(MAPS.numpy(), MAPS.tolist())["absent_agreement"] == 1


# ---- tables


@pytest.fixture
def table():
    value = np.r_[np.linspace(0, 1, 6), np.linspace(1, 2, 6) ** 2]
    return pd.DataFrame({"id": [*"abcdef"] * 2, "method": ["x"] * 6 + ["y"] * 6, "metric": "m", "value": value})


@pytest.mark.parametrize("values", [[50.0] * 6, [0.0, 50, 100] * 2, [0.0, 1, 1] * 2])
def test_what_is_called_a_share_and_is_none_has_an_interval_round_its_mean(table, values):
    table = table.assign(metric="image_increase", value=values * 2)
    row = metrics.summarise(table, ["method", "metric"]).iloc[0]
    assert row["low"] <= np.mean(values) <= row["high"]
    assert metrics.compare(table, ["metric"], reference="x")["difference"].tolist() == [0]


def test_one_column_may_be_named_alone(table):
    assert metrics.compare(table, "metric", reference="x").equals(metrics.compare(table, ["metric"], reference="x"))
    assert metrics.summarise(table, "method").equals(metrics.summarise(table, ["method"]))


@pytest.mark.parametrize("measure", [metrics.summarise, lambda *table: metrics.compare(*table, reference="x")])
@pytest.mark.parametrize(
    ("change", "by", "error", "message"),
    [
        (lambda table: table, "m", KeyError, "the table has no column m; it has id, method"),
        (lambda table: table, [], ValueError, "by must name at least one column"),
        (lambda table: table, 5, ValueError, "by must name at least one column"),
        (lambda table: table.to_dict(), "metric", TypeError, "must be a table .DataFrame., got dict"),
        (lambda table: table.astype({"value": str}), "metric", ValueError, "column 'value' must hold numbers"),
        (lambda table: table.drop(columns="value"), "metric", KeyError, "no column value"),
    ],
)
def test_tables_are_refused(table, measure, change, by, error, message):
    with pytest.raises(error, match=message):
        measure(change(table), by)


@pytest.mark.parametrize("column", ["id", "method"])
def test_a_comparison_needs_pairs_and_methods(table, column):
    with pytest.raises(KeyError, match=f"the table has no column {column}; it has"):
        metrics.compare(table.drop(columns=column), "metric", reference="x")


def test_p_values_are_probabilities():
    for p in ([0.1, NAN], [-0.1, 0.5], [0.1, 1.5], [[0.1, 0.2]], 0.5):
        with pytest.raises(ValueError, match=r"p must be a list of numbers in \[0, 1\]"):
            metrics.holm(p)
    expected = metrics.holm(np.array([0.01, 0.04, 0.03]))
    assert np.array_equal(metrics.holm([0.01, 0.04, 0.03]), expected)
    assert np.array_equal(metrics.holm(pd.Series([0.01, 0.04, 0.03], index=[5, 1, 9])), expected)


@pytest.mark.parametrize(
    "options", [{"n_resamples": 0}, {"n_resamples": -1}, {"n_resamples": 2.5}, {"seed": -1}, {"seed": "x"}]
)
def test_resamples_are_counted(options):
    with pytest.raises(ValueError, match="must be a whole number"):
        metrics.bootstrap_interval([1.0, 2, 3], **options)
