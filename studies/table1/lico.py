"""Train a classifier whose feature maps agree with language, and explain that classifier (LICO).

Exports `manifold_loss`, `transport_loss`, `Classifier`, `train` and `gradcam`. Source: Lei et al., *LICO: Explainable
Models with Language-Image Consistency*, NeurIPS 2023. The loss is cross-entropy + alpha * manifold
matching + beta * optimal transport: distances between the pictures of a batch should be those between their prompts,
and the feature maps of a picture should be cheap to move onto the tokens of its prompt.

Left out: learned context tokens (the prompt is fixed) and their shuffling, and a backbone trained whole: two
convolutions and a linear layer are trained on frozen features of the image tower. Manifolds are those of mean maps and
mean tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from tqdm.auto import tqdm


def manifold_loss(images: Tensor, texts: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean over a batch of KL[texts' neighbours || pictures' neighbours].

    Args:
        images, texts: (batch, d) each. How near row j is to row i is softmax over j of -distance / temperature.
    """
    of_images, of_texts = ((-torch.cdist(x, x) / temperature).log_softmax(1) for x in (images, texts))
    return (of_texts.exp() * (of_texts - of_images)).sum(1).mean()


def transport_loss(maps: Tensor, tokens: Tensor, mask: Tensor, epsilon: float = 0.1, n_iterations: int = 30) -> Tensor:
    """Return the mean cost of moving feature maps onto tokens, by Sinkhorn's iterations; 0 is best, 2 worst.

    Args:
        maps: (batch, channels, d), each channel with the same mass.
        tokens: (batch, tokens, d), each token of the mask with the same mass.
        mask: (batch, tokens), 1 at tokens.
        epsilon: weight of the entropy; the cost is 1 - cosine.
    """
    cost = 1 - normalize(maps, dim=-1) @ normalize(tokens, dim=-1).mT  # (batch, channels, tokens)
    rows = torch.full_like(maps[:, :, 0], 1 / maps.shape[1]).log()
    columns = (mask / mask.sum(1, keepdim=True)).to(maps.dtype).log()  # -inf at padding
    kernel, right = -cost.detach() / epsilon, torch.zeros_like(columns)
    for _ in range(n_iterations):
        left = rows - (kernel + right[:, None]).logsumexp(2)
        right = columns - (kernel + left[:, :, None]).logsumexp(1)
    plan = (kernel + left[:, :, None] + right[:, None]).exp()
    return (plan * cost).sum((1, 2)).mean()


class Classifier(nn.Module):
    """Classify a grid of features; `features` are the maps that Grad-CAM reads, `project` lays them beside words."""

    def __init__(self, width: int, grid: tuple[int, int], n_classes: int, d: int, channels: int = 48):
        super().__init__()
        first, second = nn.Conv2d(width, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Sequential(nn.GroupNorm(1, width), first, nn.ReLU(), second, nn.ReLU())
        self.head = nn.Linear(channels, n_classes)
        self.project = nn.Linear(grid[0] * grid[1], d)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps (batch, channels, grid_h, grid_w) and logits (batch, classes)."""
        maps = self.features(inputs)
        return maps, self.head(maps.mean((2, 3)))


def train(
    inputs: Tensor, labels: Tensor, tokens: Tensor, mask: Tensor, *, seed: int = 0, n_epochs: int = 30,
    alpha: float = 1.0, beta: float = 1.0, batch_size: int = 64, progress: bool = True,
) -> Classifier:  # fmt: skip
    """Train a classifier with language-image consistency.

    Args:
        inputs: (examples, width, grid_h, grid_w), frozen features.
        labels: (examples,), classes.
        tokens: (classes, tokens, d), the words of each class's prompt; `mask` (classes, tokens) is 1 at them.
        seed: of the weights and of the batches.
        alpha, beta: weights of manifold matching and of transport.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(inputs.shape[1], tuple(inputs.shape[2:]), len(tokens), tokens.shape[-1]).to(inputs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    sentences = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    for _ in tqdm(range(n_epochs), "LICO", disable=not progress, delay=3, leave=False):
        for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
            maps, logits = model(inputs[rows])
            projected, of = model.project(maps.flatten(2)), labels[rows]  # (batch, channels, d)
            loss = cross_entropy(logits, of) + alpha * manifold_loss(projected.mean(1), sentences[of])
            loss = loss + beta * transport_loss(projected, tokens[of], mask[of])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval().requires_grad_(False)


def gradcam(model: Classifier, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classifier's Grad-CAM of a class, (batch, grid_h, grid_w), at least 0, and its logit, (batch,)."""
    maps = model.features(inputs).requires_grad_(True)
    chosen = model.head(maps.mean((2, 3))).gather(1, labels[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(chosen.sum(), maps)
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * maps).sum(1).relu().detach(), chosen.detach()
