"""The attribution methods: `METHODS` maps the name of each to its function, `PRESETS` names sets of NIB's parameters.

All are called alike, `orthogonal_text` wraps any of them, and what they share is said here once:

    scores = nib.METHODS["gradcam"](clip, pixel_values, input_ids, attention_mask, layer=10)

Args:
    clip: a `HookedCLIP`.
    pixel_values: (batch, channels, height, width); one picture serves all captions, and its passes are then shared.
    input_ids: (batch, tokens), with begin and end.
    attention_mask: (batch, tokens), 1 at tokens; None where nothing is padded.
    layer: blocks run before the states are read, in both towers, or two numbers, of image and text. None for 3/4 of
        the blocks of each, the paper's 9 of 12, with NIB; for one more, 10 of 12, with those in `ONE_LATER`: the
        released code calls both layer 9.
    batch_size: rows at once (pairs, or copies of their inputs or states); bounds memory, changes results by rounding.
    seed: of what is random: a pair scores the same in any batch. Deterministic methods take it too.

Returns:
    `Scores`, in the units that the method states.

Raises:
    ValueError: a parameter out of its range, batches that do not pair up, or scores that are not finite.
"""

from nib.methods.agi import agi
from nib.methods.attention import chefer, fast_ig, saliency
from nib.methods.controls import center, none, objectness, random
from nib.methods.gradients import gradcam, input_x_gradient, mfaba, pixel_gradient
from nib.methods.legrad import legrad
from nib.methods.lime import lime
from nib.methods.m2ib import m2ib
from nib.methods.nib import PRESETS, nib
from nib.methods.orthogonal import orthogonal_text
from nib.methods.pairs import guard
from nib.methods.rise import rise
from nib.methods.scores import Scores
from nib.methods.values import clip_surgery, grad_eclip, mask_clip

COMPARED = (nib, m2ib, rise, gradcam, chefer, saliency, mfaba, fast_ig)  # by the paper, each as its authors ran it
CITED = (pixel_gradient, input_x_gradient)  # by the paper, which ran other forms under their names
NEWER = (grad_eclip, legrad, mask_clip, clip_surgery, agi, lime)
CONTROLS = (random, center, objectness, none)
METHODS = {method.__name__: guard(method.__name__, method) for method in (*COMPARED, *CITED, *NEWER, *CONTROLS)}

# What the released code calls layer 9 is the input of block 9 for NIB and its output for these.
ONE_LATER = ("m2ib", "gradcam", "objectness")
TOGETHER = ("agi",)  # maps depend on the pairs of a call

__all__ = ["METHODS", "ONE_LATER", "PRESETS", "TOGETHER", "Scores", "orthogonal_text"]
