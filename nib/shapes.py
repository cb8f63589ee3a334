"""Name the tensors that travel between the parts of `nib`.

Axes: `batch` pairs, `tokens` of one tower (class token and patches, or begin, words, end and
padding), `width` of its blocks, `embed` of the shared space, `targets` embeddings that one input
is compared with.
"""

from jaxtyping import Float, Int
from torch import Tensor

PixelValues = Float[Tensor, "batch channels height width"]  # pictures as the image processor makes them
InputIds = Int[Tensor, "batch tokens"]  # token ids, begin and end included
AttentionMask = Int[Tensor, "batch tokens"]  # 1 at tokens, 0 at padding
HiddenStates = Float[Tensor, "batch tokens width"]  # what enters block `layer` of a tower
Embeds = Float[Tensor, "batch embed"]  # projected embeddings, not normalised
Targets = Float[Tensor, "batch targets embed"]  # the other modality's embeddings, held fixed
TargetScores = Float[Tensor, "batch targets tokens"]  # signed, in the method's unit
TokenScores = Float[Tensor, "batch tokens"]  # signed, in the method's unit
GridScores = Float[Tensor, "batch grid_h grid_w"]  # signed, in the method's unit
PixelScores = Float[Tensor, "batch height width"]  # signed, one a pixel
PairValues = Float[Tensor, " batch"]  # one number a pair
Nodes = Float[Tensor, " steps"]  # points or weights of a quadrature
