"""The next token of texts in tokens: targets and bits per byte against loops over the ids, and what no network can be asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from app.data import messages, tokens
from app.data.inputs import text
from app.spec.data import Tokens
from app.spec.faults import Invalid, validate
from app.spec.registry import modules
from app.spec.tasks import TokenRow, prediction
from worker.training import trainer
from worker.training.data.tokens import Tokenizer, fit
from worker.training.scores import evaluate
from worker.training.tasks import heads

TEXTS = ["so it begins", "", "a", *messages.make(30)[0]]
ROWS = text.rows(TEXTS, 64)
VALUES = text.derive(text.NEXT, ROWS)
LENGTH, VOCABULARY = 20, 300
TOKENIZER = fit([(ROWS, np.arange(len(ROWS)))], Tokens(vocabulary=VOCABULARY, length=LENGTH))
TASK = heads.Task("t", "next_token", "t", VOCABULARY)
ANSWERS = np.random.default_rng(0).dirichlet(np.ones(VOCABULARY), (len(ROWS), LENGTH))


def ids(row: np.ndarray) -> list[int]:
    found = TOKENIZER(row[None])[0].astype(int).tolist()
    return [number for number in found if number]


def test_targets_are_the_ids_one_place_further_on_of_labelled_rows_alone() -> None:
    visible = VALUES.copy()
    visible[5] = -1
    learnt = heads.in_tokens(TASK, visible, ROWS, TOKENIZER)
    assert learnt.shape == (len(ROWS), LENGTH)
    for number, (row, own) in enumerate(zip(ROWS, learnt, strict=True)):
        wanted = ids(row)[1:] if number != 5 else []
        assert own.tolist() == wanted + [-1] * (LENGTH - len(wanted))
    given = heads.targets(TASK, learnt)
    assert given["t"].dtype == np.int32
    shares = given["t/labelled"].sum(axis=1)
    assert shares == pytest.approx((learnt >= 0).any(axis=1).astype(float))
    assert heads.in_tokens(TASK, visible, ROWS, None) is visible


def test_bits_are_those_of_the_tokens_for_each_byte_that_they_stand_for() -> None:
    nats = stand_for = count = 0.0
    pieces = tokens.pieces(TOKENIZER.content)
    for row, answer in zip(ROWS, ANSWERS, strict=True):
        for place, number in enumerate(ids(row)[1:]):
            nats -= math.log(answer[place][number])
            stand_for += len(pieces[number])
            count += 1
    reduced = heads.reduced(TASK, ANSWERS, ROWS, TOKENIZER)
    found = evaluate.evaluate("next_token", reduced, VALUES, metric="bits_per_byte")
    assert found["bits_per_byte"] == pytest.approx(nats / stand_for / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(nats / count))
    assert (found["bytes"], found["tokens"]) == (stand_for, count)
    measured = evaluate.measure("next_token", reduced, VALUES, metric="bits_per_byte")
    assert measured.value == pytest.approx(found["bits_per_byte"])


def test_tokens_of_single_bytes_have_the_bits_of_bytes() -> None:
    """The same probabilities in both views: of a tokenizer without merges each token is a byte."""
    single = fit([(ROWS, np.arange(1, 2))], Tokens(vocabulary=300, length=64))
    assert single.learnt == 257
    of_byte = np.random.default_rng(1).dirichlet(np.ones(256), (len(ROWS), 64))
    number_of = {piece[0]: number for number, piece in enumerate(tokens.pieces(single.content)) if piece}
    of_token = np.zeros((len(ROWS), 64, 300))
    for byte, number in number_of.items():
        of_token[..., number] = of_byte[..., byte]
    bytewise = heads.reduced(TASK, of_byte, ROWS)
    tokenwise = heads.reduced(TASK, of_token, ROWS, single)
    values = [
        evaluate.measure("next_token", each, VALUES, metric="bits_per_byte").value for each in (bytewise, tokenwise)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_an_answer_says_how_well_a_text_was_foreseen_and_which_tokens_may_follow() -> None:
    pieces = tokens.pieces(TOKENIZER.content)
    row = TOKENIZER(ROWS[:1])[0]
    own, answer = ids(ROWS[0]), ANSWERS[0]
    told = prediction("next_token", answer.tolist(), (), TokenRow(row.tolist(), pieces))
    bits = sum(-math.log2(answer[place][number]) for place, number in enumerate(own[1:]))
    assert told["bits_per_byte"] == pytest.approx(bits / sum(len(pieces[number]) for number in own[1:]))
    last = answer[len(own) - 1]
    assert told["next"][0]["token"] == last[: len(pieces)].argmax()
    assert told["next"][0]["probability"] == last[: len(pieces)].max()
    empty = prediction("next_token", answer.tolist(), (), TokenRow([0.0] * LENGTH, pieces))
    assert empty == {"bits_per_byte": None, "next": []}
    full = prediction("next_token", answer.tolist(), (), TokenRow([5.0] * LENGTH, pieces))
    assert full["next"] == []


def test_a_token_that_is_a_part_of_a_character_has_no_text() -> None:
    pieces = [b"", b"\xc3", b" the"]
    told = prediction("next_token", [[0.0, 0.6, 0.4]] * 2, (), TokenRow([2, 0], pieces))
    assert [(one["token"], one["text"]) for one in told["next"]] == [(1, None), (2, " the")]


def faults(body: dict[str, Any]) -> dict[str, str]:
    method = modules("methods")[body["kind"]]
    with pytest.raises(Invalid) as found:
        method.resolve(validate(method.Spec, body, later=True), trainer.LocalLookup())
    return {fault.pointer: fault.message for fault in found.value.faults}


def bpe(arch: str, **more: Any) -> dict[str, Any]:
    return {"arch": arch, "tokens": {"type": "bpe", **more}}


def test_what_tokens_cannot_teach_is_refused_with_the_reason() -> None:
    tags = {"kind": "multitask", "dataset": "bookings", "tasks": {"tags": {}}, "trunk": bpe("text-encoder")}
    assert "may be a part of a word" in faults(tags)["/trunk/tokens"]
    large = {"kind": "multitask", "dataset": "messages", "tasks": {"next_token": {}}}
    told = faults({**large, "trunk": bpe("causal-transformer", vocabulary=20_000)})
    assert "at most 8192 here" in told["/trunk/tokens"]
    source = {"train": {"dataset": "messages", "target": "next_token"}}
    taught = {"kind": "distillation", "dataset": "messages", "target": "next_token", "teacher": source}
    told = faults({**taught, "student": bpe("causal-transformer-small")})
    assert "other places" in told["/student/tokens"]
    source["train"]["architecture"] = bpe("causal-transformer-small")  # type: ignore[index]
    assert "next_token of 2000" in faults(taught)["/teachers/0"]
    beside = {"next_token": {"teacher": {"train": {"dataset": "messages", "target": "next_token"}}}, "topic": {}}
    told = faults({**large, "tasks": beside, "trunk": bpe("causal-transformer-small")})
    assert "other places" in told["/trunk/tokens"]


def test_a_transfer_sees_texts_as_its_source_does() -> None:
    source = {"train": {"dataset": "messages", "target": "mood", "architecture": bpe("text-cnn-small")}}
    body = {"kind": "transfer", "dataset": "messages", "target": "topic", "source": source}
    told = faults({**body, "architecture": "text-cnn-small"})
    assert "keeps the source's architecture" in told["/architecture"]


def test_many_outputs_are_counted_among_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"kind": "multitask", "dataset": "messages", "tasks": {"next_token": {}}}
    monkeypatch.setattr("worker.training.methods._resolve.most_parameters", lambda: 300_000)
    trunk = bpe("causal-transformer-small", vocabulary=2600, length=64)
    assert any("parameters are more than" in message for message in faults({**body, "trunk": trunk}).values())


def test_the_tokenizer_is_what_task_types_expect_of_one() -> None:
    assert isinstance(TOKENIZER, Tokenizer)
    pieces = tokens.pieces(TOKENIZER.content)
    assert TOKENIZER.bytes_of.tolist() == [len(piece) for piece in pieces]
