"""A WordPiece vocabulary as the `tokenizer.json` of the tokenizers library (Wu et al. 2016; as BERT has it, Devlin et al. 2019).

A word that is not in the vocabulary is cut into its longest beginnings that are, each but the first written as `##REST`. Each text begins
with [CLS] and ends with [SEP]; [PAD] fills its row up. Written as plain JSON: the library is not needed for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from unicodedata import category

from app.spec.faults import Fault, Invalid

PADDING, UNKNOWN, FIRST, LAST, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
NEEDED = (PADDING, UNKNOWN, FIRST, LAST)

REST = "##"
"""What a token begins with that goes on with a word."""

FEWEST, MOST = len(NEEDED), 2**18
LONGEST = 128
LONGEST_WORD = 100
"""Characters of a word that is cut into tokens; a longer one is unknown."""

AGAIN = "send the vocabulary that the network was trained with, a token a line"


def words(text: str) -> list[str]:
    """The tokens of a `vocabulary.txt`, one a line."""
    return text.removesuffix("\n").split("\n")


def tokenizer(vocabulary: Sequence[str], *, lowercase: bool) -> str:
    """The content of a `tokenizer.json`; the same vocabulary is the same text.

    Args:
        vocabulary: each token at the place of its id.
        lowercase: texts are made lower-case and lose their accents first.

    Raises:
        Invalid: it is no such vocabulary.
    """
    faults = list(_faults(vocabulary))
    if faults:
        raise Invalid(faults)
    ids = {token: number for number, token in enumerate(vocabulary)}
    special = [token for token in (*NEEDED, MASK) if token in ids]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_special(token, ids[token]) for token in sorted(special, key=ids.__getitem__)],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": lowercase,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": _ends(ids),
            "decoder": {"type": "WordPiece", "prefix": REST, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": UNKNOWN,
                "continuing_subword_prefix": REST,
                "max_input_chars_per_word": LONGEST_WORD,
                "vocab": ids,
            },
        },
        ensure_ascii=False,
    )


def _special(token: str, number: int) -> dict[str, Any]:
    """A token that stands for itself wherever a text has it."""
    how = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **how, "special": True}


def _ends(ids: dict[str, int]) -> dict[str, Any]:
    """[CLS] before a text and [SEP] behind it."""
    first, text, last = (
        {"SpecialToken": {"id": FIRST, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": LAST, "type_id": 0}},
    )
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": LAST, "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [first, text, last],
        "pair": [first, text, last, *second],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (FIRST, LAST)},
    }


def _faults(vocabulary: Sequence[str]) -> Iterator[Fault]:
    if not FEWEST <= len(vocabulary) <= MOST:
        yield Fault("", f"{len(vocabulary)} tokens, {FEWEST} to {MOST:,} were expected", AGAIN, "vocabulary")
        return
    strange = [
        number
        for number, token in enumerate(vocabulary, 1)
        if not 0 < len(token) <= LONGEST or not all(map(_is_plain, token))
    ]
    if strange:
        message = f"{len(strange)} lines, the first is {strange[0]}, are no 1 to {LONGEST} printable characters without a blank"
        yield Fault("", message, AGAIN, "vocabulary")
    missing = [token for token in NEEDED if token not in vocabulary]
    if missing:
        message = f"there is no {', '.join(missing)}: a text needs {', '.join(NEEDED)}"
        yield Fault("", message, AGAIN, "vocabulary")
    elif vocabulary[0] != PADDING:
        message = f"the id of {PADDING} is {list(vocabulary).index(PADDING)}: rows are filled up with 0"
        yield Fault("", message, f"send a network whose first token is {PADDING}", "vocabulary")
    twice = [token for token, count in Counter(vocabulary).items() if count > 1]
    if twice:
        message = f"{len(twice)} tokens are there more than once, {twice[0]!r} among them"
        yield Fault("", message, AGAIN, "vocabulary")


def _is_plain(sign: str) -> bool:
    """Printable and no blank; or one of the two separators that BERT's cleaning leaves in a text, which Chinese vocabularies have."""
    return sign != " " and (sign.isprintable() or category(sign) in ("Zl", "Zp"))
