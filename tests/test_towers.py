"""A tower says what differs between families; cut and joined it is the model's own, and the model stays as it was."""

import ast
import copy
import dataclasses
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import CAPTIONS, make_config, randomise
from PIL import Image
from torch import nn
from torch.testing import assert_close
from transformers import BertConfig, BertModel, CLIPModel, MetaClip2Config, MetaClip2Model

import nib

LAYERS = range(5)  # from before the first block to after the last
END_IDS = (1330, 2)  # the last: pools at the largest id, as the hub's old configs do
PRECISE = dict(atol=1e-10, rtol=0)
SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)

# transformers leaves hooks on a model that was asked for its hidden states, so copies are asked.


def encode_images(clip, pixel_values, **options):
    return clip.model.get_image_features(pixel_values=pixel_values, **options).pooler_output


def encode_texts(clip, tokens):
    return clip.model.get_text_features(**tokens).pooler_output


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def clips(tokenizer, image_processor):
    """One model that pools a caption at its end id, and at its largest id."""
    models = [randomise(CLIPModel(make_config(eos_token_id))).double() for eos_token_id in END_IDS]
    return [nib.HookedCLIP(model, tokenizer, image_processor) for model in models]


@pytest.fixture(scope="module")
def hooked(clips):
    return clips[0]


@pytest.fixture
def splits(hooked, pixel_values, tokens):
    """Both towers, with three inputs in each, cut in the middle."""
    image = hooked.image.split(pixel_values, 2)
    return {"image": image, "text": hooked.text.split(tokens["input_ids"], 2, tokens["attention_mask"])}


def test_image_tower_is_the_models(hooked, pixel_values, subtests):
    own = copy.deepcopy(hooked.model).vision_model(pixel_values, output_hidden_states=True).hidden_states
    embeds = encode_images(hooked, pixel_values)
    assert_close(hooked.image.embed(pixel_values), embeds, **PRECISE)
    for layer in LAYERS:
        with subtests.test(f"layer {layer}"):
            split = hooked.image.split(pixel_values, layer)
            assert_close(split.hidden_states, own[layer], **PRECISE)
            assert_close(split(split.hidden_states), embeds, **PRECISE)


def test_text_tower_is_the_models(clips, tokens, subtests):
    for clip, end_id in zip(clips, END_IDS):
        own = copy.deepcopy(clip.model).text_model(**tokens, output_hidden_states=True).hidden_states
        embeds = encode_texts(clip, tokens)
        assert_close(clip.text.embed(*tokens_of(tokens)), embeds, **PRECISE)
        for layer in LAYERS:
            with subtests.test(f"end id {end_id}, layer {layer}"):
                split = clip.text.split(tokens["input_ids"], layer, tokens["attention_mask"])
                assert_close(split.hidden_states, own[layer], **PRECISE)
                assert_close(split(split.hidden_states), embeds, **PRECISE)


def test_layer_is_three_quarters_of_the_blocks(hooked, pixel_values, tokens):
    assert hooked.image.split(pixel_values).layer == hooked.image.default_layer == 3
    assert hooked.text.split(tokens["input_ids"]).layer == 3
    assert dataclasses.replace(hooked.image, blocks=nn.ModuleList([nn.Identity()] * 12)).default_layer == 9
    assert dataclasses.replace(hooked.image, blocks=nn.ModuleList([nn.Identity()] * 6)).default_layer == 4


def test_pictures_of_another_size(hooked, subtests):
    for size in ((84, 84), (36, 72), (65, 50)):
        with subtests.test(str(size)):
            pixel_values = draw(2, 3, *size)
            split = hooked.image.split(pixel_values, 2)
            grid = hooked.grid(pixel_values)
            assert grid == (size[0] // 12, size[1] // 12)
            assert split.real.shape == split.hidden_states.shape[:2] == (2, 1 + grid[0] * grid[1])
            expected = encode_images(hooked, pixel_values, interpolate_pos_encoding=True)
            assert_close(split(split.hidden_states), expected, **PRECISE)
            entered = hooked.image.enter(hooked.image.embeddings(pixel_values))
            assert_close(entered, hooked.image.split(pixel_values, 0).hidden_states)


def tokens_of(tokens):
    return tokens["input_ids"], tokens["attention_mask"]


def test_scores_of_tokens_go_to_the_grid_and_back(hooked):
    scores = draw(2, 1 + 6)
    patches, class_score = hooked.image.to_grid(scores, (2, 3))
    assert torch.equal(patches[1, 1], scores[1, 4:])
    assert torch.equal(class_score, scores[:, 0])
    assert torch.equal(hooked.image.from_grid(patches, 7.0)[:, 1:], scores[:, 1:])
    assert hooked.image.from_grid(patches, 7.0)[:, 0].tolist() == [7, 7]
    headless = dataclasses.replace(hooked.image, class_tokens=0)
    patches, class_score = headless.to_grid(scores[:, 1:], (3, 2))
    assert torch.equal(patches[0, 2], scores[0, 5:])
    assert class_score is None
    assert torch.equal(headless.from_grid(patches, 7.0), scores[:, 1:])
    assert headless.locate(torch.zeros(2, 3, 24, 36), None)[1] is None


def test_words_are_neither_begin_nor_end_nor_padding(clips, tokens, subtests):
    ids, own_mask = tokens_of(tokens)
    lengths = own_mask.sum(1)
    for clip, end_id in zip(clips, END_IDS):
        for mask in (own_mask, None):
            with subtests.test(f"end id {end_id}, {'no mask' if mask is None else 'mask'}"):
                words = clip.text.words(ids, mask)
                for row, length in enumerate(lengths):
                    assert words[row].tolist() == [0 < position < length - 1 for position in range(ids.shape[1])]
                real, pooled = clip.text.locate(ids, mask)
                assert torch.equal(real, own_mask.bool())
                assert torch.equal(pooled, lengths - 1)


def test_a_mask_in_the_middle_of_a_caption_hides_words(clips, tokens):
    ids, mask = tokens["input_ids"][:1, :4], torch.tensor([[1, 0, 1, 1]])
    for clip in clips:
        assert clip.text.words(ids, mask).tolist() == [[False, False, True, False]]
        assert clip.text.locate(ids, mask)[0].tolist() == [[True, False, True, True]]


def test_what_a_bidirectional_tower_with_visible_padding_says(hooked, tokens):
    ids, mask = tokens_of(tokens)
    last = dataclasses.replace(
        hooked.text, sees_padding=True, begin_tokens=0, find_pooled=lambda ids: ids[:, 0] * 0 + ids.shape[1] - 1
    )
    real, pooled = last.locate(ids, mask)
    assert real.all()
    assert pooled.tolist() == [ids.shape[1] - 1] * 3
    assert last.words(ids).sum(1).tolist() == (mask.sum(1) - 1).tolist()


def test_pooled_token_follows_the_config(subtests):
    for eos_token_id, pooled in ((809, 2), (2, 3)):  # the first end token; the largest id
        with subtests.test(f"end id {eos_token_id}"):
            clip = nib.HookedCLIP(randomise(CLIPModel(make_config(eos_token_id))).double())
            tokens = {"input_ids": torch.tensor([[5, 320, 809, 1330, 809]])}
            split = clip.text.split(tokens["input_ids"], 2)
            assert split.pool_index.tolist() == [pooled]
            assert_close(split(split.hidden_states), encode_texts(clip, tokens), **PRECISE)


def test_metaclip_2_pools_strictly_at_its_end_id(subtests):
    config = MetaClip2Config(
        text_config=dict(vocab_size=50, max_position_embeddings=16, eos_token_id=2, pad_token_id=1, **SMALL),
        vision_config=dict(image_size=60, patch_size=12, **SMALL),
        projection_dim=16,
    )
    clip = nib.HookedCLIP(randomise(MetaClip2Model(config)).double())
    tokens = dict(input_ids=torch.tensor([[0, 40, 7, 2, 1], [0, 9, 2, 1, 1]]))
    tokens["attention_mask"] = (tokens["input_ids"] != 1).long()
    for layer in LAYERS:
        with subtests.test(f"layer {layer}"):
            image = clip.image.split(draw(2, 3, 60, 60), layer)
            text = clip.text.split(tokens["input_ids"], layer, tokens["attention_mask"])
            assert text.pool_index.tolist() == [3, 2]
            assert_close(text(text.hidden_states), encode_texts(clip, tokens), **PRECISE)
            assert_close(image(image.hidden_states), encode_images(clip, draw(2, 3, 60, 60)), **PRECISE)


def test_a_head_that_pools_all_tokens_runs_after_the_whole_last_block(hooked, pixel_values):
    """As in SigLIP: no token is pooled alone, and no block is shortened."""

    class Mean(nn.Module):
        def forward(self, states):
            return states.mean(1)

    tower = dataclasses.replace(hooked.image, head=Mean(), norm=nn.Identity())
    split = dataclasses.replace(hooked.image.split(pixel_values, 2), tower=tower, pool_index=None)
    own = copy.deepcopy(hooked.model).vision_model(pixel_values, output_hidden_states=True).hidden_states[-1]
    twice = torch.cat([split.hidden_states] * 2)
    assert_close(split(twice), own.mean(1).repeat(2, 1), **PRECISE)
    assert_close(split[1:](split.hidden_states[1:]), own[1:].mean(1), **PRECISE)


def test_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"model_type must be one of \[.*'clip', .*\], got 'bert'"):
        nib.HookedCLIP(BertModel(BertConfig(**SMALL)))


def test_rows_are_step_major(splits, subtests):
    for side, split in splits.items():
        with subtests.test(side):
            steps = [scale * split.hidden_states for scale in (1.0, 0.5, 0.1)]
            assert_close(split(torch.cat(steps)), torch.cat([split(step) for step in steps]), **PRECISE)


def test_part_of_a_split_is_the_split_of_a_part(splits, subtests):
    for side, split in splits.items():
        for rows in (slice(0, 1), slice(1, 3), torch.tensor([2, 0])):
            with subtests.test(f"{side}, {rows}"):
                part = split[rows]
                assert len(part) == len(split.hidden_states[rows])
                assert torch.equal(part.real, split.real[rows])
                assert_close(part(part.hidden_states), split(split.hidden_states)[rows], **PRECISE)
                twice = torch.cat([part.hidden_states, 0.5 * part.hidden_states])
                assert_close(part(twice)[len(part) :], split(0.5 * split.hidden_states)[rows], **PRECISE)


def test_what_belongs_to_tokens_is_not_cut_where_there_are_as_many_inputs(hooked, monkeypatch):
    """Blocks that get a table (tokens, width), as rotary ones do: three patches and a class token, four pictures."""
    clip = nib.HookedCLIP(copy.deepcopy(hooked.model))
    encoder, table = clip.model.vision_model.encoder, draw(4, 32)

    class Rotary(type(encoder.layers[0])):
        def forward(self, hidden_states, attention_mask, table=None, **kwargs):
            return super().forward(hidden_states + table, attention_mask, **kwargs)

    for block in encoder.layers:
        block.__class__ = Rotary
    call = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda **kwargs: call(**kwargs, table=table))
    pixel_values = draw(4, 3, 12, 36)
    split = clip.image.split(pixel_values, 2)
    assert split.hidden_states.shape[:2] == (4, 4)
    expected = clip.image.embed(pixel_values)
    assert_close(split(torch.cat([split.hidden_states] * 2)), expected.repeat(2, 1), **PRECISE)
    for rows in (slice(0, 2), torch.tensor([3, 0])):
        assert_close(split[rows](split.hidden_states[rows]), expected[rows], **PRECISE)


def test_rows_must_be_a_multiple_of_the_batch(splits, subtests):
    for side, split in splits.items():
        tokens = split.hidden_states.shape[1]
        for rows in (0, 2, 4):
            message = rf"hidden_states must have shape \(k \* 3, {tokens}, 32\), got"
            with subtests.test(f"{side}, {rows}"), pytest.raises(ValueError, match=message):
                split(torch.zeros(rows, tokens, 32, dtype=torch.float64))


def test_layer_out_of_range(hooked, pixel_values, subtests):
    for layer in (-1, 5, 2.0, True, "2"):
        message = f"layer must be a whole number from 0 to 4, got {layer!r}"
        with subtests.test(repr(layer)), pytest.raises(ValueError, match=message):
            hooked.image.split(pixel_values, layer)


@contextmanager
def untouched(model):
    """Check that the model leaves the `with` as it entered it, bit for bit."""
    weights, hooks = copy.deepcopy(model.state_dict()), list_hooks(model)
    yield
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert list_hooks(model) == hooks
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


def list_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [(name, kind, *getattr(module, kind)) for name, module in model.named_modules() for kind in kinds]


def test_attributing_leaves_the_model_as_it_was(hooked):
    with untouched(hooked.model):
        nib.attribute(hooked, Image.new("RGB", (60, 60), "red"), CAPTIONS, layer=2, n_steps=2)


def test_error_on_the_way_leaves_the_model_as_it_was(hooked, pixel_values, tokens, monkeypatch, subtests):
    def fail(*args, **kwargs):
        raise ArithmeticError

    for block in (1, 2):  # before the cut and after it
        with subtests.test(f"block {block}"), untouched(hooked.model), monkeypatch.context() as patch:
            patch.setattr(hooked.model.text_model.encoder.layers[block], "forward", fail)
            with pytest.raises(ArithmeticError):
                nib.METHODS["nib"](hooked, pixel_values, **tokens, layer=2)


def test_a_pass_of_another_thread_is_not_stopped(hooked, pixel_values, monkeypatch):
    """While one thread waits at the block where it cuts, another embeds pictures of its own with the same model."""
    reached, go_on, found = threading.Event(), threading.Event(), []
    expected = hooked.image.embed(pixel_values[:1])
    call, first = hooked.image.encode, threading.get_ident()

    def wait_and_encode(*args):
        if threading.get_ident() != first:
            reached.set()
            assert go_on.wait(10)
        return call(*args)

    tower = dataclasses.replace(hooked.image, encode=wait_and_encode)
    worker = threading.Thread(target=lambda: found.append(tower.split(pixel_values, 2)))
    worker.start()
    try:
        assert reached.wait(10)  # its hook is on the block now
        assert_close(hooked.image.embed(pixel_values[:1]), expected, **PRECISE)
    finally:
        go_on.set()
        worker.join()
    assert_close(found[0].hidden_states, hooked.image.split(pixel_values, 2).hidden_states, **PRECISE)


PRIVATE = {"vision_model", "text_model", "visual_projection", "text_projection", "vision_config", "text_config"}
PRIVATE |= {"eos_token_id", "bos_token_id", "pad_token_id", "patch_size"}


def test_no_other_file_knows_how_a_family_names_its_parts():
    folder = Path(nib.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if path.name != "families.py":
            assert not names & PRIVATE, f"{path.relative_to(folder)} uses {sorted(names & PRIVATE)}"
