import pytest
import torch

from studies.table1 import falcon

WORDS = ["dog", "cat", "grass", "snow"]


@pytest.fixture
def planted():
    """Embeddings of 40 pictures: coordinate 0 is "dog", 1 is "cat", 2 "grass", 3 "snow"; 4 and 5 are noise."""
    generator = torch.Generator().manual_seed(0)
    embeds = 0.02 * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    captions = []
    for row in range(40):
        animal, ground = WORDS[row % 2], WORDS[2 + row // 2 % 2]
        embeds[row, row % 2] += 1
        embeds[row, 2 + row // 2 % 2] += 1
        captions.append(f"a {animal} on the {ground}")
    return embeds, captions


def embed_words(words):
    vectors = torch.eye(6, dtype=torch.float64)
    return torch.stack([vectors[WORDS.index(word)] for word in words])


def test_a_planted_coordinate_gets_its_word(planted, subtests):
    for coordinate in range(4):
        with subtests.test(str(coordinate)):
            words = falcon.explain(*planted, [coordinate], embed_words, k=5)
            assert next(iter(words)) == WORDS[coordinate]
            assert words[WORDS[coordinate]] > 0.5


def test_a_group_gets_both_words(planted):
    words = falcon.explain(*planted, [0, 3], embed_words, k=5)
    assert set(list(words)[:2]) <= {"dog", "snow"}


def test_look_alikes_differ_in_the_coordinate_alone(planted):
    embeds, captions = planted
    high, low = falcon.choose(embeds, [0], 5)
    for one, other in zip(high.tolist(), low.tolist()):
        assert "dog" in captions[one]
        assert "cat" in captions[other]
        assert captions[one].split()[-1] == captions[other].split()[-1]  # the same ground


def test_words_are_scored_by_the_contrast():
    words, high, low = torch.eye(2), torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    assert falcon.score_words(words, high, low).tolist() == [1, -1]


def test_bad_parameters_are_refused(planted, subtests):
    for coordinates, k in [([], 3), ([0], 0), ([0], 21)]:
        with subtests.test(f"{coordinates}, {k}"), pytest.raises(ValueError, match="k from 1 to 20"):
            falcon.choose(planted[0], coordinates, k)
