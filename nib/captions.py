"""Turn sentences into what the towers take, or say what is wrong with them."""

import unicodedata
import warnings

import torch

from nib.checks import check_dense, check_flag, name_place, shorten
from nib.clip import HookedCLIP
from nib.shapes import AttentionMask, InputIds

LETTERS = 1_000  # of a caption, for each token that the model takes
Caption = str | torch.Tensor


def to_tokens(
    clip: HookedCLIP, captions: list[Caption], truncate: bool = False
) -> tuple[InputIds, AttentionMask, list[tuple[list[str], list[int | None], list[str]]]]:
    """Tokenize captions, sentences or 1-d tensors of token ids with begin and end, and pad them to the longest.

    Where they are longer than the model's context, `truncate` cuts them with a warning; else a ValueError says so.

    Returns:
        Token ids and mask, both (captions, tokens), and for each caption its tokens, the index of the word that each
        token belongs to (None at begin and end), and its words.
    """
    check_flag("truncate", truncate)
    encoded = []
    for number, caption in enumerate(captions):
        with name_place(f"caption {number}", len(captions)):
            encoded.append(_encode(clip, caption, truncate))
    # A tower that sees its padding was trained on captions that are all padded to its length.
    longest = clip.context_length if clip.text.sees_padding else max(len(ids) for ids, *_ in encoded)
    input_ids = torch.full((len(encoded), longest), clip.text.padding_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, (ids, *_) in enumerate(encoded):
        input_ids[row, : len(ids)] = torch.as_tensor(ids)
        attention_mask[row, : len(ids)] = 1
    return input_ids.to(clip.device), attention_mask.to(clip.device), [tuple(described) for _, *described in encoded]


def _encode(clip: HookedCLIP, caption: Caption, truncate: bool):
    """Return ids, tokens, word index of each token, and words of one caption."""
    if isinstance(caption, torch.Tensor):
        return _encode_ids(clip, caption)
    if not isinstance(caption, str):
        raise TypeError(f"a caption must be a str or a 1-d tensor of token ids, got {type(caption).__name__}")
    if not caption.strip():
        raise ValueError(f"a caption must hold at least one word, got {shorten(caption)}")
    if clip.tokenizer is None:
        raise ValueError("this model came without a tokenizer: pass token ids as a 1-d tensor")
    if len(caption) > (most := LETTERS * clip.context_length):
        raise ValueError(f"a caption must have at most {most:,} letters, got {len(caption):,}: {shorten(caption[:99])}")
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise ValueError(f"a caption must be Unicode, got half of a surrogate pair in {shorten(caption)}")
    encoding = clip.tokenizer(caption, return_offsets_mapping=True, truncation=False, verbose=False)
    if len(encoding["input_ids"]) > clip.context_length:
        message = f"the caption has {len(encoding['input_ids'])} tokens, the model's context is {clip.context_length}"
        if not truncate:
            raise ValueError(f"{message}: shorten it, or pass truncate=True; got {shorten(caption)}")
        warnings.warn(f"{message}: its end is cut off", stacklevel=4)
        encoding = clip.tokenizer(caption, return_offsets_mapping=True, truncation=True, max_length=clip.context_length)
    kinds = ("bos", "eos", "pad", "cls", "sep", "mask")  # CLIP's end token is its unknown one, too
    specials = {getattr(clip.tokenizer, f"{kind}_token_id", None) for kind in kinds}
    found = [token for token in encoding["input_ids"] if token in specials]
    if len(found) > clip.tokenizer.num_special_tokens_to_add():  # more than the tokenizer itself puts at the ends
        named = ", ".join(dict.fromkeys(clip.tokenizer.convert_ids_to_tokens(found)))
        raise ValueError(f"a caption must not hold special tokens of the tokenizer, {named}, got {shorten(caption)}")
    word_ids, words = _find_words(encoding, caption)
    _check_ends(clip, encoding["input_ids"], word_ids)
    tokens = [token.removesuffix("</w>") for token in clip.tokenizer.convert_ids_to_tokens(encoding["input_ids"])]
    return encoding["input_ids"], tokens, word_ids, words


def _find_words(encoding, caption: str) -> tuple[list[int | None], list[str]]:
    """Return the word that each token belongs to, None for those beside the words, and the words."""
    spans: dict[int, tuple[int, int]] = {}
    words, before = encoding.word_ids(), None
    for place, (start, end) in enumerate(encoding["offset_mapping"]):
        if words[place] is not None:
            if before is not None and start < spans[before][1]:
                words[place] = before  # a letter that lower case makes two of, such as İ, is in one word
            before = words[place]
            spans[before] = (spans.get(before, (start, end))[0], end)
    starts = {start for start, _ in spans.values()}
    for word, (start, end) in spans.items():  # a mark on a letter belongs to it, also where they were composed
        while end < len(caption) and end not in starts and unicodedata.combining(caption[end]):
            end += 1
        spans[word] = (start, end)
    order = {word: position for position, word in enumerate(spans)}
    word_ids = [None if word is None else order[word] for word in words]
    return word_ids, [caption[start:end] for start, end in spans.values()]


def _check_ends(clip: HookedCLIP, ids: list[int], word_ids: list[int | None]) -> None:
    """Check that the tokenizer puts the model's begin and end where the model takes them to be."""
    found, text = "", clip.text
    if not ids:
        found = "no token"
    elif max(ids) >= text.vocabulary:
        found = f"token id {max(ids)}, and the model knows {text.vocabulary}"
    elif (text.begin_tokens and word_ids[0] is not None) or word_ids[-1] is not None:
        found = f"no token {'after' if word_ids[-1] is not None else 'before'} the words"
    elif (end := int(text.find_end(torch.tensor([ids], device=clip.device)))) != len(ids) - 1:
        found = f"the end at place {len(ids) - 1}, and the model finds it at {end}"
    if found:
        raise ValueError(
            f"the tokenizer and the model do not belong together: the tokenizer gives {found}, in {shorten(ids)}"
        )


def check_begin(clip: HookedCLIP, input_ids: InputIds) -> None:
    """Raise a ValueError unless each row begins with the tokenizer's begin token, where the model has one."""
    named = (getattr(clip.tokenizer, f"{kind}_token_id", None) for kind in ("bos", "cls"))
    begin = [token for token in named if token is not None]
    wrong = [row for row in input_ids.tolist() if row[0] not in begin]
    if clip.text.begin_tokens and begin and wrong:
        raise ValueError(f"token ids must begin with the begin token, {begin[0]}, got {shorten(wrong[0])}")


def _encode_ids(clip: HookedCLIP, ids: torch.Tensor):
    check_dense("token ids", ids)
    whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    begins = clip.text.begin_tokens
    if ids.ndim != 1 or not whole or not 2 + begins <= len(ids) <= clip.context_length:
        raise ValueError(
            f"token ids must be a 1-d tensor of {'begin, ' if begins else ''}at least one token, and end, at most"
            f" {clip.context_length} in all, got {ids.dtype} {tuple(ids.shape)}"
        )
    ids, vocabulary = ids.long(), clip.text.vocabulary
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ValueError(f"token ids must be in [0, {vocabulary}), got [{int(ids.min())}, {int(ids.max())}]")
    check_begin(clip, ids[None])
    end = int(clip.text.find_end(ids[None].to(clip.device)))
    if end != len(ids) - 1 and not clip.text.sees_padding:
        raise ValueError(
            f"token ids must end with the end token, which the model pools, and it would pool place {end} of"
            f" {len(ids)}: got {shorten(ids.tolist())}"
        )
    ids = ids[: end + 1]  # a model that sees its padding gets it again
    if clip.tokenizer is None and clip.text.sees_padding:
        warnings.warn(
            f"without its tokenizer, {clip.text.padding_id} is taken for the model's padding id: published configs do"
            " not say it",
            stacklevel=4,
        )
    ids = ids.tolist()
    tokens = list(map(str, ids))
    words = tokens[begins:-1]
    return ids, tokens, [None] * begins + [*range(len(words)), None], words
