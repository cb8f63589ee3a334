"""`python -m nib.verify` passes where everything is exact, and fails where it is not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import nib
from benchmarks.families import FAMILIES, build
from nib.verify import main, verify


def test_every_family_passes(subtests):
    for family in FAMILIES:
        with subtests.test(family):
            clip = build(family)
            rows = verify(clip, n_steps=3)
            assert not [row for row in rows if not row["passed"]]
            assert len(rows) >= 17
            assert clip.dtype == torch.float64


def break_scale(clip):
    clip.image.norm = torch.nn.Identity()


def break_pooling(clip):
    find_end = clip.text.find_end
    clip.text.find_pooled = lambda ids: find_end(ids) - 1


def break_blocks(clip):
    clip.text.blocks = clip.text.blocks[:-1]


def break_mask(clip):
    clip.text.batched = ()


def test_a_tower_that_is_not_the_models_fails(subtests):
    for fault in [break_scale, break_pooling, break_blocks, break_mask]:
        with subtests.test(fault.__name__):
            clip = build("altclip" if fault is break_mask else "clip", "large")
            fault(clip)
            try:
                rows = verify(clip, n_steps=2)
            except RuntimeError:  # masks that do not fit the batch
                continue
            assert [row for row in rows if not row["passed"]]


def test_a_model_without_tokenizer_is_checked_with_ids():
    clip = build("clip")
    assert all(row["passed"] for row in verify(nib.HookedCLIP(clip.model), n_steps=2))


def test_a_model_in_training_is_so_again_after_an_error():
    clip = build("clip")
    clip.model.train()
    with pytest.raises(FileNotFoundError, match="no picture"):
        verify(clip, picture="nowhere.jpg")
    assert all(module.training for module in clip.model.modules())
    assert clip.dtype == torch.float64


def test_the_command_prints_a_table_and_says_how_it_went(model_folder, tmp_path, capsys):
    assert main([str(model_folder), "--text", "a red bus"]) == 0
    assert "NIB less captum" in capsys.readouterr().out
    assert main([str(model_folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"check", "value", "limit", "passed"} == set(rows[0])
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no model at" in capsys.readouterr().err


def test_broken_weights_are_named(model_folder, tmp_path, capsys, subtests):
    cases = [
        (lambda state: state | {"logit_scale": torch.tensor(float("nan"))}, "must be finite.*logit_scale"),
        (lambda state: {k: v for k, v in state.items() if ".layers.2." not in k}, r"missing: .*layers\.2"),
        (lambda state: state | {"another.weight": torch.zeros(1)}, r"not of this model: another\.weight"),
    ]
    for number, (change, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(message):
            for file in model_folder.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            save_file(
                change(load_file(model_folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"}
            )
            with pytest.raises(ValueError, match=message):
                nib.load(folder)
            assert main([str(folder)]) == 1
            assert "ValueError" in capsys.readouterr().err


def test_missing_weights_may_be_random_where_that_is_asked_for(model_folder, tmp_path):
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(model_folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=r"missing: visual_projection\.weight"):
        nib.load(tmp_path, strict=False)


def test_two_kinds_of_weights_are_named(model_folder, tmp_path):
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"model\.safetensors is read, pytorch_model\.bin is not"):
        nib.load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(model_folder, tmp_path, tokenizer):
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = type(tokenizer).from_pretrained(model_folder)
    other.add_tokens([f"word{number}" for number in range(9)])
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"do not belong together: 1340 tokens.*1331"):
        nib.load(tmp_path)


def test_logits_are_scaled_cosines():
    clip = build("siglip")
    picture = torch.zeros(3, 36, 36, dtype=torch.float64)
    cosine = nib.attribute(clip, picture, "a dog")
    logit = nib.attribute(clip, picture, "a dog", target="logit")
    scale = clip.model.logit_scale.exp().item()
    assert abs(logit.image_scores - scale * cosine.image_scores).max() < 1e-12
    assert logit.text.difference == pytest.approx(scale * cosine.text.difference)
    assert logit.similarity == cosine.similarity
    with pytest.raises(ValueError, match="target must be 'cosine' or 'logit', got 'loss'"):
        nib.attribute(clip, picture, "a dog", target="loss")
    assert "padding, which this model sees" in cosine.plot().get_suptitle()
