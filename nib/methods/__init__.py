"""The attribution methods: `METHODS` maps the name of each to its function, `PRESETS` names sets of NIB's parameters.

What the paper compares: `nib m2ib rise gradcam chefer saliency mfaba fast_ig`, each as its authors ran it by default.
Cited forms that they did not run: `pixel_gradient`, `input_x_gradient`. Controls: `random`, `center`, `objectness`,
`none`.

All are called alike, and what they share is said here once:

    scores = nib.METHODS["gradcam"](clip, pixel_values, input_ids, attention_mask, layer=10)

Args:
    clip: a `HookedCLIP`.
    pixel_values: (batch, channels, height, width); one picture serves all captions, and its passes are then shared.
    input_ids: (batch, tokens), with begin and end.
    attention_mask: (batch, tokens), 1 at tokens; None where nothing is padded.
    batch_size: rows at once (pairs, or copies of their inputs or states); bounds memory, changes results by rounding.
    seed: of what is random. Deterministic methods take it too, so that all can be called alike.

Returns:
    `Scores`, in the units that the method states.

Raises:
    ValueError: a parameter out of its range, or batches that do not pair up.
"""

from nib.methods.chefer import chefer
from nib.methods.controls import center, none, objectness, random
from nib.methods.fast_ig import fast_ig
from nib.methods.gradcam import gradcam
from nib.methods.input_x_gradient import input_x_gradient
from nib.methods.m2ib import m2ib
from nib.methods.mfaba import mfaba
from nib.methods.nib import PRESETS, nib
from nib.methods.pixel_gradient import pixel_gradient
from nib.methods.rise import rise
from nib.methods.saliency import saliency
from nib.methods.scores import Scores

METHODS = {
    "nib": nib,
    "m2ib": m2ib,
    "rise": rise,
    "gradcam": gradcam,
    "chefer": chefer,
    "saliency": saliency,
    "mfaba": mfaba,
    "fast_ig": fast_ig,
    "pixel_gradient": pixel_gradient,
    "input_x_gradient": input_x_gradient,
    "random": random,
    "center": center,
    "objectness": objectness,
    "none": none,
}

# What the released code calls layer 9 is the input of block 9 for NIB and its output for these.
ONE_LATER = ("m2ib", "gradcam", "objectness")

__all__ = ["METHODS", "ONE_LATER", "PRESETS", "Scores"]
