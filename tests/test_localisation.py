"""The pointing game by hand."""

import pytest
import torch

from nib.metrics import pointing_game


def mask(*boxes, size=6):
    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for image, (rows, columns) in zip(masks, boxes):
        image[rows, columns] = True
    return masks


LEFT, RIGHT, TOP_LEFT = (slice(0, 6), slice(0, 3)), (slice(0, 6), slice(3, 6)), (slice(0, 3), slice(0, 3))


def test_highest_patch_points():
    scores = torch.tensor([[[9.0, 1.0], [2.0, 3.0]]]).expand(3, -1, -1)
    assert pointing_game(scores, mask(LEFT, RIGHT, TOP_LEFT)).tolist() == [1, 0, 1]
    assert pointing_game(-scores, mask(LEFT, RIGHT, TOP_LEFT)).tolist() == [0, 1, 0]  # the top right is least bad


def test_map_is_upsampled_before_it_points():
    # Two by two becomes six by six: the corner patch is highest in its corner pixel and its neighbours outside.
    scores = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).expand(2, -1, -1)
    corner, centre = mask((slice(0, 1), slice(0, 1)), (slice(2, 4), slice(2, 4)))
    share, none = pointing_game(scores, torch.stack([corner, centre])).tolist()
    assert none == 0
    assert share == pytest.approx(1 / 4)  # four pixels lie outside the outermost patch centres and share the maximum


def test_ties_are_shared():
    scores = torch.tensor([[[5.0, 5.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert pointing_game(scores, mask(LEFT, TOP_LEFT, LEFT)).tolist() == [0.5, 0.25, 0.5]


def test_mask_may_be_of_numbers_and_of_any_size():
    scores = torch.tensor([[[9.0, 1.0], [2.0, 3.0]]], dtype=torch.bfloat16)
    assert pointing_game(scores, mask((slice(0, 25), slice(0, 19)), size=50).int()[:, :, :37]).tolist() == [1]


def test_shapes_that_do_not_fit(subtests):
    cases = [((5, 5), (1, 6, 6)), ((1, 5, 5), (6, 6)), ((2, 5, 5), (3, 6, 6)), ((1, 1, 5, 5), (1, 6, 6))]
    for scores, masks in cases:
        with subtests.test(f"{scores}, {masks}"), pytest.raises(ValueError, match="scores and masks must be"):
            pointing_game(torch.zeros(scores), torch.ones(masks, dtype=torch.bool))


def test_empty_mask():
    with pytest.raises(ValueError, match="every mask must have at least one pixel"):
        pointing_game(torch.ones(2, 5, 5), mask(LEFT, (slice(0, 0), slice(0, 0))))
