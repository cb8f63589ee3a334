import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import nib
from studies.randomness import correlate_ranks, mean_rank_correlation, run_to_run


def test_deterministic_methods_do_not_vary(clip, pixel_values, tokens, subtests):
    cases = [("nib", {"layer": 2}), ("gradcam", {"layer": 2}), ("chefer", {}), ("mfaba", {"n_steps": 2}), ("none", {})]
    for method, parameters in cases:
        with subtests.test(f"{method}, {parameters}"):
            variation = run_to_run(method, clip, pixel_values, **tokens, seeds=range(3), **parameters)
            assert not variation.image_std.any()
            assert not variation.text_std.any()
            assert (variation.image_rank_correlation == 1).all()
            assert (variation.text_rank_correlation == 1).all()


def test_random_methods_do(clip, pixel_values, tokens, subtests):
    cases = [("m2ib", dict(layer=2, n_steps=5, n_noise=2)), ("rise", dict(n_masks=8, text_masks=5)), ("random", {})]
    for method, parameters in cases:
        with subtests.test(f"{method}, {parameters}"):
            variation = run_to_run(method, clip, pixel_values, **tokens, seeds=[3, 4, 9], **parameters)
            assert variation.image_std.shape == (3, 5, 5)
            assert (variation.image_std > 0).all()
            real = tokens["attention_mask"].bool()
            assert (variation.text_std[real] > 0).all()
            assert not variation.text_std[~real].any()
            assert (variation.image_rank_correlation < 1).all()
            runs = [nib.METHODS[method](clip, pixel_values, **tokens, seed=s, **parameters) for s in (3, 4, 9)]
            expected = np.std([run.image.numpy() for run in runs], axis=0, ddof=1)
            np.testing.assert_allclose(variation.image_std.numpy(), expected)
            matrix = spearmanr(np.stack([run.image[1].numpy().ravel() for run in runs], 1)).statistic
            np.testing.assert_allclose(variation.image_rank_correlation[1], matrix[np.triu_indices(3, 1)].mean())
            matrix = spearmanr(np.stack([run.text[0][real[0]].numpy() for run in runs], 1)).statistic
            np.testing.assert_allclose(variation.text_rank_correlation[0], matrix[np.triu_indices(3, 1)].mean())


def test_rank_correlation_of_ties_and_constant_maps():
    ramp, flat = torch.arange(6.0), torch.ones(6)
    assert mean_rank_correlation(torch.stack([ramp, ramp.exp()])) == 1
    assert mean_rank_correlation(torch.stack([ramp, -ramp])) == -1
    assert mean_rank_correlation(torch.stack([flat, 2 * flat])) == 1
    assert mean_rank_correlation(torch.stack([ramp, flat])) == 0
    tied = torch.tensor([0.0, 0, 1, 1, 2, 2])
    expected = spearmanr(ramp.numpy(), tied.numpy()).statistic
    assert mean_rank_correlation(torch.stack([ramp, tied])) == pytest.approx(expected)


def test_two_maps_are_correlated_whatever_they_are_made_of():
    first, second = np.array([[0.1, 0.2], [0.3, -0.4]], np.float32), torch.tensor([[1, 3], [2, 0]])
    assert correlate_ranks(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)


def test_rejects_a_single_seed_and_an_unknown_method(clip, pixel_values, tokens):
    with pytest.raises(ValueError, match="seeds must be at least 2"):
        run_to_run("none", clip, pixel_values, **tokens, seeds=[0])
    with pytest.raises(KeyError, match="method must be one of"):
        run_to_run("grad", clip, pixel_values, **tokens)
