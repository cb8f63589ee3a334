"""Mass on objects and removals equal hand-computed cases and plain loops."""

import pytest
import torch
from conftest import CAPTIONS
from torch.nn.functional import cosine_similarity

from nib.metrics.removal import REMOVALS
from studies.negatives import at_random, lowest, patch_removal, signed_mass, word_removal

WORDS = [caption.split() for caption in CAPTIONS]
LONGEST = max(map(len, WORDS))


@pytest.fixture
def removed():
    """Two sets of two patches in each of three 5 x 5 grids."""
    return at_random(torch.ones(3, 25, dtype=torch.bool), 2, n_draws=2, seed=3).unflatten(-1, (5, 5))


def remove_words(*choices):
    """Mark words by their places: one tuple of places a caption."""
    removed = torch.zeros(len(choices), 1, LONGEST, dtype=torch.bool)
    for row, places in enumerate(choices):
        removed[row, 0, list(places)] = True
    return removed


def similarity(clip, pixel_values, input_ids, attention_mask):
    """Compare one picture with one caption through transformers' own forward pass."""
    output = clip.model(
        input_ids=input_ids[None],
        pixel_values=pixel_values[None],
        attention_mask=attention_mask[None],
        interpolate_pos_encoding=tuple(pixel_values.shape[1:]) != (60, 60),
    )
    return float(cosine_similarity(output.image_embeds, output.text_embeds))


class TestSignedMass:
    def test_by_hand(self):
        scores = torch.tensor([[[2.0, -1.0], [0.0, -1.0]]])
        upper = torch.tensor([[[True, True], [False, False]]])
        assert [float(part) for part in signed_mass(scores, upper)] == [0.5, 0.25]
        assert [float(part) for part in signed_mass(scores, ~upper)] == [0.0, 0.25]

        assert [float(part) for part in signed_mass(torch.zeros(1, 2, 2), torch.ones(1, 4, 4, dtype=bool))] == [0, 0]

        with pytest.raises(ValueError, match="scores and masks"):
            signed_mass(torch.zeros(2, 2, 2), torch.ones(1, 4, 4, dtype=bool))

    def test_all_mass_is_shared_and_only_its_sign_matters(self):
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(4, 5, 5, generator=generator)
        regions = torch.randint(3, (4, 60, 60), generator=generator)
        total = sum(sum(signed_mass(scores, regions == region)) for region in range(3))
        torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64))

        scores = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1))
        masks = torch.zeros(2, 30, 30, dtype=torch.bool)
        masks[:, 4:11, 7:20] = True
        positive, negative = signed_mass(scores, masks)
        for factor, expected in ((8.0, (positive, negative)), (-2.0, (negative, positive))):
            torch.testing.assert_close(signed_mass(factor * scores, masks), expected)


class TestChoosing:
    def test_lowest_by_hand_and_in_random_order_where_equal(self):
        scores = torch.tensor([[3.0, -1.0, 0.5, -2.0], [0.0, 1.0, torch.inf, torch.inf]])
        expected = [[False, True, False, True], [True, True, False, False]]
        assert lowest(scores, 2).tolist() == expected

        flat = torch.zeros(1000, 4)
        flat[:, 3] = 1
        chosen = lowest(flat, 1)
        assert not chosen[:, 3].any()
        assert chosen[:, :3].float().mean(0).sub(1 / 3).abs().max() < 0.05
        assert torch.equal(chosen, lowest(flat, 1))
        assert not torch.equal(chosen, lowest(flat, 1, seed=1))

    def test_random_sets_have_k_items_of_those_allowed_and_depend_on_the_seed_alone(self):
        among = torch.tensor([[True, False, True, True], [True, True, True, True]])
        drawn = at_random(among, 3, n_draws=200)
        assert drawn.shape == (2, 200, 4)
        assert (drawn.sum(-1) == 3).all()
        assert drawn[0].all(0).tolist() == among[0].tolist()
        assert drawn[1].float().mean(0).sub(0.75).abs().max() < 0.1

        among = torch.ones(3, 25, dtype=torch.bool)
        drawn = at_random(among, 4)
        assert torch.equal(drawn[:2], at_random(among[:2], 4))
        assert not torch.equal(drawn, at_random(among, 4, seed=1))
        assert not torch.equal(drawn[0], drawn[1])

    def test_refuse_what_is_out_of_range(self, subtests):
        for k in [0, 5, 1.5]:
            with subtests.test(str(k)):
                with pytest.raises(ValueError, match="k must be"):
                    lowest(torch.zeros(2, 4), k)
                with pytest.raises(ValueError, match="k must be"):
                    at_random(torch.ones(2, 4, dtype=torch.bool), k)

        for value in [torch.nan, -torch.inf]:
            with subtests.test(str(value)), pytest.raises(ValueError, match="NaN or -inf"):
                lowest(torch.tensor([[0.0, value]]), 1)

        with pytest.raises(ValueError, match="n_draws must be"):
            at_random(torch.ones(2, 4, dtype=torch.bool), 1, n_draws=0)


class TestPatchRemoval:
    def test_mean_colour_is_a_plain_loop(self, clip, tokens, subtests):
        for size in [(60, 60), (65, 74)]:
            with subtests.test(str(size)):
                height, width = size
                generator = torch.Generator().manual_seed(2)
                pixel_values = torch.randn(3, 3, height, width, generator=generator, dtype=torch.float64)
                grid = height // 12, width // 12
                removed = torch.rand(3, 2, *grid, generator=generator) < 0.2
                found = patch_removal(clip, pixel_values, **tokens, removed=removed)
                for pair in range(3):
                    text = tokens["input_ids"][pair], tokens["attention_mask"][pair]
                    for which in range(2):
                        painted = pixel_values[pair].clone()
                        for row, column in removed[pair, which].nonzero().tolist():
                            painted[:, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = 0
                        expected = similarity(clip, painted, *text) - similarity(clip, pixel_values[pair], *text)
                        assert float(found[pair, which]) == pytest.approx(expected, abs=1e-12)

    def test_left_out_is_a_shorter_sequence(self, clip, pixel_values, tokens, removed):
        found = patch_removal(clip, pixel_values, **tokens, removed=removed, removal="left_out")
        vision = clip.model.vision_model
        text_embeds = clip.text.embed(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        for pair in range(3):
            text = tokens["input_ids"][pair], tokens["attention_mask"][pair]
            states = vision.pre_layrnorm(vision.embeddings(pixel_values[pair : pair + 1]))
            for which in range(2):
                gone = 1 + removed[pair, which].flatten().nonzero().flatten()
                kept = [token for token in range(26) if token not in gone.tolist()]
                output = vision.encoder(inputs_embeds=states[:, kept]).last_hidden_state
                embed = clip.model.visual_projection(vision.post_layernorm(output[:, 0]))
                after = float(cosine_similarity(embed, text_embeds[pair : pair + 1]))
                expected = after - similarity(clip, pixel_values[pair], *text)
                assert float(found[pair, which]) == pytest.approx(expected, abs=1e-12)

    def test_removing_nothing_changes_nothing(self, clip, pixel_values, tokens, removed, subtests):
        for removal in REMOVALS:
            with subtests.test(removal):
                change = patch_removal(clip, pixel_values, **tokens, removed=removed & False, removal=removal)
                torch.testing.assert_close(change, torch.zeros(3, 2, dtype=torch.float64), atol=1e-12, rtol=0)

    def test_batches_do_not_matter(self, clip, pixel_values, tokens, removed, subtests):
        for removal in REMOVALS:
            with subtests.test(removal):
                whole = patch_removal(clip, pixel_values, **tokens, removed=removed, removal=removal)
                parts = patch_removal(clip, pixel_values, **tokens, removed=removed, removal=removal, batch_size=1)
                torch.testing.assert_close(whole, parts, atol=1e-12, rtol=0)

    def test_refuses_what_does_not_fit(self, clip, pixel_values, tokens, removed):
        with pytest.raises(
            ValueError, match=r"removal must be one of \['blurred', 'left_out', 'mean_colour'\], got 'blur'"
        ):
            patch_removal(clip, pixel_values, **tokens, removed=removed, removal="blur")
        with pytest.raises(ValueError, match=r"sets of patches \(3, sets, 5, 5\)"):
            patch_removal(clip, pixel_values, **tokens, removed=removed[..., :4])
        with pytest.raises(ValueError, match="2 pictures"):
            patch_removal(clip, pixel_values[:2], **tokens, removed=removed)
        with pytest.raises(ValueError, match="batch_size must be"):
            patch_removal(clip, pixel_values, **tokens, removed=removed, batch_size=0)
        removed[0, 0, 0, 0] = ~removed[0, 0, 0, 0]
        with pytest.raises(ValueError, match="same number of patches"):
            patch_removal(clip, pixel_values, **tokens, removed=removed, removal="left_out")


class TestWordRemoval:
    def test_is_a_shorter_caption(self, clip, tokenizer, pixel_values):
        found = word_removal(clip, pixel_values, WORDS, remove_words([0], [1, 7], [3]))
        shorter = ["cat", "a next to a dog on grass", "a hippopotamus in snow"]
        for pair, (text, without) in enumerate(zip(CAPTIONS, shorter)):
            before, after = (tokenizer(caption, return_tensors="pt") for caption in (text, without))
            expected = float(
                similarity(clip, pixel_values[pair], after["input_ids"][0], after["attention_mask"][0])
                - similarity(clip, pixel_values[pair], before["input_ids"][0], before["attention_mask"][0])
            )
            assert float(found[pair, 0]) == pytest.approx(expected, abs=1e-12)

    def test_batches_do_not_matter(self, clip, pixel_values):
        removed = torch.cat([remove_words([0], [4, 1], [2]), remove_words([1], [0], [3, 1])], 1)
        whole = word_removal(clip, pixel_values, WORDS, removed)
        torch.testing.assert_close(whole, word_removal(clip, pixel_values, WORDS, removed, batch_size=1))

    def test_refuses_what_does_not_fit(self, clip, pixel_values):
        with pytest.raises(ValueError, match="at least one word"):
            word_removal(clip, pixel_values, WORDS, remove_words([0, 1], [0], [0]))
        with pytest.raises(ValueError, match=r"sets of words \(3, sets, 9\)"):
            word_removal(clip, pixel_values, WORDS, remove_words([0], [1], [2])[..., :4])
        with pytest.raises(ValueError, match="1 pictures"):
            word_removal(clip, pixel_values[:1], WORDS, remove_words([0], [1], [2]))
