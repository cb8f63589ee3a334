"""Tiny random models: a 5 x 5 grid, 60 pixels, 4 + 4 blocks, padded captions, a repeated token."""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from tiny import write_notebook
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

import nib
from benchmarks.families import randomise

torch.set_num_threads(1)  # tensors this small are not worth sharing, and waiting threads burn time

POOLING = ("test_attribution", "test_inputs")

# Two blocks of one word each, one with a repeated word, one with words the tokenizer must split.
CAPTIONS = ["a cat", "a dog next to a dog on the grass", "a hippopotamus in the snow"]


def make_config(eos_token_id: int = 1330, **vision) -> CLIPConfig:
    """Describe a tiny CLIP whose grid is not 7 x 7."""
    shared = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
    ids = dict(bos_token_id=1329, eos_token_id=eos_token_id, pad_token_id=1330)
    return CLIPConfig(
        text_config=dict(vocab_size=1331, max_position_embeddings=32, **ids, **shared),
        vision_config=dict(image_size=60, patch_size=12, **shared) | vision,
        projection_dim=16,
    )


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(nib.checkpoint.EMBEDDED)


@pytest.fixture(scope="session")
def image_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 60}, crop_size=60)


def pytest_generate_tests(metafunc):
    """Where pooling matters, try also the end id of the hub's old configs."""
    if "clip" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in POOLING:
        ids = ["pooled_at_end_id", "pooled_at_largest_id"]
        metafunc.parametrize("clip", [1330, 2], ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def clip(request, tokenizer, image_processor):
    """A float64 model."""
    model = randomise(CLIPModel(make_config(getattr(request, "param", 1330)))).double()
    return nib.HookedCLIP(model, tokenizer, image_processor)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tokenizer, image_processor):
    """A saved tiny model with its processor files."""
    folder = tmp_path_factory.mktemp("tiny_clip")
    randomise(CLIPModel(make_config())).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pixel_values():
    return torch.randn(3, 3, 60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="session")
def tokens(tokenizer):
    """Three captions of unequal length: input_ids and attention_mask."""
    return dict(tokenizer(CAPTIONS, padding=True, return_tensors="pt"))


@pytest.fixture
def notebook(tmp_path):
    """A tiny notebook in a folder of its own."""
    (tmp_path / "notebooks").mkdir()
    return write_notebook(tmp_path / "notebooks" / "tiny.ipynb")


@pytest.fixture
def make_grid(notebook):
    """Write a grid of the notebook: axes, and fixed parameters by name."""

    def make(axes=None, name="grid", **parameters):
        path = notebook.with_name(f"{name}.yaml")
        path.write_text(json.dumps({"notebook": notebook.name, "parameters": parameters, "axes": axes or {}}))
        return path

    return make


@pytest.fixture
def marks(tmp_path):
    """A folder in which each execution of a notebook leaves a file that holds its kernel's process id."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture(params=["image", "text"])
def split(request, clip, pixel_values, tokens):
    if request.param == "image":
        return clip.image.split(pixel_values, 2)
    return clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])


@pytest.fixture
def targets():
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
