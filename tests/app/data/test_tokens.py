"""Texts to ids of tokens: nothing is lost, and the module alone, beside a kept model, does the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import messages, tokens
from app.data.inputs import text
from app.spec.data import Tokens
from worker.training.data.tokens import fit

TEXTS = list(messages.make(200)[0])
CONTENT = fit([(text.rows(TEXTS, 128), np.arange(200))], Tokens(vocabulary=400)).content
TOKENIZER = tokens.opened(CONTENT)


@given(st.text(max_size=60))
def test_any_text_comes_back_from_its_ids(words: str) -> None:
    (row,) = tokens.ids([words], TOKENIZER, bytes=400, length=400)
    ids = row[row > 0].astype(int).tolist()
    assert row[len(ids) :].max(initial=0) == 0
    expected = words.replace("\0", "").encode("utf-8", "replace").decode()
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == expected


@given(st.text(max_size=60), st.integers(1, 80))
def test_a_text_that_was_sent_has_the_ids_of_its_stored_row(words: str, size: int) -> None:
    sent = tokens.ids([words], TOKENIZER, bytes=size, length=30)
    assert np.array_equal(sent, tokens.of_rows(text.rows([words], size), TOKENIZER, 30))


def test_ids_are_those_of_merging_by_hand() -> None:
    """BPE again, pair by pair, in the order of the file's merges, within the pieces that the file's own rule makes."""
    model = json.loads(CONTENT)["model"]
    rank = {tuple(pair): number for number, pair in enumerate(model["merges"])}
    for words in TEXTS[:20]:
        found = []
        for piece, _ in TOKENIZER.pre_tokenizer.pre_tokenize_str(words):
            parts = list(piece)
            while pairs := [pair for pair in pairwise(parts) if pair in rank]:
                first = min(pairs, key=lambda pair: rank[pair])
                at = next(i for i in range(len(parts) - 1) if (parts[i], parts[i + 1]) == first)
                parts[at : at + 2] = ["".join(first)]
            found += [model["vocab"][part] for part in parts]
        row = tokens.ids([words], TOKENIZER, bytes=1000, length=1000)[0]
        assert row[row > 0].tolist() == found


def test_a_byte_that_was_left_blank_has_the_id_0_and_a_broken_character_is_one_that_says_so() -> None:
    row = text.rows(["so é it"], 32)
    row[0, 1] = 0
    ids = tokens.of_rows(row, TOKENIZER, 32)[0].astype(int)
    assert ids[:2].tolist() == [TOKENIZER.token_to_id("s"), 0]
    row = text.rows(["é"], 32)
    row[0, 0] = 0
    assert TOKENIZER.decode(tokens.of_rows(row, TOKENIZER, 8)[0][1:].astype(int).tolist()) == "�"


def test_empty_and_long_texts() -> None:
    rows = tokens.ids(["", "\0", "word " * 500], TOKENIZER, bytes=2500, length=16)
    assert rows.shape == (3, 16)
    assert not rows[:2].any()
    assert rows[2].all()
    assert tokens.ids([], TOKENIZER, bytes=9, length=4).shape == (0, 4)


@pytest.mark.parametrize("words", ["<pad> [UNK] </s>", "Ā", "\ufeff\u2028\x01\x7f"])
def test_words_of_other_tokenizers_are_texts_as_any(words: str) -> None:
    (row,) = tokens.ids([words], TOKENIZER, bytes=99, length=99)
    assert TOKENIZER.decode(row[row > 0].astype(int).tolist()) == words


def test_the_module_alone_makes_ids(tmp_path: Path) -> None:
    shutil.copy(str(tokens.__file__), tmp_path / "preprocess.py")
    (tmp_path / tokens.FILE).write_text(CONTENT, encoding="utf-8")
    lines = tokens.example(64, 24).replace("import keras\n", "import json\n").replace("so it begins", TEXTS[0])
    program = lines + "print(json.dumps(rows.tolist()))"
    answer = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.')\n{program}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(answer.stdout) == tokens.of_rows(text.rows([TEXTS[0]], 64), TOKENIZER, 24).tolist()


def test_the_bytes_of_each_id_are_what_tokenizers_makes_of_it() -> None:
    pieces = tokens.pieces(CONTENT)
    assert len(pieces) == TOKENIZER.get_vocab_size()
    assert pieces[0] == b""
    assert sorted(pieces[1:257]) == [bytes([byte]) for byte in range(256)]
    for words in (*TEXTS[:20], "Ünï😀\x7f\x80"):
        row = tokens.ids([words], TOKENIZER, bytes=999, length=999)[0].astype(int)
        assert b"".join(pieces[number] for number in row) == words.encode()
