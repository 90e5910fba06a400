"""What passes from one network to another: copied layers are equal, layer by layer, and whole copies answer exactly alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.models import Manifest
from app.spec.trace import Trace
from tests.worker.training.small import DIGIT, PICTURE, SIZE, TABLE, network, same
from worker.training.data.scaling import Scaling
from worker.training.kept import export
from worker.training.networks import build
from worker.training.networks.inheritance import inherit, order_of
from worker.training.networks.network import Network
from worker.training.tasks import heads
from worker.training.tasks.heads import Task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CNN: dict[str, Any] = {"arch": "cnn", "filters": [3, 4, 5], "dense": 6}
ROWS = np.random.default_rng(0).integers(0, 256, (7, 18, 18, 1)).astype(np.uint8)
LARGER = PICTURE.model_copy(update={"shape": [18, 18, 1]})


def answers(whole: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
    found = build.keras_layers(whole).forward.predict_on_batch(whole.scaling(rows))
    return {name: np.asarray(values) for name, values in found.items()}


def test_a_copy_into_the_same_shapes_answers_exactly_as_the_source() -> None:
    source, fresh = network([DIGIT], 1, CNN, LARGER), network([DIGIT], 2, CNN, LARGER)
    passed = inherit(fresh, source)
    assert set(passed.copied) == {"conv1", "conv2", "conv3", "dense1", "digit_logits"}
    assert not passed.fresh
    assert same(passed.network.weights, source.weights)
    assert np.array_equal(answers(passed.network, ROWS)["digit"], answers(source, ROWS)["digit"])
    assert not same(fresh.weights, source.weights)  # neither side was changed


def test_another_width_leaves_that_layer_and_its_reader_fresh_and_says_so() -> None:
    source = network([DIGIT], 1, CNN, LARGER)
    fresh = network([DIGIT], 2, {**CNN, "filters": [3, 7, 5]}, LARGER)
    passed = inherit(fresh, source)
    assert set(passed.copied) == {"conv1", "dense1", "digit_logits"}
    assert set(passed.fresh) == {"conv2", "conv3"}
    assert passed.fresh["conv2"] == "shapes differ: 3×3×3×7, 7 here, 3×3×3×4, 4 in the source"
    for name in passed.fresh:
        assert same({name: passed.network.weights[name]}, {name: fresh.weights[name]})


def test_layers_of_other_names_are_found_by_order_and_kind() -> None:
    source = network([DIGIT], 1, {"arch": "mlp", "units": [6, 6]})
    fresh = network([DIGIT], 2, {"arch": "mlp", "units": [6, 6, 6]})
    assert set(inherit(fresh, source).copied) == {"dense1", "dense2", "digit_logits"}
    renamed = _Renamed(
        **{
            **vars(source),
            "weights": {
                f"old_{name}" if name.startswith("dense") else name: arrays for name, arrays in source.weights.items()
            },
        }
    )
    copied = inherit(fresh, renamed).copied
    assert copied["dense1"] == "old_dense1"
    assert copied["dense2"] == "old_dense2"


class _Renamed(Network):
    """A network whose layers have other names."""

    @property
    def trace(self) -> Trace:
        found = super().trace
        return found.model_copy(
            update={"layers": [one.model_copy(update={"name": f"old_{one.name}"}) for one in found.layers]}
        )


def test_a_head_passes_only_to_the_same_classes_whose_outputs_it_then_reorders() -> None:
    source = network([DIGIT], 1, CNN, LARGER)
    turned = Task("other_name", "multiclass", "other", 4, ("d", "b", "a", "c"))
    passed = inherit(network([turned], 2, CNN, LARGER), source)
    assert passed.copied["other_name_logits"] == "digit_logits"
    assert np.allclose(
        answers(passed.network, ROWS)["other_name"], answers(source, ROWS)["digit"][:, [3, 1, 0, 2]], atol=1e-6
    )
    strange = Task("digit", "multiclass", "digit", 4, ("a", "b", "c", "e"))
    fresh = network([strange], 2, CNN, LARGER)
    passed = inherit(fresh, source)
    assert passed.fresh == {"digit_logits": "no head of the source has the same classes"}
    assert same({"l": passed.network.weights["digit_logits"]}, {"l": fresh.weights["digit_logits"]})


def test_a_regression_head_brings_its_units_and_scaling_along() -> None:
    source = replace(network([SIZE], 1), scaling=Scaling((1.0,) * 5, (3.0,) * 5))
    fresh = network([replace(SIZE, mean=(0.0, 0.0), std=(1.0, 1.0))], 2)
    passed = inherit(fresh, source)
    assert passed.network.tasks["size"].mean == SIZE.mean
    assert passed.network.scaling == source.scaling
    assert inherit(network([replace(SIZE, column="length")], 2), source).fresh.keys() == {"size_logits"}


def test_two_class_heads_in_another_order_are_not_the_same() -> None:
    one = Task("odd", "binary", "odd", 1, ("no", "yes"))
    assert order_of(one, one) == [0]
    assert order_of(one, replace(one, classes=("yes", "no"))) is None


@pytest.mark.parametrize("shape", ["picture", "table"])
def test_a_kept_model_is_read_back_as_it_was_and_answers_in_the_users_units(shape: str, tmp_path: Path) -> None:
    if shape == "picture":
        norms = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.3}
        whole, rows = network([DIGIT, SIZE], 1, norms, LARGER), ROWS
        whole.weights["norm1"] = [array + 0.25 for array in whole.weights["norm1"]]
    else:
        whole = replace(network([DIGIT, SIZE], 1), scaling=Scaling(tuple(range(5)), (0.5, 1.0, 2.0, 4.0, 300.0)))
        rows = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32) * 100
    path = tmp_path / "model.keras"
    sha256 = export.write(whole, path)
    logits = answers(whole, rows)
    expected = {name: heads.answers(task, logits[name]) for name, task in whole.tasks.items()}
    export.check(path, whole, rows, expected)
    about = export.manifest(whole, "model", sha256, file="model.keras", rows_file=None, dataset={}, training={})
    again = export.read(path, Manifest.model_validate_json(about.model_dump_json()))
    assert same(again.weights, whole.weights)
    assert again.tasks == {
        name: task if task.type != "multiclass" else replace(task, standardize=False)
        for name, task in whole.tasks.items()
    }
    assert np.allclose(again.scaling.mean, np.broadcast_to(whole.scaling.mean, np.shape(again.scaling.mean)))
    for name, values in answers(again, rows).items():
        assert np.allclose(values, logits[name], atol=1e-5)
    assert about.parameters == build.keras_layers(whole).forward.count_params()


def test_the_count_of_a_trace_is_the_count_of_the_built_network() -> None:
    from app.spec import architectures

    for name in ("cnn", "cnn-small", "cnn-large", {"arch": "cnn", "batch_norm": True}):
        chosen = architectures.resolve(name)
        whole = Network(
            chosen,
            PICTURE.model_copy(update={"shape": [28, 28, 1]}),
            {"digit": DIGIT},
            {"digit": network([DIGIT], 0).heads["digit"]},
            Scaling(),
            {},
        )
        trace = whole.trace
        assert build.keras_layers(whole).forward.count_params() == trace.parameters + (trace.features_shape[0] + 1) * 4


def test_the_article_s_network_and_its_student_have_their_parameters() -> None:
    ten = Task("digit", "multiclass", "digit", 10, tuple("0123456789"))
    shape = PICTURE.model_copy(update={"shape": [28, 28, 1]})
    assert network([ten], 0, "cnn", shape).parameters == 93_322
    assert network([ten], 0, "cnn-small", shape).parameters == 2_258
    assert TABLE.shape == [5]
