"""The contenders of the benchmark compute the same: nothing is gained by computing something else."""

import torch
from torch.testing import assert_close

import nib
from benchmarks.contenders import CONTENDERS, Case, make_pairs

# (sides, batch size, captions): all sides for pairs and for one picture, all batch sizes where both sides run
CASES = [
    *((sides, 5, captions) for sides in ("image", "text") for captions in (None, 4)),
    *(("both", batch_size, captions) for batch_size in (1, 5, 64) for captions in (None, 4)),
]


def test_all_compute_the_same(clip, subtests):
    clip = nib.HookedCLIP(clip.model)  # without a tokenizer, any id may begin a caption
    for sides, batch_size, captions in CASES:
        with subtests.test(f"{sides} of {'pairs' if captions is None else 'one picture'}, {batch_size} at once"):
            pairs = make_pairs(clip, 3 if captions is None else 1, captions)
            case = Case(clip, **pairs, sides=sides, layer=2, n_steps=3, batch_size=batch_size)
            found = {name: explain(case) for name, explain in CONTENDERS.items()}
            for name in ("plain loop", "captum"):
                assert set(found[name]) == set(found["nib"]) == ({"image", "text"} if sides == "both" else {sides})
                for side, scores in found["nib"].items():
                    assert scores.abs().max() > 1e-3
                    assert_close(found[name][side], scores, atol=1e-8, rtol=1e-7)  # captum's step sizes are float32
            assert not any(parameter.requires_grad for parameter in clip.model.parameters())


def test_single_precision(clip):
    single = nib.HookedCLIP(type(clip.model)(clip.model.config))
    single.model.load_state_dict(clip.model.state_dict())
    pairs = make_pairs(single, 3)
    slow, fast = (CONTENDERS[name](Case(single, **pairs, layer=2)) for name in ("plain loop", "nib"))
    for side, scores in fast.items():
        assert scores.dtype == torch.float32
        assert_close(slow[side], scores, atol=1e-4 * scores.abs().max().item(), rtol=0)
