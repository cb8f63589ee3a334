import numpy as np
import pytest
import torch

from studies.table1.exemplars import Exemplars


@pytest.fixture
def known():
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(40, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return images, texts, Exemplars(images, texts)


def join(image, text):
    return np.concatenate([image / np.linalg.norm(image), text / np.linalg.norm(text)])


def test_nearest_equals_brute_force(known):
    images, texts, exemplars = known
    generator = torch.Generator().manual_seed(1)
    pairs = [torch.randn(3, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    found = exemplars.nearest(*pairs, k=4)
    points = [join(*pair) for pair in zip(images.numpy(), texts.numpy())]
    own = [min(np.linalg.norm(a - b) for j, b in enumerate(points) if j != i) for i, a in enumerate(points)]
    np.testing.assert_allclose(exemplars.own, own)
    for row, pair in enumerate(zip(*(part.numpy() for part in pairs))):
        distances = [np.linalg.norm(join(*pair) - point) for point in points]
        order = np.argsort(distances)[:4]
        assert found.rows[row].tolist() == order.tolist()
        np.testing.assert_allclose(found.distances[row], np.sort(distances)[:4])
        inverse = 1 / np.sort(distances)[:4]
        np.testing.assert_allclose(found.weights[row], inverse / inverse.sum())
        assert float(found.confidence[row]) == pytest.approx((1 + np.sum(np.array(own) >= min(distances))) / 41)


def test_a_pair_far_from_all_is_not_known():
    angles = torch.linspace(0, 0.2, 60, dtype=torch.float64)
    points = torch.stack([angles.cos(), angles.sin()], 1)
    exemplars = Exemplars(points, points)
    among = exemplars.nearest(points[30:31], points[30:31])
    away = exemplars.nearest(-points[:1], -points[:1])
    assert bool(among.known)
    assert float(among.confidence) == 1
    assert not bool(away.known)
    assert float(away.confidence) == pytest.approx(1 / 61)


def test_k_must_fit(known, subtests):
    for k in [0, 41]:
        with subtests.test(str(k)):
            images, texts, exemplars = known
            with pytest.raises(ValueError, match=f"40 examples, got {k}"):
                exemplars.nearest(images[:1], texts[:1], k=k)


def test_one_example_is_too_few():
    with pytest.raises(ValueError, match="needs 2 examples"):
        Exemplars(torch.ones(1, 2), torch.ones(1, 2))
