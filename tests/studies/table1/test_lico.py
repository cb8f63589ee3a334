import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from studies.table1 import lico


def test_manifold_loss_by_hand():
    images = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    texts = torch.tensor([[0.0], [2.0]], dtype=torch.float64)

    def neighbours(distance):
        return np.array([1, np.exp(-distance)]) / (1 + np.exp(-distance))

    p, q = neighbours(2.0), neighbours(1.0)
    assert float(lico.manifold_loss(images, texts)) == pytest.approx(float(np.sum(p * np.log(p / q))))
    assert float(lico.manifold_loss(texts, texts + 5)) == pytest.approx(0, abs=1e-12)


def test_transport_loss_nears_the_optimum():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 4, 3, generator=generator, dtype=torch.float64)
    tokens = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0]])
    a, b = maps[0].numpy(), tokens[0, :2].numpy()
    cost = 1 - (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    sums = np.concatenate([np.kron(np.eye(4), np.ones(2)), np.kron(np.ones(4), np.eye(2))])
    best = linprog(cost.flatten(), A_eq=sums, b_eq=[0.25] * 4 + [0.5] * 2).fun
    found = float(lico.transport_loss(maps, tokens, mask, epsilon=0.01, n_iterations=2000))
    assert found == pytest.approx(best, abs=1e-3)
    assert found < cost.mean() - 0.01


def test_transport_loss_of_maps_on_their_tokens_is_zero():
    tokens = torch.eye(3)[None]
    assert float(lico.transport_loss(2 * tokens, tokens, torch.ones(1, 3), 0.01)) == pytest.approx(0, abs=1e-4)


@pytest.fixture(scope="module")
def trained():
    """Two classes that differ in one channel at one place."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    inputs = 0.1 * torch.randn(40, 6, 3, 4, generator=generator)
    inputs[labels == 1, 2, 1, 3] += 3
    tokens, mask = torch.randn(2, 4, 5, generator=generator), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])

    def train(seed, **weights):
        return lico.train(inputs, labels, tokens, mask, seed=seed, n_epochs=30, progress=False, **weights)

    sentences = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return inputs, labels, train, sentences[labels]


def test_training_separates_the_classes_and_the_map_is_where_they_differ(trained):
    inputs, labels, train, _ = trained
    model = train(0)
    assert bool((model(inputs)[1].argmax(1) == labels).all())
    scores, logits = lico.gradcam(model, inputs, torch.ones_like(labels))
    torch.testing.assert_close(logits, model(inputs)[1][:, 1])
    of_class = scores[labels == 1].mean(0)
    assert of_class[:, 2:].sum() > of_class[:, :2].sum()
    assert float(scores.min()) >= 0


def test_another_seed_is_another_model_and_the_same_seed_the_same(trained):
    _, _, train, _ = trained
    one, again, other = (train(seed).head.weight for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_consistency_brings_manifolds_together(trained):
    inputs, _, train, sentences = trained
    losses = []
    for alpha in (0.0, 10.0):
        model = train(0, alpha=alpha)
        maps = model.project(model(inputs)[0].flatten(2)).mean(1)
        losses.append(float(lico.manifold_loss(maps, sentences)))
    assert losses[1] < 0.1 * losses[0]


def test_gradcam_of_a_linear_head_by_hand(trained):
    """Behind a mean over places the gradient of a channel is its weight over the number of places."""
    inputs, labels, train, _ = trained
    model = train(0)
    maps = model.features(inputs)
    expected = (model.head.weight[labels][:, :, None, None] / 12 * maps).sum(1).relu()
    torch.testing.assert_close(lico.gradcam(model, inputs, labels)[0], expected)
    assert float(expected.max()) > 0
