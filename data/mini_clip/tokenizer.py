"""Train the tokenizer: CLIP's own byte-level BPE, on the caption grammar.

Exports `build_tokenizer`. The vocabulary holds every byte, so any text can be written; common
words of the grammar are one token, rarer plurals and other words split into several. Begin and
end have the two largest ids.
"""

import json

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from data.scenes.aerial import draw_aerial, five_aerial_captions
from data.scenes.backgrounds import Backgrounds
from data.scenes.grammar import five_captions
from data.scenes.scenes import draw_scene

CONTEXT_LENGTH = 32  # tokens, begin and end included; the longest caption of the grammar has fewer
MAX_MERGES = 1500


def build_tokenizer(seed: int = 0, n_scenes: int = 3000) -> CLIPTokenizer:
    """Learn merges from captions of `n_scenes` scenes and wrap them as a `CLIPTokenizer`."""
    trained = _train_bpe(_sample_captions(seed, n_scenes))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)


def _sample_captions(seed: int, n_scenes: int) -> list[str]:
    rng, backgrounds = np.random.default_rng([seed, 3]), Backgrounds(seed, variants=1)
    captions = []
    for _ in range(n_scenes):
        captions += five_captions(rng, draw_scene(rng, backgrounds))
    for _ in range(n_scenes // 5):
        captions += five_aerial_captions(rng, draw_aerial(rng))
    return captions


def _train_bpe(captions: list[str]) -> Tokenizer:
    clip = CLIPTokenizer()  # for CLIP's normaliser and pre-tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = clip.backend_tokenizer.normalizer
    tokenizer.pre_tokenizer = clip.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=512 + MAX_MERGES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer
