"""A tokenizer is a function of the texts that it was fitted on, and of nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from app.data import messages
from app.data.inputs import text
from app.data.source import SourceRows
from app.spec.data import Tokens
from app.spec.training import TokenDropout
from worker.training.data import tokens
from worker.training.data.augmentation import Augment
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling

ROOT = Path(__file__).resolve().parents[4]
TEXTS = list(messages.make(300)[0])
ROWS = text.rows(TEXTS, 128)
ASKED = Tokens(vocabulary=500, length=40)
FIT = """
import hashlib, numpy as np
from app.data import messages
from app.data.inputs import text
from app.spec.data import Tokens
from worker.training.data import tokens
rows = text.rows(list(messages.make(300)[0]), 128)
print(hashlib.sha256(tokens.fit([(rows, np.arange(300))], Tokens(vocabulary=500, length=40)).content.encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def tokenizer() -> tokens.Tokenizer:
    return tokens.fit([(ROWS, np.arange(300))], ASKED)


def test_the_same_rows_give_the_same_file_in_any_order_process_and_number_of_threads(
    tokenizer: tokens.Tokenizer,
) -> None:
    rng = np.random.default_rng(0)
    assert tokens.fit([(ROWS, rng.permutation(300))], ASKED) == tokenizer
    again = [(ROWS, np.arange(100)), (SourceRows(ROWS, np.arange(100, 300)), np.arange(200))]
    assert tokens.fit(again, ASKED) == tokenizer
    wanted = hashlib.sha256(tokenizer.content.encode()).hexdigest()
    for seed, parallel in (("1", "false"), ("2", "true")):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "TOKENIZERS_PARALLELISM": parallel,
            "RAYON_NUM_THREADS": "3",
        }
        answer = subprocess.run(
            [sys.executable, "-c", FIT],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert answer.stdout.strip() == wanted


def test_the_first_pair_that_is_merged_is_the_most_frequent_one(tokenizer: tokens.Tokenizer) -> None:
    pairs: Counter[tuple[str, str]] = Counter()
    splitter = tokenizer._tokenizer.pre_tokenizer
    for words in TEXTS:
        stored = words.encode()[:128].decode(errors="ignore")
        for piece, _ in splitter.pre_tokenize_str(stored):
            pairs.update(pairwise(piece))
    first = tuple(json.loads(tokenizer.content)["model"]["merges"][0])
    assert pairs[first] == pairs.most_common(1)[0][1]


def test_few_texts_give_few_tokens_and_that_is_said() -> None:
    rows = text.rows(["", "aa", "ab"], 32)
    made = tokens.fit([(rows, np.arange(3))], ASKED)
    assert 257 <= made.learnt < 262
    found = tokens.notes(made, ASKED, [(rows, np.arange(3))])
    assert set(found) == {"vocabulary_small"}
    assert f"{made.learnt} tokens of the 500" in found["vocabulary_small"]
    assert made(rows)[0].tolist() == [0] * 40
    only_empty = tokens.fit([(rows, np.arange(1))], ASKED)
    assert only_empty.learnt == 257
    assert made.described(ASKED).vocabulary == 500


def test_texts_that_are_cut_are_counted(tokenizer: tokens.Tokenizer) -> None:
    short = tokens.Tokenizer(tokenizer.content, 4)
    found = tokens.notes(short, ASKED, [(ROWS, np.arange(300))])
    lengths = (tokenizer(ROWS) > 0).sum(axis=1)
    assert found["tokens_cut"].startswith(f"{(lengths > 4).sum()} of the first 300 training rows")
    assert np.array_equal(short(ROWS), tokenizer(ROWS)[:, :4])


def test_tokens_are_dropped_whole_and_alike_for_both_arms(tokenizer: tokens.Tokenizer) -> None:
    scaling = Scaling(tokenizer=tokenizer)
    augment = Augment([TokenDropout(rate=0.3)], 5, "texts", scaling)
    made = BatchSource(ROWS, scaling, {}, [Sampler(np.arange(300), 64, 5)], augment=augment)
    rows, raw, scaled = made._take(3)
    assert np.array_equal(raw, ROWS[rows])
    whole = tokenizer(ROWS[rows])
    dropped = (scaled == 0) & (whole > 0)
    assert np.array_equal(np.where(dropped, whole, scaled), whole)
    assert dropped.sum() / (whole > 0).sum() == pytest.approx(0.3, abs=0.05)
    assert np.array_equal(made._take(3)[2], scaled)
    assert not np.array_equal(augment.of_scaled(whole, 4), scaled)


def test_bytes_are_dropped_as_before_where_a_network_sees_bytes() -> None:
    augment = Augment([TokenDropout(rate=0.3)], 5, "texts", Scaling())
    changed = augment(ROWS[:50], 2)
    assert ((changed == 0) & (ROWS[:50] > 0)).any()
    assert np.array_equal(augment.of_scaled(changed, 2), changed)
