"""hint, attention, relational and similarity: their values against fixtures, limit cases and naive loops."""

from __future__ import annotations

from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import ortho_group

from app.spec import architectures
from app.spec.faults import Invalid
from tests.traces import traced
from worker.training.objectives import FeatureObjective, Setting, attention, hint, relational, similarity
from worker.training.objectives._layer_pairs import pooled

ALL = [hint, attention, relational, similarity]


def value(module: ModuleType, teacher: Any, student: Any, **words: Any) -> float:
    arrays = (np.asarray(teacher, np.float32), np.asarray(student, np.float32))
    return float(np.asarray(module.loss(*arrays, module.Spec(**words))))


def subset(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def setting(
    teacher: Any = "cnn", student: Any = "cnn-small", shape: tuple[int, ...] = (28, 28, 1), **more: Any
) -> Setting:
    theirs, ours = (traced(architectures.resolve(one), shape) for one in (teacher, student))
    return Setting(
        "multiclass",
        10,
        student=ours.shapes,
        teacher=theirs.shapes,
        student_points=ours.points,
        teacher_points=theirs.points,
        **more,
    )


# --- hint


def test_hint_is_the_mean_squared_error_and_0_for_equal_features() -> None:
    teacher, student = subset(0, 4, 6), subset(1, 4, 6)
    assert value(hint, teacher, teacher) == 0
    assert value(hint, teacher, student) == pytest.approx(((teacher - student) ** 2).mean(), rel=1e-5)


def test_hint_maps_of_two_sizes_meet_on_the_smaller() -> None:
    small = subset(2, 3, 2, 2, 5)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    assert value(hint, large, small) == value(hint, small, large) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("before", "after"), [((6, 4), (3, 2)), ((5, 7), (3, 4)), ((3, 3), (3, 3)), ((11, 5), (1, 1))])
def test_pooling_divides_places_as_adaptive_average_pooling(before: tuple[int, int], after: tuple[int, int]) -> None:
    features = subset(3, 2, *before, 3).astype(np.float32)
    found = np.asarray(pooled(features, after))
    for i, j in product(range(after[0]), range(after[1])):
        rows = slice(i * before[0] // after[0], -(-(i + 1) * before[0] // after[0]))
        columns = slice(j * before[1] // after[1], -(-(j + 1) * before[1] // after[1]))
        assert found[:, i, j] == pytest.approx(features[:, rows, columns].mean(axis=(1, 2)), abs=1e-5)


# --- attention


def test_attention_of_disjoint_places_is_2_over_their_number() -> None:
    teacher, student = np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3))
    teacher[0, 0, 0], student[0, 1, 1] = 2.0, 5.0
    assert value(attention, teacher, student) == pytest.approx(0.5)


def test_attention_is_blind_to_scale_and_to_the_order_and_number_of_channels() -> None:
    teacher = subset(4, 3, 4, 5, 6)
    assert value(attention, teacher, -7 * teacher) == pytest.approx(0, abs=1e-10)
    assert value(attention, teacher, teacher[..., ::-1]) == pytest.approx(0, abs=1e-10)
    assert value(attention, teacher, np.concatenate([teacher, teacher], axis=-1)) == pytest.approx(0, abs=1e-10)
    other = subset(5, 3, 4, 5, 6)
    assert value(attention, teacher, other[..., ::-1]) == pytest.approx(value(attention, teacher, other), rel=1e-5)


def test_attention_agrees_with_its_definition() -> None:
    teacher, student = subset(6, 3, 4, 5, 6), subset(7, 3, 4, 5, 2)
    maps = [(one**2).mean(axis=-1).reshape(3, 20) for one in (teacher, student)]
    t, s = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in maps)
    assert value(attention, teacher, student) == pytest.approx(((t - s) ** 2).mean(), rel=1e-5)


# --- relational


def test_relational_gives_the_fixtures_values() -> None:
    line, triangle = [[0.0, 0], [1, 0], [2, 0]], [[0.0, 0], [1, 0], [0.5, 3**0.5 / 2]]
    assert value(relational, line, triangle, distance=1.0, angle=0.0) == pytest.approx(0.0416667, abs=1e-6)
    assert value(relational, line, triangle, distance=0.0, angle=1.0) == pytest.approx(0.0925926, abs=1e-6)
    assert value(relational, line, triangle) == pytest.approx(25 * 0.0416667 + 50 * 0.0925926, abs=1e-4)


def test_relational_is_blind_to_rotation_scale_and_shift() -> None:
    teacher = subset(8, 6, 4)
    rotated = 2.5 * teacher @ ortho_group.rvs(4, random_state=0) + 1
    assert value(relational, teacher, rotated) == pytest.approx(0, abs=1e-8)
    wider = np.concatenate([rotated, np.ones((6, 3))], axis=1)
    assert value(relational, teacher, wider) == pytest.approx(0, abs=1e-8)


def naive_relations(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    b = len(rows)
    d = np.array([[np.linalg.norm(rows[i] - rows[j]) for j in range(b)] for i in range(b)])
    cosines = np.zeros((b, b, b))
    for i, j, k in product(range(b), repeat=3):
        if d[i, j] > 0 and d[i, k] > 0:
            cosines[i, j, k] = (rows[j] - rows[i]) @ (rows[k] - rows[i]) / (d[i, j] * d[i, k])
    return d / d[d > 0].mean(), cosines


def test_relational_agrees_with_loops_over_pairs_and_triples_with_rows_that_coincide() -> None:
    teacher, student = subset(9, 5, 3), 4 * subset(10, 5, 2)
    teacher[3] = teacher[1]
    (td, ta), (sd, sa) = naive_relations(teacher), naive_relations(student)
    huber = [np.where(abs(x) < 1, x**2 / 2, abs(x) - 0.5).mean() for x in (sd - td, sa - ta)]
    assert value(relational, teacher, student) == pytest.approx(25 * huber[0] + 50 * huber[1], rel=1e-4)


# --- similarity


def test_similarity_gives_the_fixtures_value() -> None:
    assert value(similarity, np.eye(2), np.ones((2, 2))) == pytest.approx(1 - 2**-0.5, abs=1e-6)


def test_similarity_is_blind_to_rotation_and_scale_but_not_to_a_shift() -> None:
    teacher = subset(11, 6, 4)
    rotated = 2 * teacher @ ortho_group.rvs(4, random_state=1)
    assert value(similarity, teacher, rotated) == pytest.approx(0, abs=1e-10)
    assert value(similarity, teacher, teacher + 1) > 0.01


def test_similarity_agrees_with_its_definition_on_maps() -> None:
    teacher, student = subset(12, 4, 2, 3, 2), subset(13, 4, 3, 3, 1)
    grams = []
    for one in (teacher, student):
        flat = one.reshape(4, -1)
        products = flat @ flat.T
        grams.append(products / np.linalg.norm(products, axis=1, keepdims=True))
    assert value(similarity, teacher, student) == pytest.approx(((grams[0] - grams[1]) ** 2).sum() / 16, rel=1e-4)


# --- every one


@pytest.mark.parametrize("module", ALL)
def test_gradients_are_the_numerical_ones_and_finite_where_rows_coincide_or_are_0(module: ModuleType) -> None:
    tf = pytest.importorskip("tensorflow")
    teacher, student = subset(14, 4, 2, 2, 3), subset(15, 4, 2, 2, 3)
    spec = module.Spec()
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        total = module.loss(tf.constant(teacher), variable, spec)
    found = tape.gradient(total, variable).numpy()
    for place in list(np.ndindex(*student.shape))[::5]:
        step = np.zeros_like(student)
        step[place] = 1e-6
        up, down = (float(module.loss(tf.constant(teacher), tf.constant(student + s), spec)) for s in (step, -step))
        assert found[place] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-5)
    for degenerate in (np.zeros_like(student), np.broadcast_to(student[:1], student.shape)):
        variable = tf.Variable(degenerate)
        with tf.GradientTape() as tape:
            total = module.loss(tf.constant(teacher), variable, spec)
        assert np.isfinite(float(total))
        assert np.isfinite(tape.gradient(total, variable).numpy()).all()


@pytest.mark.parametrize("module", ALL)
def test_modules_are_objectives_with_automatic_pairs_and_valid_examples(module: ModuleType) -> None:
    assert isinstance(module, FeatureObjective)
    example = module.Spec.model_validate(module.EXAMPLE)
    assert module.resolve(example, setting()) == example
    found = module.resolve(module.Spec(), setting())
    assert found.layers
    assert module.resolve(found, setting()) == found


def test_automatic_pairs_are_sensible() -> None:
    pairs = {module.__name__.rsplit(".", 1)[-1]: module.resolve(module.Spec(), setting()).layers for module in ALL}
    assert pairs["attention"] == [["conv1", "conv1"], ["conv2", "conv2"], ["conv3", "conv3"]]
    assert pairs["hint"] == [["conv2", "conv2"]]
    assert pairs["relational"] == pairs["similarity"] == [["dense1", "dense1"]]
    deep = setting(
        {"arch": "cnn", "filters": [4, 4, 4], "batch_norm": True}, {"arch": "cnn", "filters": [4], "dropout": 0.5}
    )
    assert attention.resolve(attention.Spec(), deep).layers == [
        ["relu1", "conv1"]
    ]  # of one size; a block ends with its activation
    assert similarity.resolve(similarity.Spec(), deep).layers == [["dense1", "dense1"]]  # not the dropout after it
    flat = setting({"arch": "mlp", "units": [9, 8, 7]}, {"arch": "mlp", "units": [4]}, (5,))
    assert hint.resolve(hint.Spec(), flat).layers == [["dense3", "dense1"]]


def test_pairs_that_name_no_layer_or_do_not_fit_are_refused_all_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        hint.resolve(hint.Spec(layers=[["conv9", "conv2"], ["conv1", "dens1"], ["conv1", "dense1"]]), setting())
    found = {fault.pointer: str(fault.hint) for fault in refused.value.faults}
    assert list(found) == ["/layers/0/0", "/layers/1/1", "/layers/2"]
    assert found["/layers/1/1"] == "did you mean 'dense1'?"
    with pytest.raises(Invalid) as refused:
        hint.resolve(hint.Spec(layers=[["conv2", "conv2"]], projector="none"), setting())
    assert "projector" in refused.value.faults[0].message
    with pytest.raises(Invalid) as refused:
        attention.resolve(attention.Spec(layers=[["dense1", "dense1"]]), setting())
    assert [fault.pointer for fault in refused.value.faults] == ["/layers/0"]
    with pytest.raises(Invalid) as refused:
        attention.resolve(attention.Spec(), setting("mlp", "mlp", (5,)))
    assert [fault.pointer for fault in refused.value.faults] == ["/layers"]


def test_angles_that_would_not_fit_into_memory_are_refused() -> None:
    with pytest.raises(Invalid) as refused:
        relational.resolve(relational.Spec(), setting(batch=512))
    assert [fault.pointer for fault in refused.value.faults] == ["/angle"]
    with pytest.raises(Invalid) as refused:
        relational.resolve(relational.Spec(layers=[["conv1", "conv1"]]), setting(batch=256))
    assert [fault.pointer for fault in refused.value.faults] == ["/layers/0"]
    assert relational.resolve(relational.Spec(angle=0), setting(batch=512)).layers
