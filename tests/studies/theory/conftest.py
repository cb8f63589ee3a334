"""A tower cut before a block, and something to compare its embeddings with."""

import pytest
import torch


@pytest.fixture(params=["image", "text"])
def split(request, clip, pixel_values, tokens):
    if request.param == "image":
        return clip.image.split(pixel_values, 2)
    return clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])


@pytest.fixture
def targets():
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
