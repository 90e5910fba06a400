"""Texts in tokens: byte-level BPE (Sennrich et al. 2016), fitted on the rows that train, and the ids of stored rows.

Stored rows stay bytes: tokens are one network's view of them, made batch by batch, as numbers are scaled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data import tokens
from app.data.source import blocks
from app.spec.data import Tokenizer as Described
from app.spec.data import WordPiece

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.data import Tokens

Trained = tuple["Source", np.ndarray]
"""Stored texts, and the numbers of those that train."""


LOOKED_AT = 1000
"""Training rows that are looked at for texts that are longer than a network sees."""


@dataclass(frozen=True)
class Tokenizer:
    """`content`: of its `tokenizer.json`. `length`: tokens of a row."""

    content: str
    length: int

    @cached_property
    def _tokenizer(self) -> Any:
        return tokens.opened(self.content)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n, bytes) stored rows to ids, (n, length) float32."""
        return tokens.of_rows(rows, self._tokenizer, self.length)

    def encoded(self, rows: np.ndarray) -> Sequence[Any]:
        """The whole texts of stored rows as `tokenizers` encodes them."""
        return list(self._tokenizer.encode_batch_fast(list(tokens.texts_of(rows))))

    @cached_property
    def bytes_of(self) -> np.ndarray:
        """For how many bytes each id stands, (ids,); 0 for the one that fills up."""
        names = self._tokenizer.get_vocab(with_added_tokens=True)
        lengths = np.zeros(max(names.values()) + 1, np.int64)
        for name, number in names.items():
            lengths[number] = len(name) if number else 0
        return lengths

    @property
    def learnt(self) -> int:
        """Its tokens: fewer than were asked for where the texts have no more pairs to merge."""
        return int(self._tokenizer.get_vocab_size())

    def described(self, asked: Tokens | Described | WordPiece) -> Described | WordPiece:
        """As a manifest names it."""
        if isinstance(asked, WordPiece):
            return asked
        sha256 = hashlib.sha256(self.content.encode()).hexdigest()
        return Described(vocabulary=asked.vocabulary, length=self.length, learnt=self.learnt, sha256=sha256)


def fit(parts: Sequence[Trained], asked: Tokens | Described) -> Tokenizer:
    """The tokenizer of the rows that train, data set after data set, in the order of their numbers.

    The same texts give the same file: pairs are counted, and of two that are equally frequent the one of smaller ids is merged.
    """
    from tokenizers import Tokenizer as Bpe
    from tokenizers import decoders, models, pre_tokenizers, trainers

    bpe = Bpe(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=asked.vocabulary,
        special_tokens=[tokens.PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(
        (text for source, rows in parts for block in blocks(source, np.sort(rows)) for text in tokens.texts_of(block)),
        trainer,
    )
    return Tokenizer(bpe.to_str(), asked.length)


def notes(tokenizer: Tokenizer, asked: Tokens | Described | WordPiece, parts: Sequence[Trained]) -> dict[str, str]:
    """{code: sentence} of what a user did not ask for: fewer tokens, texts that are cut."""
    found = {}
    if tokenizer.learnt < asked.vocabulary:
        found["vocabulary_small"] = (
            f"the training rows give {tokenizer.learnt} tokens of the {asked.vocabulary} asked for: no other pair stands next to each "
            "other; the numbers of the rest are never used"
        )
    source, rows = parts[0]
    some = source[np.sort(rows)[:LOOKED_AT]]
    longer = sum(len(encoded.ids) > tokenizer.length for encoded in tokenizer.encoded(some))
    if longer:
        hint = "the network sees no more" if isinstance(asked, WordPiece) else "tokens.length chooses another length"
        found["tokens_cut"] = (
            f"{longer} of the first {len(some)} training rows are longer than {tokenizer.length} tokens, and are cut there; {hint}"
        )
    return found
