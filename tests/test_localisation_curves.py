import itertools

import pytest
import torch
from scipy.stats import mannwhitneyu

from nib.heatmaps import upsample
from nib.metrics import auc, energy_inside, pointing_game, selectivity


@pytest.fixture
def scores():
    return torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def masks():
    masks = torch.zeros(3, 10, 9, dtype=torch.bool)
    masks[0, :4, :4] = True
    masks[1, 2:9, 5:] = True
    masks[2, 9, 8] = True
    return masks


def plain_auc(large, mask):
    pairs = list(itertools.product(large[mask].tolist(), large[~mask].tolist()))
    equal = [abs(a - b) < 1e-9 for a, b in pairs]  # interpolation rounds
    wins = [0.5 if same else a > b for same, (a, b) in zip(equal, pairs)]
    return sum(wins) / len(wins)


def test_auc_counts_pairs_of_pixels_and_ties_half(scores, masks):
    expected = [plain_auc(large, mask) for large, mask in zip(upsample(scores, (10, 9)), masks)]
    torch.testing.assert_close(auc(scores, masks), torch.tensor(expected, dtype=torch.float64))

    coarse = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).expand(3, -1, -1)
    expected = [plain_auc(upsample(coarse.double(), (10, 9))[0], mask) for mask in masks]
    torch.testing.assert_close(auc(coarse, masks), torch.tensor(expected, dtype=torch.float64))


def test_auc_of_known_maps_and_of_any_scale(masks, scores):
    perfect = masks[:2].double()
    assert auc(perfect, masks[:2]).tolist() == [1, 1]
    assert auc(-perfect, masks[:2]).tolist() == [0, 0]
    assert auc(torch.full((3, 5, 5), 0.3), masks).tolist() == [0.5, 0.5, 0.5]
    assert auc(torch.zeros(3, 5, 5), masks).tolist() == [0.5, 0.5, 0.5]

    torch.testing.assert_close(auc(1e-7 * scores, masks), auc(scores, masks))
    torch.testing.assert_close(auc(scores, masks) + auc(-scores, masks), torch.ones(3, dtype=torch.float64))


@pytest.fixture
def others(masks):
    others = torch.zeros_like(masks)
    others[0, 5:, 3:7] = True
    others[1, :2, :3] = True  # none in the third
    return others


def test_selectivity_counts_pairs_of_pixels_on_objects_alone(scores, masks, others):
    large = upsample(scores, (10, 9))
    expected = []
    for image, mask, other in zip(large, masks, others):
        wins = [a > b for a, b in itertools.product(image[mask].tolist(), image[other].tolist())]
        expected.append(sum(wins) / len(wins) if wins else torch.nan)
    found = selectivity(scores, masks, others)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True)
    assert found[2].isnan()
    assert (found[:2] - auc(scores, masks)[:2]).abs().min() > 0.01


def test_areas_of_large_masks_are_exact_and_without_others_there_is_none():
    scores = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(0))
    masks, others = torch.zeros(2, 2, 224, 224, dtype=torch.bool)
    masks[:, 20:150, 10:120], others[0, 5:200, 130:] = True, True
    areas = selectivity(scores, masks, others)
    large = upsample(scores.double(), (224, 224)).numpy()
    expected = mannwhitneyu(large[0][masks[0].numpy()], large[0][others[0].numpy()]).statistic
    assert areas[0] == pytest.approx(expected / (masks[0].sum() * others[0].sum()).item(), abs=1e-12)
    assert areas[1].isnan()


def test_a_map_of_all_objects_finds_them_and_does_not_tell_them_apart(masks, others):
    objects = (masks | others).double()
    assert auc(objects, masks)[:2].min() > 0.8
    assert selectivity(objects, masks, others)[:2].tolist() == [0.5, 0.5]
    assert selectivity(masks.double(), masks, others)[:2].tolist() == [1, 1]
    assert selectivity(others.double(), masks, others)[:2].tolist() == [0, 0]
    assert selectivity(torch.full((3, 5, 5), 0.3), masks, others)[:2].tolist() == [0.5, 0.5]


def test_energy_is_the_positive_mass_inside_and_without_any_the_area(scores, masks):
    large = upsample(scores, (10, 9)).clamp(min=0)
    expected = torch.stack([(image * mask).sum() / image.sum() for image, mask in zip(large, masks)])
    torch.testing.assert_close(energy_inside(scores, masks), expected)

    area = masks.double().mean((1, 2))
    for value in (-1.0, 0.0, 0.3):
        torch.testing.assert_close(energy_inside(torch.full((3, 5, 5), value), masks), area)
    assert energy_inside(masks.double(), masks).tolist() == [1, 1, 1]


def test_flat_maps_stay_flat_when_they_are_upsampled():
    masks = torch.zeros(1, 60, 60, dtype=torch.bool)
    masks[0, :30] = True
    flat = torch.full((1, 5, 5), 0.3, dtype=torch.float64)
    assert upsample(flat, (60, 60)).unique().numel() > 1  # why the measures round
    assert pointing_game(flat, masks).tolist() == [0.5]
    assert auc(flat, masks).tolist() == [0.5]


def test_masks_that_do_not_fit_are_refused(scores, masks, others, subtests):
    for measure in [auc, energy_inside]:
        with subtests.test(measure.__name__):
            with pytest.raises(ValueError, match="scores and masks must be"):
                measure(scores[:2], masks)
            with pytest.raises(ValueError, match="at least one pixel"):
                measure(scores, torch.zeros_like(masks))
            with pytest.raises(ValueError, match="scores must be finite"):
                measure(scores * torch.nan, masks)

    with pytest.raises(ValueError, match="at least one pixel of background"):
        auc(scores, torch.ones_like(masks))

    with pytest.raises(ValueError, match="other_masks must be"):
        selectivity(scores, masks, masks)
    with pytest.raises(ValueError, match="other_masks must be"):
        selectivity(scores, masks, others[:, :5])
