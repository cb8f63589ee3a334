"""Confidence Drop and Increase by hand, against the model's own forward, and as the released code computes them."""

import copy
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import tensor
from torch.nn.functional import cosine_similarity, interpolate

import nib
from nib.metrics import DIAGNOSTICS, HIGHER_IS_BETTER, confidence

# Tokens of the model by hand, and what they add to the embedding of a caption.
BEGIN, SAME, UP, RIGHT, LEFT, END = range(6)
TABLE = tensor([[0.0, 0], [0, 0], [0, 4], [3, 0], [-4, 0], [0, 0]], dtype=torch.float64)


@dataclass
class BagOfWords:
    """The rest of a text tower that adds up what enters it, up to the pooled token."""

    hidden_states: torch.Tensor
    pool_index: torch.Tensor

    @property
    def real(self):
        return torch.arange(self.hidden_states.shape[1]) <= self.pool_index[:, None]

    def __call__(self, hidden_states):
        seen = torch.arange(hidden_states.shape[1]) <= self.pool_index[:, None]
        return (hidden_states * seen[..., None]).sum(1)


@pytest.fixture
def by_hand():
    """A model of two dimensions: the halves of a picture, and the sum of the words of a caption."""

    def split(input_ids, layer, attention_mask=None):
        return BagOfWords(TABLE[input_ids], input_ids.argmax(1))

    def embed(input_ids, attention_mask=None):
        states = split(input_ids, 0)
        return states(states.hidden_states)

    def words(input_ids, attention_mask=None):
        return (input_ids != BEGIN) & (input_ids != END)

    return SimpleNamespace(
        image=SimpleNamespace(embed=lambda pixel_values: pixel_values.sum((1, 2))),
        text=SimpleNamespace(
            split=split,
            embed=embed,
            words=words,
            embeddings=lambda ids: TABLE[ids],
            enter=lambda states, ids: states,
            begin_tokens=1,
            sees_padding=False,
            find_pooled=None,
        ),
    )


def measure_by_hand(clip, picture, caption, grid, words, **options):
    """Measure one pair; the picture is 2 x 2, and as many patches."""
    grid, words, picture = (tensor([values], dtype=torch.float64) for values in (grid, words, [picture]))
    scores = nib.Scores(grid, words, torch.zeros(1))
    values = confidence(clip, picture, tensor([caption]), None, scores, **options)
    return {name: value.item() for name, value in values.items()}


def test_drop_by_hand(by_hand, subtests):
    # The picture embeds as (1 + 2, 4 + 0) = (3, 4), and so does the caption: o = 1. The map keeps (2, 1.5), so that
    # s = (6 + 6) / (2.5 * 5) = 0.96. Of the words "right" scores less, so that (0, 4) is left: s = 0.8.
    grid, words = tensor([[0, 0.375], [1, 0.5]]), tensor([9.0, 2, 5, -9])
    for scale, offset in [(1, 0), (7, -20), (1e-3, 5)]:
        with subtests.test(f"{scale}, {offset}"):
            values = measure_by_hand(
                by_hand,
                [[1, 4], [2, 0]],
                [BEGIN, RIGHT, UP, END],
                (scale * grid.double() + offset).tolist(),
                (scale * words.double() + offset).tolist(),
            )
            assert values == pytest.approx(
                {
                    "image_drop": 4,
                    "image_increase": 0,
                    "image_drop_relative": 4,
                    "text_drop": 20,
                    "text_increase": 0,
                    "text_drop_relative": 20,
                    "dark_share": 0.25,
                    "constant_map": 0,
                    "text_constant_map": 0,
                }
            )


def test_increase_by_hand(by_hand):
    # o = (0, 5) . (3, 4) / 25 = 0.8, and 1 once "right" is gone. The map turns (0, 5), of the right half, into
    # (0, 2.5): the same direction.
    values = measure_by_hand(by_hand, [[0, 2], [0, 3]], [BEGIN, RIGHT, UP, END], [[1, 1], [0, 1 / 6]], [0, -2, -1, 0])
    assert values["image_drop"] == pytest.approx(0)
    assert values["text_increase"] == 100
    assert values["text_drop"] == values["text_drop_relative"] == 0
    # The picture (8, 4) of the caption (0, 4): o = 1 / sqrt(5); the map leaves (3, 4), of which s = 0.8.
    values = measure_by_hand(by_hand, [[8, 4], [0, 0]], [BEGIN, UP, SAME, END], [[0.375, 1], [0, 0]], [0, 1, 0, 0])
    assert values["image_increase"] == 100
    assert values["image_drop"] == values["image_drop_relative"] == 0
    assert (values["text_increase"], values["text_drop"]) == (0, 0)


def test_relative_drop_is_in_percent_of_the_similarity(by_hand):
    # o = (4, 3) . (0, 5) / 25 = 0.6; the map leaves (4, 0), of which s = 0.
    values = measure_by_hand(by_hand, [[4, 3], [0, 0]], [BEGIN, UP, SAME, END], [[1, 0], [0, 0]], [0, 1, 0, 0])
    assert values["image_drop"] == pytest.approx(60)
    assert values["image_drop_relative"] == pytest.approx(100)
    # The map leaves (4, 2.25): s = 2.25 / sqrt(21.0625) = 0.4903.
    values = measure_by_hand(by_hand, [[4, 3], [0, 0]], [BEGIN, UP, SAME, END], [[1, 0.75], [0, 0]], [0, 1, 0, 0])
    assert values["image_drop"] == pytest.approx(60 - 49.026, abs=1e-3)
    assert values["image_drop_relative"] == pytest.approx(100 * (60 - 49.026) / 60, abs=2e-3)


def test_relative_drop_of_a_similarity_that_is_not_positive_is_missing(by_hand, subtests):
    for picture in [[[-3, 2], [0, 0]], [[-4, 1], [0, 0]], [[-4, 3], [0, 0]]]:
        with subtests.test(str(picture)):
            # Times (3, 4) they give -1, -8 and exactly 0. The map leaves the left half, which is worse.
            values = measure_by_hand(by_hand, picture, [BEGIN, RIGHT, UP, END], [[1, 0], [0, 0]], [0, 2, 1, 0])
            assert values["image_drop"] > 0
            assert values["text_drop"] > 0
            assert math.isnan(values["image_drop_relative"])
            assert math.isnan(values["text_drop_relative"])


def test_repeated_word_by_hand(by_hand):
    # Against (3, 4). Words "up", "right", "up" score 3, 1, 2 -> 1, 0, 0.5: (0, 4 + 2), s = 0.8, o of (3, 8).
    before = (9 + 32) / 5 / 73**0.5
    pair = ([[3, 4], [0, 0]], [BEGIN, UP, RIGHT, UP, END], [[0, 1], [1, 1]])
    values = measure_by_hand(by_hand, *pair, [7, 3, 1, 2, 7])
    assert values["text_drop"] == pytest.approx(100 * (before - 0.8))
    # Released: begin and end, at -1 and 3, stretch the scores to 1, 0.5, 0.75; each "up" weighs 1 * 0.75: (1.5, 6).
    # Pooled at the largest id, the word "right" in the second place: (3, 4) before, o = 1, and (1.5, 3) after.
    values = measure_by_hand(by_hand, *pair, [-1, 3, 1, 2, 3], protocol="released")
    assert values["text_drop"] == pytest.approx(100 * (1 - (1.5 * 3 + 3 * 4) / 5 / 11.25**0.5))


def test_metrics_and_what_is_better(by_hand):
    pair = ([[3, 4], [0, 0]], [BEGIN, UP, RIGHT, END], [[0, 1], [1, 1]], [0, 3, 1, 0])
    measured = set(measure_by_hand(by_hand, *pair))
    assert measured - set(DIAGNOSTICS) < set(HIGHER_IS_BETTER)
    assert {name for name in measured - set(DIAGNOSTICS) if HIGHER_IS_BETTER[name]} == {
        "image_increase",
        "text_increase",
    }
    of_text = ["text_drop", "text_increase", "text_drop_relative", "text_constant_map"]
    assert list(measure_by_hand(by_hand, *pair, sides=["text"])) == of_text


def some_scores(tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    text = torch.randn(tokens["input_ids"].shape, generator=generator, dtype=torch.float64)
    text = torch.where(tokens["attention_mask"] > 0, text, 0.0)
    return nib.Scores(image, text, torch.zeros(3, dtype=torch.float64))


def pair_of(scores, index, length):
    one = slice(index, index + 1)
    return nib.Scores(scores.image[one], scores.text[one, :length], scores.similarity[one])


def points(before, after):
    drop = 100 * max(0.0, before - after)
    relative = drop / before if before > 0 else math.nan
    return {"drop": drop, "increase": 100.0 * (after > before), "drop_relative": relative}


def assert_points(values, index, side, expected):
    found = {name: values[f"{side}_{name}"][index].item() for name in expected}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-8, nan_ok=True)


@pytest.fixture(scope="module")
def both_clips(clip):
    """The tiny model, whose similarities are all negative, and one whose are the opposite."""
    model = copy.deepcopy(clip.model)
    model.visual_projection.weight *= -1
    return {"unlike": clip, "alike": nib.HookedCLIP(model)}


@torch.no_grad()
def plain_text(clip, ids, weights, image_embeds):
    """Encode a caption with its token embeddings weighted one by one, by the model's own forward."""
    table = clip.model.text_model.embeddings.token_embedding

    def weigh(weights):
        handle = table.register_forward_hook(lambda module, args, output: output * weights[:, None])
        try:
            embeds = clip.model.get_text_features(input_ids=ids[None]).pooler_output
        finally:
            handle.remove()
        return cosine_similarity(embeds, image_embeds).item()

    return weigh(torch.ones_like(weights)), weigh(weights)


def test_paper_protocol_is_a_plain_one(both_clips, pixel_values, tokens, subtests):
    for likeness, either_clip in both_clips.items():
        for seed in [0, 1]:
            with subtests.test(f"{likeness}, {seed}"):
                clip, scores = either_clip, some_scores(tokens, seed)
                values = confidence(clip, pixel_values, **tokens, scores=scores)
                assert all(value.shape == (3,) and value.dtype == torch.float64 for value in values.values())
                with torch.no_grad():
                    image_embeds = clip.model.get_image_features(pixel_values=pixel_values).pooler_output
                for index, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
                    ids, embeds = tokens["input_ids"][index, :length], image_embeds[index : index + 1]
                    words = scores.text[index, 1 : length - 1]
                    weights = torch.ones(length, dtype=torch.float64)
                    weights[1:-1] = (words - words.min()) / (words.max() - words.min())
                    assert_points(values, index, "text", points(*plain_text(clip, ids, weights, embeds)))

                    large = interpolate(scores.image[index][None, None], (60, 60), mode="bilinear")[0, 0]
                    seen = pixel_values[index] * (large - large.min()) / (large.max() - large.min())
                    with torch.no_grad():
                        after = clip.model.get_image_features(pixel_values=seen[None]).pooler_output
                        text = clip.model.get_text_features(input_ids=ids[None]).pooler_output
                    expected = points(cosine_similarity(embeds, text).item(), cosine_similarity(after, text).item())
                    assert_points(values, index, "image", expected)


@torch.no_grad()
def plain_released(clip, ids, scores, image_embeds):
    """Do R3 to R5 to the letter: strip, scale rows of a copy's table word by word, encode, pool at the largest id."""
    stretched = (scores - scores.min()) / (scores.max() - scores.min())  # begin and end included
    stripped, stretched = ids[1:-1], stretched[1:-1]
    changed = copy.deepcopy(clip.model)
    table = changed.text_model.embeddings.token_embedding.weight
    for token, score in zip(stripped.tolist(), stretched.tolist()):
        table[token] *= score
    similarities = []
    for model in (copy.deepcopy(clip.model), changed):
        model.text_model.eos_token_id = 2  # the config of the hub
        embeds = model.get_text_features(input_ids=stripped[None]).pooler_output
        similarities.append(cosine_similarity(embeds, image_embeds).item())
    return similarities


def test_released_protocol_is_a_plain_one(both_clips, pixel_values, tokens, subtests):
    for likeness, either_clip in both_clips.items():
        for seed in [0, 1, 2]:
            with subtests.test(f"{likeness}, {seed}"):
                assert len(tokens["input_ids"][1, 1:10].unique()) < 9  # "dog" occurs twice, "a" too
                clip, scores = either_clip, some_scores(tokens, seed)
                values = confidence(clip, pixel_values, **tokens, scores=scores, protocol="released")
                with torch.no_grad():
                    image_embeds = clip.model.get_image_features(pixel_values=pixel_values).pooler_output
                for index, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
                    ids, embeds = tokens["input_ids"][index, :length], image_embeds[index : index + 1]
                    expected = points(*plain_released(clip, ids, scores.text[index, :length], embeds))
                    assert_points(values, index, "text", expected)


def test_protocols_differ_for_captions_only(clip, pixel_values, tokens):
    scores = some_scores(tokens)
    paper = confidence(clip, pixel_values, **tokens, scores=scores)
    released = confidence(clip, pixel_values, **tokens, scores=scores, protocol="released")
    for name in paper:
        same = torch.equal(paper[name].nan_to_num(nan=-1), released[name].nan_to_num(nan=-1))
        assert same or name.startswith("text")
    assert not torch.equal(paper["text_drop"], released["text_drop"])


def test_constant_map_changes_nothing(clip, pixel_values, tokens, subtests):
    values = {"paper": (0.0, -0.1, 1.0, 1e-30, 12345.678), "released": (1.0, 1e-30, 12345.678)}
    cases = [(protocol, value) for protocol in values for value in values[protocol]]
    for dtype in [torch.float64, torch.float32]:
        for protocol, value in cases:
            with subtests.test(f"{dtype}, {protocol}, {value}"):
                clip = nib.HookedCLIP(copy.deepcopy(clip.model).to(dtype))
                full = (
                    torch.full((3, 5, 5), value, dtype=dtype),
                    torch.full(tokens["input_ids"].shape, value, dtype=dtype),
                )
                scores = nib.Scores(*full, torch.zeros(3, dtype=dtype))
                values = confidence(clip, pixel_values.to(dtype), **tokens, scores=scores, protocol=protocol)
                for name in ("constant_map", "text_constant_map"):
                    assert torch.equal(values.pop(name), torch.ones(3, dtype=dtype))
                for name, numbers in values.items():
                    zero = numbers.nan_to_num() if name.endswith("relative") else numbers
                    assert torch.equal(zero, torch.zeros(3, dtype=dtype)), name


def test_constant_map_without_a_positive_score_masks_all_as_released(both_clips, pixel_values, tokens, subtests):
    for likeness, either_clip in both_clips.items():
        for value in [0.0, -0.1]:
            with subtests.test(f"{likeness}, {value}"):
                scores, constant = some_scores(tokens), torch.full((3, 5, 5), value, dtype=torch.float64)
                constant[0] = scores.image[0]  # the first is none
                text = scores.text.clone()
                text[1] = value
                scores = replace(scores, image=constant, text=text)
                values = confidence(either_clip, pixel_values, **tokens, scores=scores, protocol="released")
                assert values["constant_map"].tolist() == [0, 1, 1]
                assert values["text_constant_map"].tolist() == [0, 1, 0]
                assert values["dark_share"].tolist()[1:] == [1, 1]
                paper = confidence(either_clip, pixel_values, **tokens, scores=scores)
                assert torch.equal(values["image_drop"][0], paper["image_drop"][0])
                with torch.no_grad():
                    text = either_clip.text.embed(*tokens.values())
                    before, after = (
                        cosine_similarity(either_clip.image.embed(pixels), text)
                        for pixels in (pixel_values, 0 * pixel_values)
                    )
                    image = either_clip.image.embed(pixel_values)
                for index in (1, 2):
                    assert_points(values, index, "image", points(before[index].item(), after[index].item()))
                ids = tokens["input_ids"][1, : tokens["attention_mask"][1].sum()]
                blank = torch.zeros(len(ids), dtype=torch.float64)
                blank[0] = 1e-300  # begin alone stands out: no word is seen
                assert_points(values, 1, "text", points(*plain_released(either_clip, ids, blank, image[1:2])))


def test_dark_share_is_that_of_the_stretched_map(by_hand):
    # Four pixels, stretched to 0, 0.05, 0.1 and 1: two lie below 0.1.
    values = measure_by_hand(by_hand, [[1, 4], [2, 0]], [BEGIN, UP, END], [[-1, 0], [1.001, 19]], [0, 1, 0])
    assert values["dark_share"] == 0.5
    assert values["constant_map"] == 0
    values = measure_by_hand(by_hand, [[1, 4], [2, 0]], [BEGIN, UP, END], [[3, 3], [3, 3]], [0, 1, 0])
    assert (values["dark_share"], values["constant_map"], values["text_constant_map"]) == (0, 1, 1)  # of one word


def test_caption_of_one_word_and_words_that_score_alike(clip, pixel_values, tokens):
    scores = some_scores(tokens)
    ids = torch.cat([tokens["input_ids"][:1, :1], tokens["input_ids"][:1, 2:4]], 1)  # begin, cat, end
    one = replace(pair_of(scores, 0, 3), text=tensor([[0.3, -5.0, 2.0]]).double())
    values = confidence(clip, pixel_values[:1], ids, torch.ones_like(ids), one)
    assert values["text_drop"].item() == values["text_increase"].item() == 0
    text = torch.where((torch.arange(scores.text.shape[1]) == 0) | (tokens["input_ids"] == 1330), scores.text, 0.25)
    values = confidence(clip, pixel_values, **tokens, scores=replace(scores, text=text))
    assert not values["text_drop"].any()
    assert not values["text_increase"].any()


def test_begin_and_end_have_no_part_in_the_paper_protocol(clip, pixel_values, tokens):
    scores = some_scores(tokens)
    text = scores.text.clone()
    text[:, 0] = 100
    text[torch.arange(3), tokens["attention_mask"].sum(1) - 1] = -100
    changed = replace(scores, text=text)
    for protocol, equal in (("paper", True), ("released", False)):
        options = dict(tokens, protocol=protocol)
        first, second = (confidence(clip, pixel_values, scores=each, **options) for each in (scores, changed))
        assert torch.equal(first["text_drop"], second["text_drop"]) == equal


def test_a_pair_measures_the_same_alone_and_in_a_padded_batch(clip, pixel_values, tokens, subtests):
    for protocol in ["paper", "released"]:
        with subtests.test(protocol):
            scores = some_scores(tokens)
            whole = confidence(clip, pixel_values, **tokens, scores=scores, protocol=protocol)
            for index, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
                ids = tokens["input_ids"][index : index + 1, :length]
                single = confidence(
                    clip, pixel_values[index : index + 1], ids, None, pair_of(scores, index, length), protocol=protocol
                )
                for name, value in single.items():
                    torch.testing.assert_close(
                        whole[name][index : index + 1], value, rtol=1e-9, atol=1e-9, equal_nan=True
                    )


def test_padding_has_no_influence(clip, pixel_values, tokens, subtests):
    for protocol in ["paper", "released"]:
        with subtests.test(protocol):
            scores = some_scores(tokens)
            whole = confidence(clip, pixel_values, **tokens, scores=scores, protocol=protocol)
            garbage = replace(scores, text=torch.where(tokens["attention_mask"] > 0, scores.text, 1e3))
            ids = torch.where(tokens["attention_mask"] > 0, tokens["input_ids"], 0)  # another padding: an id of a word
            for mask in (tokens["attention_mask"], None):
                values = confidence(clip, pixel_values, ids, mask, garbage, protocol=protocol)
                for name, value in values.items():
                    torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_one_picture_serves_many_captions_and_the_size_of_batches_has_no_effect(clip, pixel_values, tokens, subtests):
    for protocol in ["paper", "released"]:
        with subtests.test(protocol):
            scores = some_scores(tokens)
            repeated = pixel_values[:1].repeat(3, 1, 1, 1)
            whole = confidence(clip, repeated, **tokens, scores=scores, protocol=protocol)
            for pictures, size in ((pixel_values[:1], 64), (pixel_values[:1], 2), (repeated, 1), (repeated, 2)):
                values = confidence(clip, pictures, **tokens, scores=scores, protocol=protocol, batch_size=size)
                for name, value in values.items():
                    torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_takes_what_methods_give(clip, pixel_values, tokens, subtests):
    for method in ["nib", "gradcam", "none"]:
        with subtests.test(method):
            parameters = {} if method == "none" else {"layer": 2}
            scores = nib.METHODS[method](clip, pixel_values, **tokens, **parameters)
            for protocol in ("paper", "released"):
                values = confidence(clip, pixel_values, **tokens, scores=scores, protocol=protocol)
                assert all(value.shape == (3,) for value in values.values())
            assert method != "none" or not values["image_drop"].any()


def test_bad_arguments(clip, pixel_values, tokens):
    scores = some_scores(tokens)

    def measure(pictures=pixel_values, scores=scores, **options):
        return confidence(clip, pictures, **tokens, scores=scores, **options)

    with pytest.raises(ValueError, match=r"protocol must be one of \['paper', 'released'\], got 'author'"):
        measure(protocol="author")
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        measure(batch_size=0)
    for sides in ([], ["image", "sound"], "image"):
        with pytest.raises(ValueError, match="sides must be some of"):
            measure(sides=sides)
    for bad in (dict(image=scores.image[:2]), dict(text=scores.text[:, :-1]), dict(text=scores.text[:2])):
        with pytest.raises(ValueError, match="scores must be of these pairs"):
            measure(scores=replace(scores, **bad))
    with pytest.raises(ValueError, match="scores must be of these pairs"):
        measure(pictures=pixel_values[:2])


def test_scores_that_are_not_finite_are_no_map(clip, pixel_values, tokens, subtests):
    for side in ["image", "text"]:
        for value in [torch.nan, torch.inf]:
            with subtests.test(f"{side}, {value}"):
                scores = some_scores(tokens)
                getattr(scores, side)[1].view(-1)[3] = value  # it would stretch to all ones, the best of maps
                with pytest.raises(ValueError, match="scores must be finite, got NaN or infinity"):
                    confidence(clip, pixel_values, **tokens, scores=scores)


def test_leaves_model_and_scores_as_they_were(clip, pixel_values, tokens, subtests):
    for protocol in ["paper", "released"]:
        with subtests.test(protocol):
            scores = some_scores(tokens)
            kept = copy.deepcopy(scores)
            before = {name: value.clone() for name, value in clip.model.state_dict().items()}
            values = confidence(clip, pixel_values, **tokens, scores=scores, protocol=protocol)
            assert not any(value.requires_grad for value in values.values())
            assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in clip.model.modules())
            assert all(parameter.grad is None for parameter in clip.model.parameters())
            assert torch.equal(scores.image, kept.image)
            assert torch.equal(scores.text, kept.text)
