"""Multi-modal information bottleneck attribution (Wang, Rudner and Wilson, NeurIPS 2023)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid

from nib.checks import check_count, check_number
from nib.methods.pairs import explain_in_batches, split_towers, to_scores
from nib.methods.scores import Scores
from nib.shapes import Embeds, HiddenStates
from nib.towers import Split


def m2ib(
    clip, pixel_values, input_ids, attention_mask=None, *, layer=None, beta=0.1, lr=1.0, n_steps=10, n_noise=10,
    alpha_init=5.0, batch_size=64, seed=0,
) -> Scores:  # fmt: skip
    """Score tokens by the information that a bottleneck fitted to the pair still lets through.

    The hidden states z become lambda * z + (1 - lambda) * noise (Eq. 2 of the NIB paper) with
    lambda = sigmoid(alpha) for each element and noise ~ N(0, 1). Adam fits alpha of each pair to

        beta * mean(KL) - mean(cos),

    KL being that of p(z_tilde given z) = N(lambda z, (1 - lambda)^2) from N(0, 1), averaged over tokens and width, cos
    being averaged over the noise copies, the other embedding held fixed. Padding has no part in the mean over tokens.

    The map is the capacity of the last forward pass, as released: `n_steps` passes, one update of alpha between each
    and the next. Scores are at least 0, in nats: the KL summed over the width. They say how much is used, not whether
    it raises the similarity.

    Differs from the released code: log (1 - lambda) is computed from alpha, so the KL is finite where lambda rounds to
    1; that code has an infinite term there, which its `nansum` keeps. The noise comes from a seed. Its parameter `var`
    changes nothing there and does not exist here.

    Args:
        beta: weight of the KL, at least 0.
        lr: learning rate of Adam, more than 0.
        n_steps: forward passes, at least 1.
        n_noise: noise copies a pass, at least 1, drawn anew for each, and shared by all pairs.
        alpha_init: where alpha starts: 5 lets 99.3 % of z through.
        batch_size: rows of hidden states at once, pairs times noise copies; at least one pair with all its copies.
    """
    check_count("n_steps", n_steps, limit="nodes")
    check_count("n_noise", n_noise, limit="nodes")
    check_count("n_steps * n_noise", n_steps * n_noise, limit="nodes")  # all of the noise is drawn at once
    check_count("batch_size", batch_size, limit="samples")
    beta = check_number("beta", beta, 0)
    lr = check_number("lr", lr, 0, open_end=True)
    alpha_init = check_number("alpha_init", alpha_init, -100)
    layers = clip.layers(layer, later=1)

    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
        with torch.no_grad():
            image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
        scores = []
        for split, targets in ((image, text_embeds), (text, image_embeds)):
            noise = draw_noise(split.hidden_states, n_steps, n_noise, seed)
            alpha = _fit(split, targets, noise, beta, lr, alpha_init)
            scores.append(capacity(alpha, split.hidden_states).sum(-1))
        similarity = cosine_similarity(image_embeds, text_embeds)
        return to_scores(clip, pixel_values, text.real, similarity, *scores)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, max(1, batch_size // n_noise))


def draw_noise(z: HiddenStates, n_steps: int, n_noise: int, seed: int) -> Tensor:
    """Draw N(0, 1) for each step, copy, token and channel: (n_steps, n_noise, tokens, width).

    Token after token from one generator, so that padding leaves the noise of a caption as it is; in float32 on the CPU,
    so that every device and precision sees the same.
    """
    generator = torch.Generator().manual_seed(seed)
    _, tokens, width = z.shape
    shape = n_steps, n_noise, width
    columns = [torch.randn(shape, generator=generator, dtype=torch.float32) for _ in range(tokens)]
    return torch.stack(columns, 2).to(z)


def capacity(alpha: Tensor, z: HiddenStates) -> Tensor:
    """Return KL[N(lambda z, (1 - lambda)^2) from N(0, 1)] of each element, in nats, lambda = sigmoid(alpha).

    It is -log(1 - lambda) + ((1 - lambda)^2 + (lambda z)^2 - 1) / 2, and -log sigmoid(-alpha) is the
    first term, finite for every finite alpha.
    """
    passed = torch.sigmoid(alpha)
    return -logsigmoid(-alpha) + ((1 - passed) ** 2 + (passed * z) ** 2 - 1) / 2


def _fit(split: Split, targets: Embeds, noise: Tensor, beta: float, lr: float, alpha_init: float) -> HiddenStates:
    """Fit alpha, (batch, tokens, width), of all pairs at once; Adam is element-wise, so pairs stay apart."""
    z, tokens = split.hidden_states, split.real
    elements = tokens.sum(1, keepdim=True)[..., None] * z.shape[-1]  # (batch, 1, 1)
    weight = beta * tokens[..., None] / elements  # of each element in the mean over tokens and width
    precision = torch.promote_types(z.dtype, torch.float32)  # Adam at a rate of 1 needs more than bfloat16
    alpha = torch.full(z.shape, alpha_init, dtype=precision, device=z.device, requires_grad=True)
    optimiser = torch.optim.Adam([alpha], lr=lr)
    for copies in noise[:-1]:  # (n_noise, tokens, width); the last pass changes nothing any more
        with torch.enable_grad():
            passed = torch.sigmoid(alpha).to(z.dtype)
            states = passed * z + (1 - passed) * copies[:, None]  # (n_noise, batch, tokens, width)
            embeds = split(states.flatten(0, 1)).unflatten(0, (len(copies), -1))
            similarity = cosine_similarity(embeds, targets[None], dim=-1)  # (n_noise, batch)
            loss = (weight * capacity(alpha, z)).sum() - similarity.mean(0).sum()
        (alpha.grad,) = torch.autograd.grad(loss, alpha)
        optimiser.step()
    return alpha.detach()
