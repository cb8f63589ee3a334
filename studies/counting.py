"""Count how often the towers run: the price of a method, in passes.

Exports `count` and `TowerCount`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

from torch import Tensor

from nib.clip import HookedCLIP
from nib.towers import Tower


@dataclass
class TowerCount:
    """What ran in the blocks of one tower.

    Passes are counted in block rows: a block that runs forward on a batch of r rows adds r forward
    rows, and a gradient that arrives at the output of a block for a batch of r rows adds r backward
    rows. A full-tower pass of one input is one row in each block. So a suffix of 3 blocks of 12
    counts as a quarter of a pass, and 10 noise copies as 10 passes. A gradient that stops inside a
    block, such as one with respect to its attention, counts that block in full; a gradient with
    respect to the output of a block does not count that block. Embedding, final norm and projection
    are not counted. While it is counted the last block runs whole, not in the shorter form of
    `nib.last_block`: what is counted is what a method needs of a plain CLIP. Gradients with respect to
    weights would not be seen; `nib` takes none.

    Attributes:
        n_blocks: of the tower.
        block_calls: for each block, how often it ran forward, whatever the batch.
        forward_rows, backward_rows: rows, summed over all blocks.
    """

    n_blocks: int
    block_calls: list[int] = field(default_factory=list)
    forward_rows: int = 0
    backward_rows: int = 0

    @property
    def calls(self) -> int:
        """Forward calls of the block that was called most often: batched runs, wherever they start."""
        return max(self.block_calls, default=0)

    def forward_passes(self, pairs: int = 1) -> float:
        """Return full-tower-equivalent forward passes a pair: forward rows / (n_blocks * pairs)."""
        return self.forward_rows / (self.n_blocks * self._check(pairs))

    def backward_passes(self, pairs: int = 1) -> float:
        """Return full-tower-equivalent backward passes a pair: backward rows / (n_blocks * pairs)."""
        return self.backward_rows / (self.n_blocks * self._check(pairs))

    @staticmethod
    def _check(pairs: int) -> int:
        if pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {pairs}")
        return pairs


@contextmanager
def count(clip: HookedCLIP) -> Iterator[SimpleNamespace]:
    """Count what runs in both towers inside the `with`; the hooks are gone afterwards, also after an error.

        with count(clip) as counts:
            METHODS["m2ib"](clip, pixel_values, input_ids)
        counts.image.forward_passes(pairs=len(input_ids))

    Yields:
        A namespace with a `TowerCount` each for `image` and `text`. A graph that is built inside
        and differentiated later still counts.
    """
    counts = SimpleNamespace()
    handles = []
    try:
        for name in ("image", "text"):
            tower: Tower = getattr(clip, name)
            tally = TowerCount(len(tower.blocks), [0] * len(tower.blocks))
            setattr(counts, name, tally)
            for index, block in enumerate(tower.blocks):
                handles.append(block.register_forward_hook(_hook(tally, index)))
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _hook(tally: TowerCount, index: int):
    def on_gradient(gradient: Tensor) -> None:
        tally.backward_rows += len(gradient)

    def on_forward(block, args, output) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        tally.block_calls[index] += 1
        tally.forward_rows += len(states)
        if states.requires_grad:
            states.register_hook(on_gradient)

    return on_forward
