"""The attribution methods: `METHODS` maps the name of each to its function, `PRESETS` names sets of NIB's parameters.

What the paper compares: `nib m2ib rise gradcam chefer saliency mfaba fast_ig`, each as its authors ran it by default.
Cited forms that they did not run: `pixel_gradient`, `input_x_gradient`. Newer ones: `grad_eclip legrad mask_clip
clip_surgery agi lime`. Controls: `random`, `center`, `objectness`, `none`. `orthogonal_text` wraps any of them.

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
    ValueError: a parameter out of its range, batches that do not pair up, or scores that are not finite.
"""

from nib.methods.agi import agi
from nib.methods.chefer import chefer
from nib.methods.controls import center, none, objectness, random
from nib.methods.fast_ig import fast_ig
from nib.methods.gradcam import gradcam
from nib.methods.input_x_gradient import input_x_gradient
from nib.methods.legrad import legrad
from nib.methods.lime import lime
from nib.methods.m2ib import m2ib
from nib.methods.mfaba import mfaba
from nib.methods.nib import PRESETS, nib
from nib.methods.orthogonal import orthogonal_text
from nib.methods.pairs import guard
from nib.methods.pixel_gradient import pixel_gradient
from nib.methods.rise import rise
from nib.methods.saliency import saliency
from nib.methods.scores import Scores
from nib.methods.values import clip_surgery, grad_eclip, mask_clip

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
    "grad_eclip": grad_eclip,
    "legrad": legrad,
    "mask_clip": mask_clip,
    "clip_surgery": clip_surgery,
    "agi": agi,
    "lime": lime,
    "random": random,
    "center": center,
    "objectness": objectness,
    "none": none,
}
METHODS = {name: guard(name, method) for name, method in METHODS.items()}

# What the released code calls layer 9 is the input of block 9 for NIB and its output for these.
ONE_LATER = ("m2ib", "gradcam", "objectness")
TOGETHER = ("agi",)  # maps depend on the pairs of a call

__all__ = ["METHODS", "ONE_LATER", "PRESETS", "TOGETHER", "Scores", "orthogonal_text"]
