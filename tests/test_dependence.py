"""Removal curves, randomisation and the rest equal what loops and hands compute."""

import math

import pytest
import torch
from conftest import CAPTIONS
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

import nib
from benchmarks.families import build
from nib.inputs import to_tokens
from nib.metrics import absent_prompt, average_precision, infidelity, iou_at_mean, max_sensitivity, randomisation
from nib.metrics.removal import RemovalCurves, blur_out, paint_out, removal_curves, spread

PRECISE = dict(atol=1e-9, rtol=0)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def scores(tokens):
    return nib.Scores(draw(3, 5, 5), draw(*tokens["input_ids"].shape), torch.zeros(3))


def follow_plainly(clip, picture, caption, order, text_order, removal, n_steps):
    """Remove one after another from one pair."""
    ids = caption[None]
    image, text = clip.image.embed(picture[None]), clip.text.embed(ids)
    of_image, of_text = [], []
    for step in range(n_steps + 1):
        gone = order[: round(step * len(order) / n_steps)]
        if removal == "left_out":
            split = clip.image.split(picture[None], 0)
            kept = [token for token in range(26) if token - 1 not in gone]
            states = split.hidden_states[:, kept]
            embeds = nib.towers.Split(states, split.real[:, kept], split.pool_index, clip.image, 0, split.arguments)(
                states
            )
        else:
            changed = picture.clone()
            for patch in gone:
                row, column = divmod(patch, 5)
                changed[:, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = 0
            embeds = clip.image.embed(changed[None])
        of_image.append(cosine_similarity(embeds, text))
        dropped = text_order[: int(torch.round(torch.tensor(step * len(text_order) / n_steps)))]
        kept = [token for token in range(len(caption)) if token not in dropped]
        of_text.append(cosine_similarity(clip.text.embed(ids[:, kept]), image))
    return torch.cat(of_image), torch.cat(of_text)


def test_patches_are_spread_over_their_pixels_and_not_beyond_the_last():
    pixels = spread(torch.tensor([[[1, 2]]]), 2, torch.zeros(1, 3, 3, 5))
    assert pixels.tolist() == [[[[1, 1, 2, 2, 0], [1, 1, 2, 2, 0], [0, 0, 0, 0, 0]]]]


def test_curves_are_those_of_a_loop(clip, pixel_values, tokens, scores, subtests):
    for removal in ["left_out", "mean_colour"]:
        for batch_size in [64, 2]:
            with subtests.test(f"{removal}, {batch_size}"):
                found = removal_curves(
                    clip, pixel_values, **tokens, scores=scores, removal=removal, n_steps=4, batch_size=batch_size
                )
                for row in range(3):
                    length = int(tokens["attention_mask"][row].sum())
                    words = 1 + scores.text[row, 1 : length - 1].argsort(descending=True)
                    patches = scores.image[row].flatten().argsort(descending=True)
                    for name, order, text_order in (
                        ("most", patches, words),
                        ("least", patches.flip(0), words.flip(0)),
                    ):
                        caption = tokens["input_ids"][row, :length]
                        image, text = follow_plainly(
                            clip, pixel_values[row], caption, order.tolist(), text_order.tolist(), removal, 4
                        )
                        assert_close(getattr(found, f"image_{name}_first")[row], image, **PRECISE)
                        assert_close(getattr(found, f"text_{name}_first")[row], text, **PRECISE)


def test_curves_begin_with_nothing_removed_and_break_ties_by_the_seed(clip, pixel_values, tokens, scores):
    found = removal_curves(clip, pixel_values, **tokens, scores=scores)
    similarity = cosine_similarity(clip.image.embed(pixel_values), clip.text.embed(*tokens.values()))
    for side in ("image", "text"):
        most, least = getattr(found, f"{side}_most_first"), getattr(found, f"{side}_least_first")
        assert most.shape == (3, 8)
        assert_close(most[:, 0], similarity, **PRECISE)
        assert_close(most[:, -1], least[:, -1], **PRECISE)

    flat = nib.METHODS["none"](clip, pixel_values, **tokens)
    curves = [removal_curves(clip, pixel_values, **tokens, scores=flat, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(curves[0].image_most_first, curves[1].image_most_first)
    assert not torch.equal(curves[0].image_most_first, curves[2].image_most_first)
    assert_close(curves[0].image_most_first, curves[0].image_least_first)  # both orders are the drawn one
    one = removal_curves(clip, pixel_values[2:], *(part[2:] for part in tokens.values()), scores=nib.Scores(
        flat.image[2:], flat.text[2:], flat.similarity[2:]
    ))  # fmt: skip
    assert_close(one.image_most_first[0], curves[0].image_most_first[2])


def test_summaries_of_curves_and_maps_by_hand():
    curves = RemovalCurves(torch.tensor([[0.9, 0.1, 0.2]]), torch.tensor([[0.9, 0.6, 0.3]]))
    found = curves.summarise()
    assert found["image_deletion"].item() == pytest.approx(0.4)
    assert found["image_insertion"].item() == pytest.approx(0.6)
    assert found["image_srg"].item() == pytest.approx(0.2)
    assert "text_srg" not in found

    maps = torch.tensor([[[4.0, 3], [2, 1]], [[1.0, 1], [1, 1]]])
    masks = torch.tensor([[[1, 0], [1, 0]], [[1, 0], [0, 0]]]).bool()
    assert average_precision(maps, masks).tolist() == pytest.approx([(1 + 2 / 3) / 2, 0.25])
    assert iou_at_mean(maps, masks).tolist() == pytest.approx([1 / 3, 0])

    right = torch.tensor([[[1.0, -9, 0.5]], [[2.0, 2, 2]], [[0.0, 1, 2]]])
    wrong = torch.tensor([[[0.5, 1.0, 0.2]], [[0.0, 1, 2]], [[2.0, 1, 0]]])
    found = absent_prompt(right, wrong)
    assert found["absent_peak"].tolist() == [0.5, 0.5, 0.5]
    assert found["absent_mass"].tolist() == [0, 1, 0.5]
    assert found["absent_agreement"].tolist()[2] == -1
    assert math.isnan(found["absent_agreement"][1])
    with pytest.raises(ValueError, match="alike"):
        absent_prompt(right, wrong[:2])


def test_blur_keeps_what_is_not_removed_and_a_flat_picture(clip, pixel_values):
    none, every = torch.zeros(3, 5, 5, dtype=torch.bool), torch.ones(3, 5, 5, dtype=torch.bool)
    assert_close(blur_out(clip, pixel_values, none), clip.image.embed(pixel_values), **PRECISE)
    flat = torch.full_like(pixel_values, 0.7)
    assert_close(blur_out(clip, flat, every), clip.image.embed(flat), **PRECISE)
    assert (blur_out(clip, pixel_values, every) - clip.image.embed(pixel_values)).abs().max() > 1e-3


def test_a_tower_without_class_token_is_painted(scores):
    clip = build("siglip")
    ids, mask, _ = to_tokens(clip, CAPTIONS)
    pictures, maps = draw(3, 3, 36, 36), nib.Scores(draw(3, 3, 3), draw(*ids.shape), torch.zeros(3))
    with pytest.raises(ValueError, match="'left_out' would leave nothing"):
        removal_curves(clip, pictures, ids, mask, maps, removal="left_out")
    found = removal_curves(clip, pictures, ids, mask, maps, n_steps=3)
    painted = removal_curves(clip, pictures, ids, mask, maps, removal="mean_colour", n_steps=3)
    assert torch.equal(found.image_most_first, painted.image_most_first)
    assert found.text_most_first.isfinite().all()


def test_bad_arguments(clip, pixel_values, tokens, scores, subtests):
    cases = [
        (dict(removal="burnt"), "removal must be one of .*'left_out'.*got 'burnt'"),
        (dict(n_steps=0), "n_steps must be a whole number of at least 1, got 0"),
        (dict(sides=()), "sides must be some of"),
    ]
    for options, message in cases:
        with subtests.test(f"{options}, {message}"), pytest.raises(ValueError, match=message):
            removal_curves(clip, pixel_values, **tokens, scores=scores, **options)


def test_randomisation_reaches_the_map_and_leaves_the_model(clip, pixel_values, tokens):
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    seen = []

    def explain(other):
        seen.append({name: value.clone() for name, value in other.model.state_dict().items()})
        return nib.METHODS["nib"](other, pixel_values, **tokens, layer=2)

    found = randomisation(clip, explain, n_late=1)
    assert set(found) == {"randomised_projection", "randomised_late", "randomised_all"}
    assert all((values.abs() <= 1).all() and (values < 0.999).all() for values in found.values())
    assert all(torch.equal(clip.model.state_dict()[name], value) for name, value in before.items())
    changed = [[name for name in state if not torch.equal(state[name], before[name])] for state in seen[1:]]
    assert changed[0] == ["visual_projection.weight"]
    assert {name.split(".")[3] for name in changed[1] if ".layers." in name} == {"3"}
    assert {name.split(".")[3] for name in changed[2] if ".layers." in name} == {"0", "1", "2", "3"}
    assert not any("text" in name for name in changed[2])
    again = randomisation(clip, lambda other: nib.METHODS["center"](other, pixel_values, **tokens))
    assert all((values == 1).all() for values in again.values())  # a map that knows nothing stays


def test_infidelity_is_zero_for_what_painting_costs_and_by_a_loop(clip, pixel_values, tokens, scores, monkeypatch):
    found = infidelity(clip, pixel_values, **tokens, scores=scores, n_samples=6)
    generator, text = torch.Generator().manual_seed(0), clip.text.embed(*tokens.values())
    gone = torch.rand(6, 5, 5, generator=generator) < 0.2
    whole = cosine_similarity(clip.image.embed(pixel_values[:1]), text[:1])
    painted = paint_out(clip, pixel_values[:1].repeat(6, 1, 1, 1), gone)
    cost = whole - cosine_similarity(painted, text[:1])
    claimed = (gone * scores.image[0]).sum((1, 2))
    scale = (claimed * cost).mean() / (claimed**2).mean()
    assert_close(found[0], ((scale * claimed - cost) ** 2).mean(), **PRECISE)


def test_sensitivity_of_a_linear_map_by_hand():
    pictures = draw(2, 3, 4, 4)
    found = max_sensitivity(pictures, lambda x: x.mean(1), radius=0.1, n_samples=3)
    noise = 0.1 * (2 * torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double() - 1)
    change = noise.mean(1).flatten(1).norm(dim=1).amax()  # the same three draws for each picture
    assert_close(found, change / pictures.mean(1).flatten(1).norm(dim=1), **PRECISE)
    with pytest.raises(ValueError, match="radius must be more than 0"):
        max_sensitivity(pictures, lambda x: x.mean(1), radius=0)


def test_evaluate_measures_it_all_and_goes_on_where_it_was(tmp_path):
    clip = nib.load()
    images, texts, masks = nib.datasets.object_prompts(limit=3)
    pairs = [
        dict(id=str(row), image=image, text=text, masks=mask, absent="a photo of a teapot")
        for row, (image, text, mask) in enumerate(zip(images, texts, masks))
    ]
    metrics = ["faithfulness", "absent_prompt", "randomisation", "infidelity", "max_sensitivity", "localisation"]
    methods = ["gradcam", "random", "true_mask"]
    tables = [nib.evaluate(clip, pairs, methods, metrics=metrics, output=tmp_path, progress=False) for _ in range(2)]
    assert tables[0].equals(tables[1])
    found = {name: set(part["metric"]) for name, part in tables[0].groupby("method")}
    assert found["gradcam"] >= {
        "image_srg",
        "text_srg",
        "absent_peak",
        "randomised_all",
        "infidelity",
        "max_sensitivity",
    }
    assert found["true_mask"] >= {"image_srg", "infidelity", "average_precision"}
    assert not found["true_mask"] & {"text_srg", "absent_peak", "randomised_all"}
    assert found["gradcam"] <= set(nib.metrics.HIGHER_IS_BETTER)
    wide = tables[0].pivot_table(index="method", columns="metric", values="value")
    assert wide.loc["true_mask", "average_precision"] == 1
    with pytest.raises(ValueError, match="pairs must have the columns absent, got"):
        nib.evaluate(clip, [{k: v for k, v in pairs[0].items() if k != "absent"}], metrics=["absent_prompt"])
