"""Tags of tokens: span F1 against seqeval's values and against a definition by intervals, loss and divergence by hand and by gradient."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.data import builtins
from app.spec.data import Column
from app.spec.models import TaskSpec
from app.spec.tasks import tags as words
from tests.worker.training.tasks.slopes import gradient
from worker.training.scores import evaluate
from worker.training.scores.measures import Measure, resample
from worker.training.tasks import heads, tags
from worker.training.tasks.heads import Task

KINDS = ("day", "person", "place")
NAMES = ["O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI")]
Sentences = list[list[str]]


def task(bytes: int = 8) -> Task:
    return heads.task("t", TaskSpec(), Column(name="t", type="tags", classes=NAMES, shape=[bytes]))


def made(seed: int, rows: int, longest: int, noise: float) -> tuple[Sentences, Sentences]:
    """True and predicted tags; nothing is drawn by NumPy, whose streams may change."""
    rng = random.Random(seed)
    truth = [[rng.choice(NAMES) for _ in range(rng.randint(1, longest))] for _ in range(rows)]
    return truth, [[tag if rng.random() > noise else rng.choice(NAMES) for tag in row] for row in truth]


def stored(sentences: Sentences, lengths: Sequence[Sequence[int]], bytes: int) -> np.ndarray:
    codes = np.full((len(sentences), bytes), -1, np.int16)
    for into, tags_, sizes in zip(codes, sentences, lengths, strict=True):
        at = 0
        for tag, size in zip(tags_, sizes, strict=True):
            into[at : at + size] = NAMES.index(tag)
            at += size + 1
    return codes


def answered(truth: Sentences, predicted: Sentences, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(answers, codes) of tokens of one to four bytes; a byte alone may lie, the mean over a token does not."""
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(1, 5, len(row)).tolist() for row in truth]
    size = max(sum(row) + len(row) for row in lengths)
    codes, claimed = stored(truth, lengths, size), stored(predicted, lengths, size)
    answers = rng.dirichlet(np.ones(len(NAMES)), (len(codes), size)) * 0.1
    for row, own in enumerate(claimed):
        edges = np.flatnonzero(np.diff(own >= 0, prepend=False, append=False))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            answers[row, start:end, own[start]] += 0.9
            if end - start > 2:
                answers[row, start] = np.roll(answers[row, start], 1)
    return answers / answers.sum(axis=-1, keepdims=True), codes


def f1(truth: Sentences, predicted: Sentences) -> float:
    answers, codes = answered(truth, predicted)
    return evaluate.measure("tags", answers, codes, metric="span_f1").value


def by_intervals(row: list[str]) -> set[tuple[int, int, str]]:
    """All (first, last, type) that hold one type throughout, begin where one must begin, and could not be longer."""

    def kind(place: int) -> str:
        return row[place][2:] if 0 <= place < len(row) else ""

    def begins(place: int) -> bool:
        return bool(kind(place)) and (row[place][0] == "B" or kind(place - 1) != kind(place))

    def goes_on(place: int) -> bool:
        return bool(kind(place)) and not begins(place)

    return {
        (first, last, kind(first))
        for first in range(len(row))
        for last in range(first, len(row))
        if begins(first) and all(goes_on(inner) for inner in range(first + 1, last + 1)) and not goes_on(last + 1)
    }


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((1, 40, 12, 0.3), (0.708333333, 0.693877551, 0.723404255)),
        ((2, 200, 25, 0.1), (0.879914416, 0.884408602, 0.875465673)),
        ((3, 15, 5, 0.8), (0.394736842, 0.365853659, 0.428571429)),
        ((4, 60, 20, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_span_f1_is_seqevals(args: Any, expected: tuple[float, float, float]) -> None:
    """The values were computed once by seqeval 1.2.2 (its three scores as they are by default), which is no dependency."""
    answers, codes = answered(*made(*args))
    figures = evaluate.evaluate("tags", answers, codes, metric="span_f1", classes=NAMES)
    assert (figures["span_f1"], figures["precision"], figures["recall"]) == pytest.approx(expected, abs=1e-8)
    assert figures["metric"]["value"] == figures["span_f1"]
    assert figures["undefined"] == {}


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ("B-place I-place O", "B-place O O", 0),
        ("B-place I-place", "B-day I-day", 0),
        ("B-place I-place O", "I-place I-place O", 1),
        ("B-place B-day", "B-place I-day", 1),
        ("B-place B-place", "B-place I-place", 0),
        ("O O", "O O", 0),
        ("B-place O B-day", "B-place O O", 2 / 3),
        ("B-place O O", "B-place O I-day", 2 / 3),
        ("O B-person I-person", "O B-person I-person", 1),
    ],
)
def test_span_f1_is_seqevals_by_hand(truth: str, predicted: str, expected: float) -> None:
    assert f1([truth.split()], [predicted.split()]) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(8))
def test_span_f1_is_that_of_all_intervals(seed: int) -> None:
    truth, predicted = made(seed + 100, 30, 15, 0.4)
    there, claimed = ([by_intervals(row) for row in rows] for rows in (truth, predicted))
    right = sum(len(one & other) for one, other in zip(there, claimed, strict=True))
    count = sum(map(len, there)) + sum(map(len, claimed))
    assert f1(truth, predicted) == pytest.approx(2 * right / count)


def test_figures_are_counted_by_type_and_by_token() -> None:
    truth = [["B-place", "I-place", "O", "B-day"], ["B-person"]]
    predicted = [["B-place", "I-place", "O", "O"], ["B-day"]]
    figures = evaluate.evaluate("tags", *answered(truth, predicted), metric="span_f1", classes=NAMES)
    assert [
        (one["class"], one["precision"], one["recall"], one["f1"], one["support"]) for one in figures["per_class"]
    ] == [
        ("day", 0.0, 0.0, 0.0, 1),
        ("person", None, 0.0, 0.0, 1),
        ("place", 1.0, 1.0, 1.0, 1),
    ]
    assert (figures["token_accuracy"], figures["tokens"], figures["spans"]) == (3 / 5, 5, 3)
    words.Figures.model_validate(figures)


def test_rows_without_a_tag_are_not_measured_and_parts_add_up() -> None:
    answers, codes = answered(*made(5, 30, 10, 0.3))
    codes[3] = -1
    whole = evaluate.measure("tags", answers, codes, metric="span_f1", units=np.arange(30) // 3)
    assert len(whole.statistics) == 29
    halves = [
        evaluate.measure("tags", answers[part], codes[part], metric="span_f1") for part in (slice(0, 9), slice(9, 30))
    ]
    assert sum(half.statistics.sum(axis=0) for half in halves).tolist() == whole.statistics.sum(axis=0).tolist()
    drawn = resample([whole], 0, 50)
    assert whole.n_units == 10
    assert drawn.std() > 0
    other = Measure("span_f1", whole.statistics, whole.units)
    assert resample([other], 0, 50).tolist() == drawn.tolist()


def test_a_place_may_stand_for_several_bytes() -> None:
    codes = np.array([[1, 1, 1, -1, 3, 3, -1, -1]], np.int16)
    halves = np.zeros((1, 4, 7))
    halves[0, 0, 1], halves[0, 1, 2], halves[0, 2, 3] = 1, 1, 1  # bytes 0 and 1 outvote byte 2
    measured = evaluate.measure("tags", halves, codes, metric="span_f1")
    assert measured.statistics.tolist() == [[2, 2, 2]]
    assert evaluate.measure("tags", np.repeat(halves, 2, axis=1), codes, metric="span_f1").value == measured.value
    with pytest.raises(ValueError, match="do not fit"):
        evaluate.measure("tags", halves[:, :3], codes, metric="span_f1")
    with pytest.raises(ValueError, match="do not fit"):
        evaluate.measure("tags", halves[..., :3], codes, metric="span_f1")


CODES = np.array([[1, 1, 1, -1, 3, -1, -1, -1], [-1] * 8, [0, -1, 0, -1, 2, 2, 2, 2]], np.int16)


def test_each_token_counts_alike_whatever_its_length() -> None:
    targets = heads.targets(task(), CODES)
    assert targets["t"].tolist() == np.where(CODES >= 0, CODES, 0).tolist()
    sixth, twelfth = 1 / 6, 1 / 12
    assert targets["t/labelled"] == pytest.approx(
        np.array(
            [
                [sixth, sixth, sixth, 0, 0.5, 0, 0, 0],
                [0] * 8,
                [4 * twelfth, 0, 4 * twelfth, 0, twelfth, twelfth, twelfth, twelfth],
            ]
        )
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("places", [8, 4])
def test_loss_is_the_mean_over_tokens_of_the_mean_over_bytes(places: int) -> None:
    from keras import ops

    logits = np.random.default_rng(3).normal(0, 2, (3, places, 7)).astype(np.float32)
    targets = heads.targets(task(), CODES)
    probabilities = np.repeat(softmax(logits.astype(np.float64)), 8 // places, axis=1)
    expected = []
    for row, tokens in ((0, [range(3), [4]]), (2, [[0], [2], range(4, 8)])):
        each = [np.mean([-np.log(probabilities[row, at, CODES[row, at]]) for at in token]) for token in tokens]
        expected.append(float(np.mean(each)))
    rows, mask = tags.loss(ops.convert_to_tensor(targets["t"]), targets["t/labelled"], ops.convert_to_tensor(logits))
    assert np.asarray(mask).tolist() == [1, 0, 1]
    assert np.asarray(rows)[[0, 2]] == pytest.approx(expected, rel=1e-5)
    assert np.asarray(rows)[1] == 0
    both, count = heads.loss(task(), targets, ops.convert_to_tensor(logits))
    assert (float(both), float(count)) == pytest.approx((np.mean(expected), 2.0), rel=1e-5)
    own = np.zeros((3, 8, 7))
    np.put_along_axis(own, targets["t"][..., None].astype(int), 1, axis=-1)
    by_byte = (probabilities - own) * targets["t/labelled"][..., None]
    found = gradient(lambda x: tags.loss(ops.convert_to_tensor(targets["t"]), targets["t/labelled"], x)[0], logits)
    assert found == pytest.approx(by_byte.reshape(3, places, 8 // places, 7).sum(axis=2), abs=1e-6)


@pytest.mark.parametrize("places", [6, 3])
def test_divergence_is_the_mean_over_places(places: int) -> None:
    from keras import ops

    rng = np.random.default_rng(4)
    student = rng.normal(0, 1, (2, places, 7)).astype(np.float32)
    teachers = [rng.normal(0, 1, (2, 6, 7)).astype(np.float32) for _ in range(2)]
    q = sum(share * softmax(teacher / 2.0) for share, teacher in zip((0.25, 0.75), teachers, strict=True))
    p = np.repeat(softmax(student.astype(np.float64) / 2.0), 6 // places, axis=1)
    expected = 4.0 * (q * (np.log(q) - np.log(p))).sum(axis=-1).mean(axis=1)
    given = [ops.convert_to_tensor(teacher) for teacher in teachers]
    found = tags.divergence(ops.convert_to_tensor(student), given, [1, 3], 2.0)
    assert np.asarray(found) == pytest.approx(expected, rel=1e-4)
    slope = (2.0 * (p - q) / 6).reshape(2, places, 6 // places, 7).sum(axis=2)
    assert gradient(lambda x: tags.divergence(x, given, [1, 3], 2.0), student) == pytest.approx(slope, abs=1e-6)
    alike = tags.divergence(given[0], [given[0]], [1], 4.0)
    assert np.asarray(alike).tolist() == [0, 0]


def test_agreement_is_the_share_of_places() -> None:
    one = np.eye(7)[np.array([[0, 1, 2, 3]])]
    assert evaluate.agreement("tags", one, np.eye(7)[np.array([[0, 1, 5, 3]])]) == 0.75
    assert evaluate.agreement("tags", one, np.eye(7)[np.array([[0, 2]])]) == 0.5


def test_what_needs_no_network_is_the_usual_tag_and_a_dictionary() -> None:
    from collections import Counter, defaultdict

    table = builtins.load("bookings")
    rows, codes = table.inputs[np.arange(1500)], table.columns["tags"]
    own = heads.task("tags", TaskSpec(), table.schema.columns["tags"])
    constant = tags.constant(own, codes[:100])
    assert constant.argmax() == 0
    assert constant.sum() == pytest.approx(1)
    seen: dict[bytes, Counter[int]] = defaultdict(Counter)

    def tokens(row: np.ndarray, of: np.ndarray) -> list[tuple[bytes, int]]:
        text = row.tobytes().rstrip(b"\0")
        places = [at for at in range(len(text)) if text[at] != 32 and (at == 0 or text[at - 1] == 32)]
        return [(text[at:].split(b" ")[0], int(of[at])) for at in places]

    for row, of in zip(rows[:100], codes[:100], strict=True):
        for word, code in tokens(row, of):
            seen[word][code] += 1
    model = tags.of_rows(own, rows[:100], codes[:100])
    answers = model(rows[100:300])
    usual = int(constant.argmax())
    for row, of, answer in zip(rows[100:300], codes[100:300], answers, strict=True):
        at = 0
        for word, _ in tokens(row, of):
            at = row.tobytes().index(word, at)
            expected = seen[word].most_common(1)[0][0] if word in seen else usual
            assert (answer[at : at + len(word)].argmax(axis=-1) == expected).all()
            at += len(word)
    measured = evaluate.measure("tags", answers, codes[100:300], metric="span_f1")
    assert 0.3 < measured.value < 1
    lone = evaluate.measure("tags", np.tile(constant, (200, 1)), codes[100:300], metric="span_f1")
    assert lone.value == 0


def test_an_answer_is_tokens_with_characters_and_the_spans_that_they_make() -> None:
    text = "Zoë in New York"
    row = np.zeros(24, np.float32)
    content = text.encode()
    row[: len(content)] = np.frombuffer(content, np.uint8)
    output = np.zeros((12, 7))
    for place, code in enumerate([3, 3, 0, 0, 5, 5, 6, 6, 6, 0, 0, 0]):
        output[place, code] = 1
    answer = words.prediction(output.tolist(), NAMES, row)
    assert [(one["text"], one["start"], one["end"], one["tag"]) for one in answer["tokens"]] == [
        ("Zoë", 0, 3, "B-person"),
        ("in", 4, 6, "O"),
        ("New", 7, 10, "B-place"),
        ("York", 11, 15, "I-place"),
    ]
    assert answer["spans"] == [
        {"start": 0, "end": 3, "label": "person", "text": "Zoë"},
        {"start": 7, "end": 15, "label": "place", "text": "New York"},
    ]
    assert words.prediction(output.tolist(), NAMES, np.zeros(24)) == {"tokens": [], "spans": []}
