"""A tokenizer.json of WordPiece, written without the tokenizers library, is the one that the library writes and reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app.data import tokens, wordpiece
from app.data.inputs import text
from app.spec.faults import Invalid
from tests.app.pretrained.published import VOCABULARY
from tests.app.pretrained.published import wordpiece as published

TEXTS = [
    "so it begins",
    "",
    "  ",
    "It BEGINS, so: it bégins!",
    "the the " * 40,
    "zzz" * 50,
    "tab\tand\nline",
    "日本 and ε",
    "[SEP] it [CLS]",
    "it\u0301 e\ufffd\u200bx",
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_the_library(lowercase: bool) -> None:
    ours = tokens.opened(wordpiece.tokenizer(VOCABULARY, lowercase=lowercase))
    theirs = published(lowercase=lowercase, length=20)
    found = tokens.ids(TEXTS, ours, bytes=2000, length=20)
    assert found.dtype == np.float32
    assert found.astype(int).tolist() == [encoded.ids for encoded in theirs.encode_batch(TEXTS)]
    assert found[4, 19] == VOCABULARY.index("[SEP]"), "also a text that is cut ends"
    assert tokens.of_rows(text.rows(TEXTS, 400), ours, 20).tolist() == found.tolist()


def test_the_file_says_what_the_librarys_own_says() -> None:
    told = json.loads(published().to_str())
    ours = wordpiece.tokenizer(VOCABULARY, lowercase=True)
    assert json.loads(ours) == {**told, "truncation": None, "padding": None}
    assert wordpiece.tokenizer(list(VOCABULARY), lowercase=True) == ours
    assert tokens.pieces(ours)[:3] == [b"", b"[unused0]", b"[UNK]"]
    assert tokens.pieces(ours)[VOCABULARY.index("##a")] == b"a"


def test_a_file_of_lines_is_a_vocabulary() -> None:
    assert wordpiece.words("[PAD]\na\n") == wordpiece.words("[PAD]\na") == ["[PAD]", "a"]
    assert wordpiece.words("a\n\nb\n") == ["a", "", "b"]


def test_what_is_no_vocabulary_is_refused_with_all_that_is_wrong() -> None:
    def told(*vocabulary: str) -> list[str]:
        with pytest.raises(Invalid) as refused:
            wordpiece.tokenizer(vocabulary, lowercase=True)
        return [fault.message for fault in refused.value.faults]

    assert told("[PAD]") == ["1 tokens, 4 to 262,144 were expected"]
    strange = told("[PAD]", "a b", "", "x\u202e", "[UNK]", "[UNK]")
    assert strange[0].startswith("3 lines, the first is 2, are no 1 to 128 printable characters")
    assert strange[1].startswith("there is no [CLS], [SEP]: a text needs")
    assert strange[2] == "1 tokens are there more than once, '[UNK]' among them"
    (moved,) = told("a", "[PAD]", "[UNK]", "[CLS]", "[SEP]")
    assert moved == "the id of [PAD] is 1: rows are filled up with 0"
