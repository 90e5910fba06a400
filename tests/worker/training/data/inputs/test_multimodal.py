"""Rows of several inputs in training: each part is scaled, augmented and computed with as if it were alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from app.data import builtins, inputs
from app.data.inputs import multimodal
from app.spec import architectures
from app.spec.data import InputSchema
from app.spec.faults import Invalid
from app.spec.models import HeadSpec
from app.spec.training import Flip, Noise, TokenDropout
from tests.worker.training.small import DIGIT, network
from worker.training.data import inputs as input_kinds
from worker.training.data.augmentation import Augment
from worker.training.data.scaling import Joint
from worker.training.kept import export, golden
from worker.training.networks import build, trunk
from worker.training.networks.inheritance import inherit
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

PARCELS = builtins.load("parcels")
INPUT = PARCELS.schema.input
TRAIN = np.arange(0, 300, 2)
SPEC: dict[str, Any] = {"arch": "late-fusion", "parts": {"file": "cnn-small", "note": "text-cnn-small"}, "units": [8]}


def part(name: str, rows: np.ndarray) -> np.ndarray:
    return multimodal.PartSource(PARCELS.inputs, INPUT, name)[rows]


def fitted(input: InputSchema = INPUT) -> Joint:
    scaling = input_kinds.training(input.kind).fit(input, [(PARCELS.inputs, TRAIN)])
    assert isinstance(scaling, Joint)
    return scaling


def fusion() -> Network:
    whole = Network(
        architectures.resolve(SPEC).fitted(tuple(inputs.prepared_shape(INPUT)), INPUT),
        INPUT,
        {"digit": DIGIT},
        {"digit": HeadSpec()},
        fitted(),
        {},
    )
    whole.weights = initial(build.keras_layers(whole), 3)
    return whole


def test_each_part_is_scaled_as_if_it_were_alone() -> None:
    rows = np.arange(40)
    scaled = fitted()(PARCELS.inputs[rows])
    at = 0
    for name, shape in INPUT.parts.items():
        alone = input_kinds.training(shape.kind).fit(
            shape, [(multimodal.PartSource(PARCELS.inputs, INPUT, name), TRAIN)]
        )
        own = alone(part(name, rows)).reshape(40, -1)
        assert np.array_equal(scaled[:, at : at + own.shape[1]], own), name
        at += own.shape[1]
    assert at == scaled.shape[1] == inputs.prepared_shape(INPUT)[0]
    assert np.isfinite(scaled).all()


@pytest.mark.parametrize("constants", [False, True])
def test_the_kept_model_scales_as_training_does(constants: bool) -> None:
    scaling, rows = fitted(), PARCELS.inputs[np.arange(30)]
    given = keras.Input(tuple(INPUT.shape), dtype="float32")
    model = keras.Model(given, input_kinds.preprocessed(given, scaling, INPUT, constants=constants))
    assert np.allclose(model(rows), scaling(rows), rtol=1e-5, atol=1e-6)


def test_the_scaling_of_a_kept_model_is_read_back(tmp_path: Any) -> None:
    whole = fusion()
    export.inference_model(whole).save(tmp_path / "m.keras")
    again = input_kinds.scaling_of(keras.saving.load_model(tmp_path / "m.keras", compile=False), INPUT)
    rows = PARCELS.inputs[np.arange(30)]
    assert np.array_equal(again(rows), whole.scaling(rows))


def test_golden_rows_are_each_part_s_own_and_are_answered_by_the_kept_model(tmp_path: Any) -> None:
    whole = fusion()

    def answers(network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
        logits = build.keras_layers(network).forward.predict_on_batch(network.scaling(rows))
        return {"digit": heads.answers(DIGIT, np.asarray(logits["digit"]))}

    made = golden.make(whole, answers)
    assert made.rows.shape == (5, *INPUT.shape)
    for (name, shape), (_, scaling) in zip(INPUT.parts.items(), fitted().parts, strict=True):
        own = multimodal.part_rows(made.rows, INPUT, name)
        assert np.array_equal(own, input_kinds.golden(shape, scaling, 5), equal_nan=True), name
    export.write(whole, tmp_path / "m.keras", made)
    model, again = keras.saving.load_model(tmp_path / "m.keras", compile=False), golden.read(tmp_path / "m.keras")
    assert again is not None
    assert golden.differences(again, lambda rows: model(rows, training=False)) == []
    assert golden.differences(again, lambda rows: {"digit": 1 - np.asarray(model(rows, training=False)["digit"])})


def test_the_network_is_each_part_s_own_side_by_side() -> None:
    """Recomputed from Keras models of the parts alone, which are given the same numbers."""
    whole = fusion()
    keras_layers = build.keras_layers(whole)
    rows = np.arange(20)
    features = []
    for name, shape in INPUT.parts.items():
        architecture = whole.architecture.parts[name]  # type: ignore[attr-defined]
        alone = network([DIGIT], 0, architectures.as_data(architecture), shape)
        alone.weights |= {
            layer: arrays for layer in alone.trunk if (arrays := whole.weights.get(f"{name}-{layer}")) is not None
        }
        assert all(f"{name}-{layer}" in whole.weights for layer in alone.trunk if layer in alone.weights)
        scaled = dict(zip(INPUT.parts, whole.scaling.cut(whole_rows(rows)), strict=True))[name]  # type: ignore[attr-defined]
        of_part = dict(zip(INPUT.parts, whole.scaling.parts, strict=True))[name][1]  # type: ignore[attr-defined]
        features.append(np.asarray(build.keras_layers(alone).body(of_part(scaled))).reshape(len(rows), -1))
    joined = np.concatenate(features, axis=1)
    kernel, bias = whole.weights["fusion-dense1"]
    assert kernel.shape == (joined.shape[1], 8)
    expected = np.maximum(joined @ kernel + bias, 0)
    assert np.allclose(keras_layers.body(whole.scaling(whole_rows(rows))), expected, rtol=1e-4, atol=1e-5)


def whole_rows(rows: np.ndarray) -> np.ndarray:
    return PARCELS.inputs[rows]


def test_each_part_is_augmented_by_what_goes_with_it() -> None:
    spec, scaling, rows = [Flip(), Noise(std=0.1), TokenDropout(rate=0.5)], fitted(), PARCELS.inputs[np.arange(16)]
    drawn = (PARCELS.inputs, np.arange(50))
    unit = input_kinds.training("multimodal").fit(INPUT, [drawn])
    assert isinstance(unit, Joint)
    changed = input_kinds.augment(spec, 5, "parcels", scaling, INPUT, drawn)(rows, 7)
    cut = dict(zip(INPUT.parts, scaling.cut(changed), strict=True))
    of_parts = dict(zip(INPUT.parts, unit.parts, strict=True))
    for name, own in {
        "file": [Flip(), Noise(std=0.1)],
        "table": [Noise(std=0.1)],
        "note": [TokenDropout(rate=0.5)],
    }.items():
        alone = Augment(own, 5, f"parcels/{name}", of_parts[name][1])
        assert np.array_equal(cut[name], alone(part(name, np.arange(16)), 7), equal_nan=True), name
    assert not np.array_equal(changed, rows, equal_nan=True)
    allowed = inputs.augmentations(INPUT)
    assert allowed is not None
    assert {"flip", "noise", "token_dropout"} <= allowed
    assert "mixup" not in allowed, "a text has no mean"


def test_a_network_of_one_part_is_inherited_into_that_part() -> None:
    whole, picture = fusion(), INPUT.parts["file"]
    alone = network([DIGIT], 9, "cnn-small", picture)
    passed = inherit(whole, alone)
    trunk = {name: own for name, own in passed.copied.items() if not name.startswith("digit")}
    assert trunk == {f"file-{layer}": layer for layer in ("conv1", "conv2", "conv3", "dense1")}
    for layer in ("conv1", "conv2", "conv3", "dense1"):
        for ours, theirs in zip(passed.network.weights[f"file-{layer}"], alone.weights[layer], strict=True):
            assert np.array_equal(ours, theirs)
    assert all(
        np.array_equal(ours, before)
        for layer, arrays in whole.weights.items()
        if layer.startswith(("note-", "table-", "fusion"))
        for ours, before in zip(passed.network.weights[layer], arrays, strict=True)
    )
    assert passed.network.scaling is not alone.scaling
    rows = PARCELS.inputs[np.arange(9)]
    assert np.array_equal(passed.network.scaling(rows), whole.scaling(rows))


def test_of_a_source_of_columns_alone_the_part_keeps_its_scaling() -> None:
    table = INPUT.parts["table"]
    other = input_kinds.training("table").fit(
        table, [(multimodal.PartSource(PARCELS.inputs, INPUT, "table"), np.arange(301, 400))]
    )
    scaling = input_kinds.inherited(fitted(), INPUT, other, table, ())
    assert isinstance(scaling, Joint)
    assert dict(zip(INPUT.parts, scaling.parts, strict=True))["table"][1] == other
    others = {name: kept for name, (_, kept) in zip(INPUT.parts, scaling.parts, strict=True) if name != "table"}
    own = dict(zip(INPUT.parts, fitted().parts, strict=True))
    assert others == {name: own[name][1] for name in ("file", "note")}
    assert own["table"][1] != other


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"parts": {"photo": "cnn"}}, "names the part 'photo', the data has the parts file, note, table"),
        ({"parts": {"note": "cnn"}}, "is of kind text, cnn takes image inputs"),
        ({"parts": {"file": {"arch": "cnn", "filters": [8] * 8}}}, "the part 'file': cnn is too deep"),
    ],
)
def test_parts_that_do_not_fit_are_named(spec: dict[str, Any], why: str) -> None:
    shape = tuple(inputs.prepared_shape(INPUT))
    with pytest.raises(ValueError, match=why):
        architectures.resolve({"arch": "late-fusion", **spec}).fitted(shape, INPUT).check(shape)


def test_a_part_may_have_the_name_of_the_layers_that_join_it() -> None:
    parts = {name: InputSchema(kind="table", shape=[3]) for name in ("fusion", "a b", "a_b")}
    shape = multimodal.joined(parts)
    spec = architectures.resolve("late-fusion").fitted(tuple(inputs.prepared_shape(shape)), shape)
    names = trunk.trace(spec, inputs.prepared_shape(shape)).names
    assert len(set(names)) == len(names)
    assert {"fusion-dense1", "a_b-dense1"} <= set(names)


def test_a_part_has_no_parts_itself() -> None:
    with pytest.raises(Invalid, match="no parts itself"):
        architectures.resolve({"arch": "late-fusion", "parts": {"file": "late-fusion"}})
