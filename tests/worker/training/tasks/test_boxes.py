"""Boxes by their middles: the loss against a naive one and its gradient, answers against the output layer's, and what a spec must say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.data import builtins
from app.data.boxes import stored
from app.spec.base import plain
from app.spec.data import Column
from app.spec.models import HeadSpec, TaskSpec
from app.spec.tasks import boxes as boxes_spec
from app.spec.training import TrainingSpec
from tests import plain_keras
from tests.worker.training.methods.resolving import faults, resolve
from tests.worker.training.small import DIGIT
from worker.training.methods import _resolve_teachers
from worker.training.scores import evaluate
from worker.training.tasks import boxes, heads

COLUMN = Column(name="boxes", type="boxes", classes=["a", "b"], shape=[4, 5])
TASK = heads.task("t", TaskSpec(), COLUMN)
ROWS, COLUMNS = 6, 8

PICTURES = [
    np.array([[0.1, 0.1, 0.4, 0.5, 0], [0.2, 0.3, 0.8, 0.9, 1], [0.5, 0.5, 0.6, 0.6, 1]]),
    np.array([[0.9, 0.9, 1, 1, 0]]),
    np.zeros((0, 5)),
    np.array([[0, 0, 1, 1, 1], [0.02, 0.02, 0.98, 0.98, 1]]),  # two middles in one place
]
LOGITS = np.random.default_rng(0).normal(0, 2, (5, ROWS, COLUMNS, 6)).astype(np.float32)


def column() -> np.ndarray:
    """The pictures, and a row without any label."""
    values = np.concatenate([stored(PICTURES), np.full((1, 3, 5), np.nan, np.float32)])
    assert values.shape == (5, 3, 5)
    return values


def naive(drawn: np.ndarray, logits: np.ndarray) -> float:
    """Place by place, from the paper's equations 1 and 2; bells as wide and high as the boxes; logarithms of sides."""
    total = 0.0
    middles = []
    for left, top, right, bottom, code in drawn.tolist():
        x, y, width, height = (
            (left + right) / 2 * COLUMNS,
            (top + bottom) / 2 * ROWS,
            (right - left) * COLUMNS,
            (bottom - top) * ROWS,
        )
        column, row = min(int(x), COLUMNS - 1), min(int(y), ROWS - 1)
        middles.append((row, column, width, height, int(code)))
        wanted = [x - column, y - row, math.log(width), math.log(height)]
        total += sum(abs(float(got) - want) for got, want in zip(logits[row, column, 2:], wanted, strict=True))
    for row in range(ROWS):
        for column in range(COLUMNS):
            for code in range(2):
                near = max(
                    (
                        math.exp(
                            -((column - c) ** 2) / (2 * (0.09 * width) ** 2)
                            - (row - r) ** 2 / (2 * (0.09 * height) ** 2)
                        )
                        for r, c, width, height, own in middles
                        if own == code
                    ),
                    default=0.0,
                )
                p = 1 / (1 + math.exp(2.19 - float(logits[row, column, code])))
                if near == 1:
                    total -= (1 - p) ** 2 * math.log(p)
                else:
                    total -= (1 - near) ** 4 * p**2 * math.log(1 - p)
    return total / max(1, len(drawn))


def test_the_loss_is_the_paper_s() -> None:
    import keras

    targets, mask = boxes.targets(TASK, column())
    rows, there = boxes.loss(keras.ops.convert_to_tensor(targets), mask, keras.ops.convert_to_tensor(LOGITS))
    wanted = [naive(drawn, logits) for drawn, logits in zip(PICTURES, LOGITS, strict=False)]
    assert np.allclose(np.asarray(rows)[:4], wanted, rtol=1e-4)
    assert np.asarray(there).tolist() == [1, 1, 1, 1, 0]


def test_the_gradient_is_that_of_the_naive_loss() -> None:
    import tensorflow as tf

    targets, mask = boxes.targets(TASK, column())
    at = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(boxes.loss(tf.constant(targets), mask, at)[0])
    gradient = tape.gradient(loss, at).numpy()
    rng = np.random.default_rng(1)
    for _ in range(40):
        picture = int(rng.integers(4))
        place = tuple(int(rng.integers(side)) for side in LOGITS.shape[1:])
        step = np.zeros(LOGITS.shape[1:])
        step[place] = 1e-4
        ends = [naive(PICTURES[picture], LOGITS[picture].astype(np.float64) + sign * step) for sign in (1, -1)]
        assert gradient[(picture, *place)] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=2e-2, abs=2e-3)
    places = np.argwhere(np.abs(gradient[0, ..., 2:]).sum(axis=-1))
    assert places.tolist() == [
        [1, 2],
        [3, 4],
    ]  # the middles of the first picture's boxes, two of which are in one place


def test_answers_are_the_output_layer_s_also_once_it_is_saved(tmp_path: Path) -> None:
    import keras

    given = keras.Input((ROWS, COLUMNS, 6))
    model = keras.Model(given, {"t": heads.output_layer(TASK)(given)})
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras", compile=False, safe_mode=True)
    wanted = heads.answers(TASK, LOGITS)
    assert wanted.shape == (5, ROWS * COLUMNS * 2, 6)
    for each in (model, loaded):
        assert np.allclose(each.predict_on_batch(LOGITS)["t"], wanted, atol=1e-5)
    probability = wanted[..., 4]
    assert (np.diff(probability) <= 0).all()
    assert (wanted[..., :4] >= 0).all()
    assert (wanted[..., :4] <= 1).all()


def test_a_peak_is_a_box_where_its_middle_is() -> None:
    logits = np.full((1, ROWS, COLUMNS, 6), -9.0)
    logits[0, 2, 5, 1] = 4.19  # a probability of 0.881
    logits[0, 2, 6, 1] = 4.0  # its neighbour, which is no peak
    logits[0, 2, 5, 2:] = [0.25, 0.5, math.log(2), math.log(3)]
    (answer,) = heads.answers(TASK, logits)
    assert np.allclose(answer[0], [4.25 / 8, 1 / 6, 6.25 / 8, 4 / 6, 1 / (1 + math.exp(-2)), 1])
    assert answer[1, 4] < 0.01
    assert boxes_spec.prediction(answer.tolist(), ["a", "b"]) == {
        "boxes": [{"label": "b", "probability": answer[0, 4], "box": answer[0, :4].tolist()}]
    }


def test_a_perfect_map_gives_the_boxes_back() -> None:
    """Logits made from boxes of the built-in set: every one is found again, where it is."""
    table = builtins.load("shapes")
    task = heads.task("t", TaskSpec(), table.schema.columns["boxes"])
    drawn = table.columns["boxes"][:50]
    logits = np.full((50, 24, 24, 7), -20.0)
    logits[..., 3:] = 0
    for row, picture in zip(logits, drawn, strict=True):
        for left, top, right, bottom, code in picture[picture[:, 4] >= 0].tolist():
            x, y = (left + right) * 12, (top + bottom) * 12
            row[int(y), int(x), int(code)] = 8
            sides = [math.log((right - left) * 24), math.log((bottom - top) * 24)]
            row[int(y), int(x), 3:] = [x - int(x), y - int(y), *sides]
    figures = evaluate.evaluate("boxes", heads.answers(task, logits), drawn, metric="map50")
    assert figures["map50"] == pytest.approx(1)
    assert figures["map50_95"] == pytest.approx(1)
    assert (figures["precision"], figures["recall"]) == (1.0, 1.0)


def test_the_constant_answer_is_the_mean_box_where_most_are() -> None:
    values = stored(
        [np.array([[0.4, 0.4, 0.6, 0.6, 0]]), np.array([[0.42, 0.42, 0.6, 0.6, 0]]), np.array([[0, 0, 0.3, 0.3, 1]])]
    )
    answer = boxes.constant(TASK, values)
    assert np.allclose(answer[0, :4], [0.41 + 0.005 - 0.005, 0.41, 0.6, 0.6], atol=0.01)
    assert answer[:, 5].tolist() == [0, 1]
    assert answer[0, 4] == pytest.approx(2 / 3)


def test_heads_of_the_same_classes_in_another_order_are_copied_by_name() -> None:
    theirs = heads.task("t", TaskSpec(), COLUMN.model_copy(update={"classes": ["b", "a"]}))
    assert boxes_spec.order(TASK, theirs) == [1, 0, 2, 3, 4, 5]
    other = heads.task("t", TaskSpec(), COLUMN.model_copy(update={"classes": ["b", "c"]}))
    assert boxes_spec.order(TASK, other) is None


def test_two_answers_differ_by_the_nearest_boxes() -> None:
    one = np.zeros((1, 3, 6))
    one[0, :2] = [[0.1, 0.1, 0.3, 0.3, 0.8, 0], [0.5, 0.5, 0.9, 0.9, 0.8, 1]]
    swapped = one[:, [1, 0, 2]] + [0, 0, 1e-5, 0, 0, 0]
    assert heads.difference(TASK, swapped, one) == pytest.approx(1e-5)
    gone = one.copy()
    gone[0, 1, 4] = 0
    assert heads.difference(TASK, gone, one) == pytest.approx(0.8)
    other = one.copy()
    other[0, 1, 5] = 0
    assert heads.difference(TASK, other, one) >= 0.5
    assert math.isnan(heads.difference(TASK, one * np.nan, one))


def test_a_network_s_layers() -> None:
    made = heads.layers(TASK, HeadSpec(dropout=0.5), "float32")
    assert [layer.name for layer in made] == ["t_hidden", "t_dropout", "t_logits"]
    assert made[0].filters == 64
    assert made[-1].filters == 6


def body(**more: Any) -> dict[str, Any]:
    source = {"train": {"dataset": "shapes", "target": "boxes", **more.pop("stage", {})}}
    return {"kind": "transfer", "dataset": "shapes", "target": "boxes", "source": source, **more}


def test_what_a_spec_says_of_boxes_is_refused_or_filled_in() -> None:
    filled = plain(resolve(body()))["source"]["train"]["architecture"]
    assert (filled["arch"], filled["depth"]) == ("resnet", 14)  # the network of the inputs is not fit for boxes
    assert (
        "nothing would train the layers behind it"
        in faults(body(stage={"architecture": "cnn"}))["/source/train/architecture"]
    )
    assert resolve(body(training={"epochs": 1, "augmentation": [{"type": "color"}, {"type": "flip"}]}))
    coarse = boxes_spec.map_refusal([224, 224, 3], [7, 7, 1280])
    assert coarse is not None
    assert "32 pixels" in coarse
    assert boxes_spec.map_refusal([224, 224, 3], [14, 14, 64]) is None
    teacher = {"train": {"dataset": "shapes"}}
    taught = {"kind": "distillation", "dataset": "shapes", "target": "boxes", "teacher": teacher}
    assert plain(resolve(taught))["objectives"][0]["type"] == "logits"
    warm = {**taught, "objectives": [{"type": "logits", "temperature": 2.0}]}
    assert list(faults(warm)) == ["/objectives/0/temperature"]


def test_what_says_where_and_cannot_move_with_its_rows_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type of a plugin, say."""
    monkeypatch.delattr(boxes, "moved")
    moved = faults(body(training={"epochs": 1, "augmentation": [{"type": "color"}, {"type": "flip"}]}))
    assert list(moved) == ["/training/augmentation/1/type"]


def naive_divergence(student: np.ndarray, teachers: list[np.ndarray], shares: list[float]) -> float:
    """Of one row, place by place."""
    total, middles = 0.0, 0.0
    for row in range(ROWS):
        for column in range(COLUMNS):
            for code in range(2):
                p = 1 / (1 + math.exp(2.19 - float(student[row, column, code])))
                each = [1 / (1 + math.exp(2.19 - float(teacher[row, column, code]))) for teacher in teachers]
                q = sum(share * one for share, one in zip(shares, each, strict=True))
                total += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
            heat = sum(
                share * max(1 / (1 + math.exp(2.19 - float(teacher[row, column, code]))) for code in range(2))
                for share, teacher in zip(shares, teachers, strict=True)
            )
            middles += heat
            for number in range(2, 6):
                mean = sum(
                    share * float(teacher[row, column, number]) for share, teacher in zip(shares, teachers, strict=True)
                )
                total += heat * (float(student[row, column, number]) - mean) ** 2
    return total / (1 + middles)


def test_a_teacher_s_map_is_followed_place_by_place_and_teaches_nothing_once_it_is_met() -> None:
    import tensorflow as tf

    student, *teachers = (LOGITS[:3], LOGITS[1:4], LOGITS[2:])
    at = tf.Variable(student)
    with tf.GradientTape() as tape:
        told = boxes.divergence(at, [tf.constant(each) for each in teachers], [1.0, 3.0], 1.0)
        total = tf.reduce_sum(told)
    gradient = tape.gradient(total, at).numpy()
    wanted = [naive_divergence(own, list(pair), [0.25, 0.75]) for own, *pair in zip(student, *teachers, strict=True)]
    assert np.allclose(told.numpy(), wanted, rtol=1e-4)
    rng = np.random.default_rng(2)
    for _ in range(30):
        number, *place = (int(rng.integers(side)) for side in student.shape)
        step = np.zeros(student.shape[1:])
        step[tuple(place)] = 1e-4
        pair = [each[number] for each in teachers]
        ends = [
            naive_divergence(student[number].astype(np.float64) + sign * step, pair, [0.25, 0.75]) for sign in (1, -1)
        ]
        assert gradient[(number, *place)] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-2, abs=1e-4)
    met = boxes.divergence(tf.constant(student), [tf.constant(student)], [1.0], 1.0).numpy()
    assert np.allclose(met, 0, atol=1e-6)
    assert (met >= 0).all()


def test_a_teacher_whose_map_has_other_places_is_refused() -> None:
    def facts(side: int) -> Any:
        return SimpleNamespace(trace=SimpleNamespace(map="m", shapes={"m": (side, side, 64)}))

    student = _resolve_teachers.StudentContext(TASK, facts(12).trace, TrainingSpec())
    assert _resolve_teachers._other_map(student, [facts(12), None]) is None
    assert _resolve_teachers._other_map(student, [facts(12), facts(6)]) == ([12, 12], [6, 6])
    other = _resolve_teachers.StudentContext(DIGIT, facts(12).trace, TrainingSpec())
    assert _resolve_teachers._other_map(other, [facts(6)]) is None


BACKEND = """
import json, keras, numpy as np
from tests.worker.training.tasks import test_boxes as t
targets, mask = t.boxes.targets(t.TASK, t.column())
rows = t.boxes.loss(keras.ops.convert_to_tensor(targets), mask, keras.ops.convert_to_tensor(t.LOGITS))[0]
given = keras.Input(t.LOGITS.shape[1:])
answers = keras.Model(given, t.heads.output_layer(t.TASK)(given)).predict_on_batch(t.LOGITS)
print(json.dumps([keras.backend.backend(), np.asarray(rows).tolist(), np.asarray(answers).tolist()]))
"""


@pytest.mark.slow
def test_tensorflow_and_jax_agree() -> None:
    told = {}
    for backend in ("tensorflow", "jax"):
        said = plain_keras.run(BACKEND, plain_keras.ROOT, backend=backend)
        told[backend] = json.loads(said.splitlines()[-1])
        assert told[backend][0] == backend
    for one, other in zip(told["tensorflow"][1:], told["jax"][1:], strict=True):
        assert np.allclose(one, other, atol=1e-5)
