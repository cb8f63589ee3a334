"""The newer methods equal plain forms, which run one pair, one block and one head after another."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize
from torch.testing import assert_close

import nib
from nib.methods import orthogonal_text
from nib.methods.agi import _choose
from nib.methods.orthogonal import pursue

PRECISE = dict(atol=1e-8, rtol=1e-8)


class Plain:
    """One tower on one input, run by hand: what each block gets, its parts, and the end."""

    def __init__(self, model, side, inputs):
        self.tower = model.vision_model if side == "image" else model.text_model
        self.causal = side == "text"
        self.project = model.visual_projection if side == "image" else model.text_projection
        self.norm = self.tower.post_layernorm if side == "image" else self.tower.final_layer_norm
        with torch.no_grad():
            x = self.tower.embeddings(inputs)
            x = (self.tower.pre_layrnorm(x) if side == "image" else x)[0]
        self.pooled = 0 if side == "image" else len(x) - 1
        self.states, self.parts = [x], []

    def run(self, graph=False, until=None):
        x = self.states[0]
        for block in self.tower.encoder.layers[:until]:
            x = self.step(block, x.detach().requires_grad_() if graph == "each" else x, graph)
            self.states.append(x)
        return x

    def step(self, block, x, graph=False):
        attention, n = block.self_attn, block.layer_norm1(x)
        q, k, v = (layer(n) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        heads, size = attention.num_heads, attention.head_dim
        outputs, all_maps = [], []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            logits = q[:, own] @ k[:, own].T / size**0.5
            if self.causal:
                logits = logits + torch.full_like(logits, -torch.inf).triu(1)
            maps = logits.softmax(-1)
            if graph:
                maps.requires_grad_() if maps.is_leaf else maps.retain_grad()
            all_maps.append(maps)
            outputs.append(maps @ v[:, own])
        o = torch.cat(outputs, 1)
        if graph:
            o.requires_grad_() if o.is_leaf else o.retain_grad()
        self.parts.append(dict(q=q, k=k, v=v, o=o, maps=all_maps, block=block, x=x))
        x = x + attention.out_proj(o)
        return x + block.mlp(block.layer_norm2(x))

    def embed(self, state):
        return self.project(self.norm(state))


def both(clip, pixel_values, input_ids):
    return Plain(clip.model, "image", pixel_values), Plain(clip.model, "text", input_ids)


@pytest.fixture
def pair(clip, pixel_values, tokens):
    return pixel_values[1:2], tokens["input_ids"][1:2, : int(tokens["attention_mask"][1].sum())]


def products(part, gradient, pooled, inner):
    out = part["block"].self_attn.out_proj
    query, scores, cosines = out(part["q"][pooled]), [], []
    for token in inner:
        cosines.append(cosine_similarity(query, out(part["k"][token]), dim=0))
        scores.append(float((gradient[pooled] * part["v"][token]).sum()))
    low, high = min(cosines), max(cosines)
    return torch.stack([(c - low) / (high - low) * score for c, score in zip(cosines, scores)])


def test_grad_eclip(clip, pair):
    image, text = both(clip, *pair)
    ends = image.run(graph=True)[0], text.run(graph=True)[text.pooled]
    cosine_similarity(image.embed(ends[0]), text.embed(ends[1]), dim=0).backward()
    inner, words = range(1, 26), range(1, text.pooled)
    part = image.parts[-1]
    found = nib.METHODS["grad_eclip"](clip, *pair, text_blocks=3)
    expected = products(part, part["o"].grad, 0, inner).clamp(min=0)
    assert_close(found.image[0].flatten(), expected, **PRECISE)
    total = sum(products(part, part["o"].grad, text.pooled, words) for part in text.parts[-3:]).clamp(min=0)
    assert_close(found.text[0, 1:-1], total / total.sum(), **PRECISE)
    assert not found.text[0, [0, -1]].any()


def test_legrad(clip, pair):
    image, text = both(clip, *pair)
    with torch.no_grad():
        targets = [clip.text.embed(pair[1])[0], clip.image.embed(pair[0])[0]]
    found = nib.METHODS["legrad"](clip, *pair)
    for side, target, scores in ((image, targets[0], found.image), (text, targets[1], found.text)):
        side.run(graph="each")
        total = 0
        for part, state in zip(side.parts[-2:], side.states[-2:]):
            similarity = cosine_similarity(side.embed(state.mean(0)), target, dim=0)
            gradients = torch.autograd.grad(similarity, part["maps"])
            total = total + sum(gradient.clamp(min=0).mean(0) for gradient in gradients) / len(gradients)
        assert_close(scores[0].flatten(), total[1:] if side is image else total, **PRECISE)


def embed_value(side, part, token):
    block = part["block"]
    state = part["x"][token] + block.self_attn.out_proj(part["v"][token])
    return side.embed(state + block.mlp(block.layer_norm2(state)))


def test_mask_clip(clip, pair):
    image, text = both(clip, *pair)
    found = nib.METHODS["mask_clip"](clip, *pair)
    with torch.no_grad():
        image.run(), text.run()
        targets = [clip.text.embed(pair[1])[0], clip.image.embed(pair[0])[0]]
        for side, target, scores, inner in (
            (image, targets[0], found.image[0].flatten(), range(1, 26)),
            (text, targets[1], found.text[0, 1:-1], range(1, text.pooled)),
        ):
            part = side.parts[-1]
            expected = [
                cosine_similarity(embed_value(side, part, token), target, dim=0)
                * cosine_similarity(part["k"][token], part["q"][side.pooled], dim=0)
                for token in inner
            ]
            assert_close(scores, torch.stack(expected), **PRECISE)


def test_clip_surgery(clip, pair):
    image, _ = both(clip, *pair)
    found = nib.METHODS["clip_surgery"](clip, *pair, blocks=2)
    with torch.no_grad():
        image.run()
        second = image.states[2]
        for part in image.parts[2:]:
            attention, outputs = part["block"].self_attn, []
            for head in range(attention.num_heads):
                own = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
                v = part["v"][:, own]
                outputs.append((v @ v.T / attention.head_dim**0.5).softmax(-1) @ v)
            second = second + attention.out_proj(torch.cat(outputs, 1))
        empty = clip.text.embed(pair[1][:, [0, -1]])[0]
        contrast = normalize(clip.text.embed(pair[1])[0], dim=0) - normalize(empty, dim=0)
        expected = torch.stack([normalize(image.embed(state), dim=0) @ contrast for state in second[1:]])
    assert_close(found.image[0].flatten(), expected, **PRECISE)


def test_agi_is_what_a_plain_walk_loses(clip, pixel_values, tokens):
    with torch.no_grad():  # the picture's own caption must be the more similar one, or there is no way to go
        embeds = clip.text.embed(tokens["input_ids"], tokens["attention_mask"])
        order = cosine_similarity(clip.image.embed(pixel_values[:1]), embeds).argsort(descending=True)[[0, 2]]
    ids, mask = tokens["input_ids"][order], tokens["attention_mask"][order]
    found = nib.METHODS["agi"](clip, pixel_values[:2], ids, mask, n_steps=3, step_size=0.02)
    with torch.no_grad():
        texts = clip.text.embed(ids, mask)
    total, x = torch.zeros_like(pixel_values[0]), pixel_values[:1]
    for _ in range(3):
        x = x.detach().requires_grad_()
        embeds = clip.image.embed(x)
        own, other = (cosine_similarity(embeds, texts[row : row + 1])[0] for row in (0, 1))
        if own <= other:
            break
        to_own, to_other = (torch.autograd.grad(value, x, retain_graph=True)[0] for value in (own, other))
        total -= to_own[0] * 0.02 * to_other[0].sign()
        x = x + 0.02 * to_other.sign()
    patches = total.sum(0).unfold(0, 12, 12).unfold(1, 12, 12).sum((-1, -2))
    assert patches.any()
    assert_close(found.image[0], patches, **PRECISE)


def test_agi_walks_to_the_most_similar_others_and_never_to_the_same_text():
    embeds = torch.eye(3, dtype=torch.float64)
    others = torch.tensor([[1.0, 0.2, 0], [1.0, 0.2, 0], [0.5, 0.1, 1]], dtype=torch.float64)
    chosen = _choose(embeds, others, 2)
    assert torch.equal(chosen[0, 0], others[2])  # the second is the same as the first
    assert not chosen[1, 0].any()
    assert torch.equal(_choose(embeds[:1], others[:1], 5)[0, 0], -others[0])  # alone: away from the own text


def test_lime_finds_what_a_linear_similarity_rests_on(clip, pair, monkeypatch):
    weights = torch.linspace(-1, 1, 25, dtype=torch.float64)
    base = torch.tensor([[1.0, 0.0]], dtype=torch.float64)

    def embed(pixel_values):  # the cosine with (1, 0) is 0.5 plus a linear function of which patches are there
        there = (pixel_values[:, 0, ::12, ::12].flatten(1) != 0).double()
        cosine = 0.5 + 0.01 * there @ weights
        return torch.stack([cosine, (1 - cosine**2).sqrt()], 1)

    monkeypatch.setattr(clip.model.text_projection, "forward", lambda states: base.expand(len(states), -1))
    monkeypatch.setattr(clip.image, "embed", embed)
    found = nib.METHODS["lime"](clip, torch.ones(1, 3, 60, 60, dtype=torch.float64), pair[1], n_samples=300, alpha=1e-6)
    assert_close(found.image[0].flatten(), 0.01 * weights, atol=1e-4, rtol=1e-2)


def test_lime_depends_on_its_seed_and_leaves_the_global_one(clip, pair):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    maps = [nib.METHODS["lime"](clip, *pair, n_samples=20, seed=seed).image for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_left_of_a_text_is_orthogonal_to_the_distractors(clip, pixel_values, tokens):
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    distractors = ids[1:]
    explain = orthogonal_text(nib.METHODS["nib"], distractors, n_atoms=2)
    found = explain(clip, pixel_values[:1], ids[:1], mask[:1], layer=2)
    with torch.no_grad():
        text, atoms = clip.text.embed(ids[:1], mask[:1])[0], clip.text.embed(distractors, mask[1:])
        basis = torch.linalg.qr(atoms.T)[0]
        rest = text - basis @ (basis.T @ text)
        expected = cosine_similarity(clip.image.embed(pixel_values[:1])[0], rest, dim=0)
    assert_close(found.similarity[0], expected, **PRECISE)
    total = found.image.sum() + found.image_class[0]
    assert_close(total, (found.image_sums.difference + found.image_sums.gap)[0], **PRECISE)
    assert not clip.text.projection._forward_hooks


def test_pursuit_takes_the_likest_atom_first_and_refuses_a_text_that_says_nothing_else():
    atoms = torch.tensor([[0.0, 1, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
    text = torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64)
    assert_close(pursue(text, atoms, 1)[:, 0].abs(), atoms[1], **PRECISE)
    assert pursue(text, atoms, 2).shape == (3, 2)
    with pytest.raises(ValueError, match="must say something beside the distractors"):
        pursue(text, atoms, 3)
    with pytest.raises(ValueError, match="at least one text"):
        orthogonal_text(nib.METHODS["nib"], torch.zeros(0, 3, dtype=torch.long))


def test_a_rectified_map_is_the_map_without_its_negative_scores(clip, pixel_values, tokens):
    signed = nib.METHODS["nib"](clip, pixel_values, **tokens, layer=2)
    found = nib.METHODS["nib"](clip, pixel_values, **tokens, layer=2, rectified=True)
    assert (signed.image < 0).any()
    assert torch.equal(found.image, signed.image.clamp(min=0))
    assert torch.equal(found.text, signed.text.clamp(min=0))
    assert torch.equal(found.image_sums.gap, signed.image_sums.gap)


BAD = [
    ("grad_eclip", dict(text_blocks=0), "text_blocks must be a whole number of at least 1, got 0"),
    ("legrad", dict(blocks=0), "blocks must be a whole number of at least 1, got 0"),
    ("clip_surgery", dict(blocks=0), "blocks must be a whole number of at least 1, got 0"),
    ("agi", dict(n_others=0), "n_others must be a whole number of at least 1, got 0"),
    ("agi", dict(step_size=0), "step_size must be more than 0 and finite, got 0"),
    ("lime", dict(n_samples=0), "n_samples must be a whole number of at least 1, got 0"),
    ("lime", dict(alpha=-1), "alpha must be at least 0 and finite, got -1"),
]


def test_rejects_bad_parameters(clip, pair, subtests):
    for method, parameters, message in BAD:
        with subtests.test(f"{method}, {parameters}"), pytest.raises(ValueError, match=message):
            nib.METHODS[method](clip, *pair, **parameters)
