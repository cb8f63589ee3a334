"""Maps grow bilinearly, and a map that says nothing masks nothing."""

import torch

from nib.heatmaps import to_heatmap, upsample


def test_upsampling_is_bilinear():
    large = upsample(torch.tensor([[[0.0, 4.0]], [[1.0, 1.0]]]), (2, 4))
    assert large.tolist() == [[[0, 1, 3, 4]] * 2, [[1, 1, 1, 1]] * 2]


def test_constant_map_masks_nothing(subtests):
    for value in [0.0, 0.3, -2.0]:
        with subtests.test(str(value)):
            maps = torch.full((2, 5, 5), value, dtype=torch.float64)
            maps[1, 2, 3] += 1
            flat, other = to_heatmap(maps, (33, 47))
            assert (flat == 1).all()
            assert (other.min(), other.max()) == (0, 1)
