"""Tokenizers of texts that are translated or summarized: pieces of words, made from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from openmaas.errors import InvalidRequest

PADDING, UNKNOWN, BEGIN, END = range(4)
SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
ALPHABET = 500  # characters that are no unknown ones, the most frequent
MAX_CHARACTERS = 20_000  # of a text that are looked at


def trained(texts: list[str], most: int, *, ends: bool) -> Tokenizer:
    """
    Args:
        most: pieces, the special ones too.
        ends: whether it puts ``END`` after a text.

    Raises:
        InvalidRequest: there are no words.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN], fuse_unk=True))
    tokenizer.normalizer = normalizers.NFKC()
    # Punctuation stands alone; a word knows that a space was before it.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = BpeTrainer(
        vocab_size=most,
        min_frequency=2,
        special_tokens=SPECIAL,
        limit_alphabet=max(1, min(ALPHABET, most // 2)),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text[:MAX_CHARACTERS] for text in texts), trainer)
    if tokenizer.get_vocab_size() <= len(SPECIAL):
        raise InvalidRequest("the texts to train on hold no words")
    if ends:
        end = SPECIAL[END]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, END)]
        )
    return tokenizer


def encoded(
    tokenizer: Tokenizer, texts: list[str], length: int, *, cut_end: bool = False
) -> NDArray[np.int32]:
    """[texts, length]: each with its end, padded after it.

    Args:
        cut_end: a text that is too long has no end: it goes on.
    """
    ids = np.full((len(texts), length), PADDING, np.int32)
    short = [text[:MAX_CHARACTERS] for text in texts]
    for row, encoding in enumerate(tokenizer.encode_batch_fast(short, add_special_tokens=False)):
        found = [*encoding.ids, END][:length]
        if not cut_end:
            found[-1] = END
        ids[row, : len(found)] = found
    return ids
