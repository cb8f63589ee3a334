"""Bring maps from the patch grid to the size of the picture.

Exports `upsample`.
"""

import torch


def upsample(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Interpolate maps bilinearly, as the paper does: (batch, grid_h, grid_w) -> (batch, *size)."""
    return torch.nn.functional.interpolate(scores[:, None], size, mode="bilinear", align_corners=False)[:, 0]
