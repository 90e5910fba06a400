"""The next byte: loss and gradient by hand, bits per byte against a loop, trigrams against dictionaries, and that nobody looks ahead."""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter, defaultdict
from typing import Any

import keras
import numpy as np
import pytest

from app import data
from app.data import builtins, prepared
from app.data.inputs import text
from app.spec import architectures
from app.spec.data import Column
from app.spec.faults import Invalid, validate
from app.spec.models import TaskSpec
from app.spec.registry import modules
from app.spec.tasks import next_token as words
from app.spec.training import TrainingSpec
from tests.worker.training.tasks.slopes import gradient
from worker.training import trainer
from worker.training.data.scaling import Scaling
from worker.training.fitting.plan import Check
from worker.training.fitting.validation import ValidationMonitor
from worker.training.networks.architectures import builder
from worker.training.scores import evaluate
from worker.training.scores.verdict import margin_of
from worker.training.tasks import heads, next_token

TEXTS = ["so it begins", "", "a", "it is so", "äh"]
ROWS = text.rows(TEXTS, 16)
VALUES = text.derive(text.NEXT, ROWS)


def task(units: int = 256) -> heads.Task:
    return heads.Task("t", "next_token", "t", units)


def test_every_data_set_of_texts_has_the_column_and_shows_it_to_nobody_who_does_not_ask(tmp_path: Any) -> None:
    table = data.load("messages")
    column = table.schema.columns["next_token"]
    assert (column.type, column.shape) == ("bytes", table.schema.input.shape)
    assert list(table.columns) == ["topic", "mood"]
    values = table.columns["next_token"]
    assert list(builtins.load("messages").columns) == ["topic", "mood"]
    assert "next_token" not in builtins.schema("messages").columns
    for row, own in zip(table.inputs[np.arange(20)], values, strict=False):
        content = row.tobytes().rstrip(b"\0")
        assert own.tolist() == [*content[1:], *[-1] * (len(row) - len(content) + 1)]
    assert table.labelled("next_token").all()
    assert data.labelled(VALUES).tolist() == [True, False, False, True, True]
    prepared.write(builtins.load("messages"), tmp_path / "x.npz")
    assert data.load("ds_x", {"path": tmp_path / "x.npz"}).columns["next_token"].tolist() == values.tolist()
    with pytest.raises(KeyError):
        table.columns["next"]
    assert "next_token" not in data.load("iris").schema.columns


def test_loss_and_gradient_by_hand() -> None:
    """Three bytes of a vocabulary of four: the mean of −log p over the two that are followed."""
    from keras import ops

    values = np.array([[2, 1, -1], [3, -1, -1], [-1, -1, -1]], np.int16)
    targets = heads.targets(task(4), values)
    assert targets["t/labelled"].tolist() == [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0]]
    logits = np.log(
        np.array(
            [[[1, 2, 3, 4], [4, 3, 2, 1], [9, 9, 9, 9]], [[1, 1, 1, 7]] + [[1] * 4] * 2, [[1] * 4] * 3], np.float32
        )
    )
    rows, mask = next_token.loss(
        ops.convert_to_tensor(targets["t"]), targets["t/labelled"], ops.convert_to_tensor(logits)
    )
    assert np.asarray(rows) == pytest.approx([-(math.log(0.3) + math.log(0.3)) / 2, -math.log(0.7), 0], rel=1e-5)
    assert np.asarray(mask).tolist() == [1, 1, 0]
    slope = gradient(
        lambda x: next_token.loss(ops.convert_to_tensor(targets["t"]), targets["t/labelled"], x)[0], logits
    )
    expected = np.zeros((3, 3, 4))
    expected[0, 0] = np.array([0.1, 0.2, 0.3 - 1, 0.4]) / 2
    expected[0, 1] = np.array([0.4, 0.3 - 1, 0.2, 0.1]) / 2
    expected[1, 0] = [0.1, 0.1, 0.1, 0.7 - 1]
    assert slope == pytest.approx(expected, abs=1e-6)


def test_bits_per_byte_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    answers = heads.answers(task(), rng.normal(0, 2, (5, 16, 256)))
    bits, count = 0.0, 0
    for content, answer in zip(TEXTS, answers, strict=True):
        for place, byte in enumerate(content.encode()[1:]):
            bits -= math.log2(answer[place, byte])
            count += 1
    measured = evaluate.measure("next_token", answers, VALUES, metric="bits_per_byte")
    assert measured.value == pytest.approx(bits / count)
    assert measured.statistics.shape == (3, 2)
    small = next_token.reduced(answers, ROWS)
    assert small.shape == (5, 16, 1)
    figures = evaluate.evaluate("next_token", small, VALUES, metric="bits_per_byte")
    assert figures["bits_per_byte"] == pytest.approx(bits / count)
    assert figures["perplexity"] == pytest.approx(2 ** (bits / count))
    assert (figures["bytes"], figures["n"], figures["missing"]) == (count, 3, 2)
    assert figures["metric"]["better"] == "lower"
    words.Figures.model_validate(figures)
    even = evaluate.measure("next_token", np.full((5, 256), 1 / 256), VALUES, metric="bits_per_byte")
    assert even.value == pytest.approx(8)


def test_what_needs_no_network_is_counted() -> None:
    rows = builtins.load("messages").inputs[np.arange(150)]
    values = text.derive(text.NEXT, rows)
    one: Counter[int] = Counter()
    two: dict[int, Counter[int]] = defaultdict(Counter)
    three: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    contents = [row.tobytes().rstrip(b"\0") for row in rows]
    for content in contents[:100]:
        for place in range(len(content) - 1):
            last, before, follows = content[place], content[place - 1] if place else 0, content[place + 1]
            one[follows] += 1
            two[last][follows] += 1
            three[before, last][follows] += 1
    shares = next_token.constant(task(), values[:100])
    assert shares[ord("e")] == pytest.approx((one[ord("e")] + 1) / (one.total() + 256))
    assert shares.sum() == pytest.approx(1)

    def backed_off(counts: Counter[int], follows: int, below: float) -> float:
        return (counts[follows] + len(counts) * below) / (counts.total() + len(counts)) if counts else below

    answers = next_token.of_rows(task(), rows[:100], values[:100])(rows[100:])
    for content, answer in zip(contents[100:], answers, strict=True):
        for place in range(len(content) - 1):
            last, before, follows = content[place], content[place - 1] if place else 0, content[place + 1]
            share = backed_off(one, follows, 1 / 256)
            share = backed_off(three[before, last], follows, backed_off(two[last], follows, share))
            assert answer[place, 0] == pytest.approx(share, rel=1e-5)
    trigrams = evaluate.measure("next_token", answers, values[100:], metric="bits_per_byte").value
    unigrams = evaluate.measure("next_token", np.tile(shares, (50, 1)), values[100:], metric="bits_per_byte").value
    assert trigrams < unigrams < 8


def test_a_compressor_that_knows_the_training_texts_is_gzip_s() -> None:
    """Against the bytes of the gzip format: a known text first, and what each test text then adds, the most by two bytes."""
    rows = builtins.load("messages").inputs[np.arange(150)]
    contents = [row.tobytes().rstrip(b"\0") for row in rows]
    used, bits = next_token.compressed(rows[:100])
    assert used == 100
    value, without = bits(rows[100:]), next_token.compressed(np.zeros((1, 4), np.uint8))[1](rows[100:])
    known = b"\n".join(contents[:100])
    added = [len(gzip.compress(known + text, 9)) - len(gzip.compress(known, 9)) for text in contents[100:]]
    length = sum(map(len, contents[100:]))
    assert value == pytest.approx(8 * sum(added) / length, abs=8 * 6 * 50 / length)
    assert value < without - 1 < 8
    alone = [len(zlib.compress(text, 9)) - 6 for text in contents[100:]]  # two bytes before, four behind
    assert without == pytest.approx(8 * sum(alone) / length, rel=0.02)
    assert bits(rows[:50]) < 0.5 * value  # it has them word for word


def test_a_compressor_knows_the_last_texts_alone_and_nothing_of_other_test_texts() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 256, (100, 512)).astype(np.uint8)
    used, bits = next_token.compressed(rows)
    assert used == 2**15 // 513
    assert bits(rows[-1:]) < 0.5
    assert bits(rows[:1]) > 8
    assert bits(rows[:20]) > 8
    assert bits(np.repeat(rows[:1], 20, axis=0)) > 8  # the same text again is no news to a network either
    assert math.isnan(bits(np.zeros((2, 8), np.uint8)))


def test_fewer_bits_are_better_and_two_per_cent_matter() -> None:
    assert margin_of("bits_per_byte", 2.5) == pytest.approx(0.05)
    assert math.isnan(margin_of("bits_per_byte", math.nan))
    spec = TrainingSpec.model_validate({"early_stopping": {"patience": 2}})
    monitor = ValidationMonitor({"t": Check("bits_per_byte", ROWS, VALUES)}, spec)

    class Network:
        tasks, scaling = {"t": task()}, Scaling()

    class Layers:
        def read(self) -> dict[str, Any]:
            return {"a": []}

    for step, sure in enumerate([0.2, 0.9, 0.5]):
        logits = np.zeros((5, 16, 256))
        np.put_along_axis(logits, np.maximum(VALUES, 0)[..., None].astype(int), 10 * sure, axis=-1)
        monitor.look(Layers(), Network(), step, lambda part, logits=logits: {"t": logits})  # type: ignore[arg-type,misc]
    assert monitor.best is not None
    assert (monitor.best["metric"], monitor.best["step"]) == ("val_bits_per_byte", 1)
    assert 0 < monitor.best["value"] < 1


@pytest.mark.parametrize("name", ["causal-transformer", "causal-transformer-small", "causal-transformer-large"])
def test_no_place_sees_a_later_byte(name: str) -> None:
    spec = architectures.resolve({"arch": name, "dim": 16, "depth": 2, "heads": 2})
    inputs = keras.Input((16,))
    whole = keras.Model(inputs, builder(spec)(spec, inputs))
    layer = whole.layers[-1].input
    model = keras.Model(inputs, layer)
    for variable in model.variables:
        variable.assign(np.random.default_rng(1).normal(0, 0.5, variable.shape))
    row = ROWS[:1].astype(np.float32)
    before = np.asarray(model(row))
    assert before.shape == (1, 16, 16)
    assert spec.causal
    for place in range(16):
        changed = row.copy()
        changed[0, place] = 200
        differs = np.abs(np.asarray(model(changed)) - before).max(axis=(0, 2))
        assert (differs[:place] == 0).all()
        assert (differs[place:] > 0).all()


def test_a_network_that_looks_ahead_is_refused() -> None:
    method = modules("methods")["multitask"]
    body: dict[str, Any] = {"kind": "multitask", "dataset": "messages", "tasks": {"next_token": {}}}
    for trunk, codes in (
        ({"arch": "text-encoder", "stride": 1}, {"not_causal"}),
        ("text-cnn", {"not_causal", "no_map"}),
    ):
        with pytest.raises(Invalid) as refused:
            method.resolve(validate(method.Spec, {**body, "trunk": trunk}), trainer.LocalLookup())
        assert {fault.code for fault in refused.value.faults} == codes
    spec = method.resolve(validate(method.Spec, body), trainer.LocalLookup())
    assert spec.trunk.arch == "causal-transformer"
    elsewhere = {"dataset": "iris", "tasks": {"t": {"column": "next_token"}}}
    wrong = {"kind": "multitask", "dataset": "messages", "tasks": {"topic": {"type": "next_token"}}}
    with pytest.raises(Invalid, match="no such column"):
        method.resolve(validate(method.Spec, {**body, **elsewhere}), trainer.LocalLookup())
    with pytest.raises(Invalid, match="cannot be learnt"):
        method.resolve(validate(method.Spec, wrong), trainer.LocalLookup())


def test_an_answer_is_bits_and_what_may_follow() -> None:
    output = np.full((16, 256), 0.5 / 255)
    for place, byte in enumerate(b"o"):
        output[place, byte] = 0.5
    output[1, ord("!")], output[1, 200] = 0.6, 0.3
    answer = words.prediction(output.tolist(), (), text.rows(["so"], 16)[0])
    assert answer["bits_per_byte"] == pytest.approx(1)
    assert [(one["byte"], one["text"]) for one in answer["next"][:2]] == [(33, "!"), (200, None)]
    assert len(answer["next"]) == 5
    empty = words.prediction(output.tolist(), (), np.zeros(16))
    assert empty == {"bits_per_byte": None, "next": []}
    assert words.prediction(output.tolist(), (), text.rows(["x" * 16], 16)[0])["next"] == []


def test_heads_of_bytes_are_alike() -> None:
    column = Column(name="next_token", type="bytes", shape=[16])
    made = heads.task("t", TaskSpec(), column)
    assert (made.type, made.units, made.classes) == ("next_token", 256, None)
    assert words.order(made, made) == list(range(256))
