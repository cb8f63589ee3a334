"""Systems whose properties are known beforehand must get the marks that they deserve."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch import nn

from studies.table1 import plots
from studies.table1.examples import Examples, make_pairs
from studies.table1.harness import (
    PROPERTIES,
    Setting,
    hash_weights,
    mark,
    measure,
    rank_correlation,
    share_of_similarity,
)
from studies.table1.related import RELATED
from studies.table1.structures import build
from studies.table1.systems import SYSTEMS, Explanation, System, method


@pytest.fixture(scope="module")
def setting(clip):
    rng = np.random.default_rng(0)
    kinds = ["cat", "dog", "snake", "bear"] * 10
    images = [Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)) for _ in kinds]
    texts = [f"a {kind} on the {ground}" for kind, ground in zip(kinds, ["grass", "snow", "sand"] * 14)]
    data = Dataset.from_list([{"text": text, "objects": [kind]} for text, kind in zip(texts, kinds)])
    data = data.add_column("image", [str(row) for row in range(40)])  # pictures do not go through arrow here
    data = Pictures(data, images)
    return Setting(clip, make_pairs(clip, data.select(range(3))), {"captions": data, "objects": data}, seeds=(0, 1))


class Pictures:
    """A data set whose pictures stay in memory."""

    def __init__(self, data, images):
        self.data, self.images = data, images

    def __len__(self):
        return len(self.data)

    def __getitem__(self, key):
        return self.images if key == "image" else self.data[key][:]

    def select(self, rows):
        return Pictures(self.data.select(rows), [self.images[row] for row in rows])


def honest(clip, pair, examples, seed):
    map = pair.pixel_values[0, 0, :5, :5].clone()
    total = float(map.sum())
    return Explanation([dict(enumerate(map.flatten().tolist()))], [(total, total)], clip.model, map)


def measured(explain, setting):
    table = measure({"it": System(explain)}, setting, progress=False).set_index("property")
    assert list(table.index) == PROPERTIES
    return table


def test_an_honest_system_gets_all_marks_and_they_are_drawn(setting):
    table = measured(honest, setting)
    assert table["mark"].tolist() == ["✓", "✓", table["mark"]["No Specific Structure"], "✓", "✓", "✓"]
    assert table["number"]["No Randomness"] == 1
    assert table["paper"].tolist() == ["not stated"] * 6

    figure = plots.draw_table(measure({"it": System(honest)}, setting, progress=False))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("✓") >= 5
    assert len(texts) == 12


def test_rows_and_labels_that_are_read_are_counted(setting):
    def read(clip, pair, examples, seed):
        examples.labels()
        return honest(clip, pair, examples, seed)

    table = measured(read, setting)
    assert table["number"][["No Extra Example", "No Downstream Task"]].tolist() == [20, 20]
    assert table["mark"][["No Extra Example", "No Downstream Task"]].tolist() == ["✗", "✗"]


def test_texts_are_no_labels_and_what_is_kept_counts_again(setting):
    examples = Examples.draw(setting.clip, setting.data["captions"], 0.5, 0)
    examples.text_embeds()
    assert (len(examples.rows_read), len(examples.labels_read)) == (20, 0)
    examples.rows_read.clear()
    examples.text_embeds()
    assert len(examples.rows_read) == 20


def test_randomness_is_seen(setting):
    def random(clip, pair, examples, seed):
        map = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed))
        return Explanation([dict(enumerate(map.flatten().tolist()))], [(1.0, 1.0)], clip.model, map)

    table = measured(random, setting)
    assert table["number"]["No Randomness"] < 0.6
    assert table["mark"]["No Randomness"] == "✗"
    assert table["number"]["No Info Loss"] == 0  # the same for every pair


def test_half_a_sum_is_a_half_mark(setting):
    def half(clip, pair, examples, seed):
        found = honest(clip, pair, examples, seed)
        return Explanation(found.said, [(0.5, 1.0), (1.5, 1.0)], clip.model)

    table = measured(half, setting)
    assert table["number"]["No Info Loss"] == pytest.approx(0.5)
    assert table["mark"]["No Info Loss"] == "◐"


def test_another_model_and_a_changed_weight_are_seen(setting):
    def other(clip, pair, examples, seed):
        return Explanation(honest(clip, pair, examples, seed).said, [(1.0, 1.0)], nn.Linear(3, 3))

    assert measured(other, setting)["mark"]["Current Model"] == "✗"

    weight = setting.clip.model.logit_scale
    before = hash_weights(setting.clip.model)

    def change(clip, pair, examples, seed):
        clip.model.logit_scale.data += 1e-3
        return honest(clip, pair, examples, seed)

    kept = weight.data.clone()
    table = measured(change, setting)
    weight.data.copy_(kept)
    assert table["number"]["Current Model"] == 0
    assert hash_weights(setting.clip.model) == before


def test_a_system_that_needs_blocks_is_refused_by_a_network_without(setting):
    def cut(clip, pair, examples, seed):
        clip.image.split(pair.pixel_values, 1)
        return honest(clip, pair, examples, seed)

    evidence = measured(cut, setting)["evidence"]["No Specific Structure"]
    assert "another CLIP: runs" in evidence
    assert "no class token: refuses (ValueError: a convolutional tower" in evidence


def test_marks_follow_the_thresholds(subtests):
    cases = [
        ("No Extra Example", 0, "✓"),
        ("No Extra Example", 1, "◐"),
        ("No Extra Example", 10, "✗"),
        ("No Randomness", 0.999, "✓"),
        ("No Randomness", 0.95, "◐"),
        ("No Randomness", 0.9, "✗"),
        ("No Specific Structure", 2 / 3, "◐"),
        ("No Specific Structure", 1 / 3, "✗"),
        ("No Info Loss", 0.2, "✗"),
    ]
    for name, number, expected in cases:
        with subtests.test(f"{name}, {number}, {expected}"):
            assert mark(name, number) == expected


def test_rank_correlation_is_of_the_worse_part_and_knows_missing_words():
    def say(*tables):
        return Explanation(list(tables), [], nn.Identity())

    one, other = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 3.0, 1: 2.0, 2: 1.0}
    assert rank_correlation(say(one, one), say(one, other)) == pytest.approx(-1)
    assert rank_correlation(say({"a": 1.0, "b": 2.0}), say({"b": 2.0, "c": 1.0})) < 1
    assert rank_correlation(say({0: 0.0, 1: 0.0}), say({0: 0.0, 1: 0.0})) == 1


def test_every_system_explains_a_pair(setting, subtests):
    for name in SYSTEMS:
        with subtests.test(name):
            system = SYSTEMS[name]
            found = system.explain(setting.clip, setting.pairs[0], setting.draw(system, 0), 0)
            assert all(np.isfinite(list(table.values())).all() for table in found.said)
            assert np.isfinite(found.sums).all()
            assert (found.map is not None) == (name not in ("Hossain et al.", "FALCON"))


def test_textspan_and_nib_with_many_nodes_lose_nothing(setting):
    for name, share in (("TEXTSPAN", 1e-9), ("NIB", 1)):
        system = SYSTEMS[name]
        found = system.explain(setting.clip, setting.pairs[0], setting.draw(system, 0), 0)
        for total, whole in found.sums:
            assert abs(total - whole) < share
    assert len(found.sums) == 2

    explain = method("nib", n_steps=400, quadrature="gausslegendre")
    share, _, _ = share_of_similarity([explain(setting.clip, pair, None, 0) for pair in setting.pairs])
    assert share == pytest.approx(1, abs=0.02)


def test_every_related_system_explains_a_pair(setting, subtests):
    for name in RELATED:
        with subtests.test(name):
            system = RELATED[name]
            found = system.explain(setting.clip, setting.pairs[0], setting.draw(system, 0), 0)
            assert found.map is not None
            assert np.isfinite(found.sums).all()


def test_integrated_gradients_add_up_and_lime_depends_on_its_seed(setting):
    pair = replace(setting.pairs[0], pixel_values=0.1 * setting.pairs[0].pixel_values)  # near enough for 64 nodes
    found = RELATED["Integrated gradients"].explain(setting.clip, pair, None, 0)
    ((total, whole),) = found.sums
    assert total == pytest.approx(whole, rel=1e-2)
    assert sum(found.said[0].values()) == pytest.approx(total)

    maps = [RELATED["LIME"].explain(setting.clip, setting.pairs[0], None, seed).map for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


def test_dependence_on_the_examples_is_seen(setting):
    def follow(clip, pair, examples, seed):
        examples.texts()
        map = torch.rand(5, 5, generator=torch.Generator().manual_seed(sum(examples.chosen)))
        return Explanation([dict(enumerate(map.flatten().tolist()))], [(1.0, 1.0)], clip.model, map)

    table = measured(follow, setting)
    assert table["number"]["No Randomness"] < 0.6
    assert "seeds: 1.000" in table["evidence"]["No Randomness"]


def test_methods_refuse_a_convolutional_tower_for_its_structure(setting, subtests):
    for name in ["NIB", "M2IB"]:
        with subtests.test(name):
            alone = build(setting.clip)["no class token"]
            with pytest.raises(ValueError, match="a convolutional tower has no blocks"):
                SYSTEMS[name].explain(alone, setting.pairs[0], None, 0)
