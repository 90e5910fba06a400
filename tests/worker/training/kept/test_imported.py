"""A user's graph and its numbers as a kept model, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.model_files.adopt import adopt
from app.spec.adopted import Order
from app.spec.faults import Invalid
from app.spec.imports import ImportOptions, Origin
from tests.app.model_files.graphs import chain, forked
from worker.training.kept import golden, imported
from worker.training.kept.export import read

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

RNG = np.random.default_rng(0)
MEAN, VARIANCE = RNG.normal(size=4).astype(np.float32), RNG.uniform(0.5, 2, 4).astype(np.float32)
W, B = RNG.normal(size=(4, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
V, C = RNG.normal(size=(5, 3)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
GRAPH = chain(
    ("norm", "Normalization", {}),
    ("hidden", "Dense", {"units": 5, "activation": "tanh"}),
    ("out", "Dense", {"units": 3, "activation": "softmax"}),
    shape=(4,),
)
ARRAYS = {
    "norm/0": MEAN, "norm/1": VARIANCE, "norm/2": np.array(7), "hidden/0": W, "hidden/1": B, "out/0": V, "out/1": C,
}  # fmt: skip


def order(folder: Path, arrays: dict[str, np.ndarray], graph: Any = GRAPH, classes: str = "abc") -> Order:
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    candidates = adopt(graph, [("out", {"tensor": "out"})], ImportOptions(classes=list(classes)), None).candidates
    origin = Origin(file="mine.keras", sha256="0" * 64, bytes=1)
    return Order(candidates=candidates, arrays=str(folder / "arrays.npz"), out=str(folder / "m.keras"), origin=origin)


def softmax(z: np.ndarray) -> np.ndarray:
    raised = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def test_a_graph_answers_as_its_numbers_say(tmp_path: Path) -> None:
    manifest = imported.write(order(tmp_path, ARRAYS))
    rows = RNG.normal(size=(6, 4)).astype(np.float32)
    expected = softmax(np.tanh(((rows - MEAN) / np.sqrt(VARIANCE)) @ W + B) @ V + C)
    answers = keras.saving.load_model(tmp_path / "m.keras", compile=False)(rows)["out"]
    assert np.abs(np.array(answers) - expected).max() < 1e-6
    assert manifest.tasks["out"].classes == ["a", "b", "c"]
    assert (manifest.rows_file, manifest.training, manifest.layers) == (None, {"steps": 0}, ["hidden", "out_logits"])
    network = read(tmp_path / "m.keras", manifest)
    assert {name: [array.shape for array in arrays] for name, arrays in network.weights.items()} == {
        "hidden": [(4, 5), (5,)],
        "out_logits": [(5, 3), (3,)],
    }
    # What the rows were normalised by is part of the architecture: a control from scratch has it too.
    assert manifest.architecture["layers"]["norm"]["config"]["mean"] == MEAN.tolist()


def test_two_classes_are_the_difference_of_two_logits(tmp_path: Path) -> None:
    graph = chain(("out", "Dense", {"units": 2, "activation": "softmax"}), shape=(4,))
    kernel, bias = RNG.normal(size=(4, 2)).astype(np.float32), RNG.normal(size=2).astype(np.float32)
    imported.write(order(tmp_path, {"out/0": kernel, "out/1": bias}, graph, "ny"))
    rows = RNG.normal(size=(6, 4)).astype(np.float32)
    answers = keras.saving.load_model(tmp_path / "m.keras", compile=False)(rows)["out"]
    assert np.abs(np.array(answers)[:, 0] - softmax(rows @ kernel + bias)[:, 1]).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden/0": W.T}, "the layer hidden holds 4×5, 5, the file has 5×4, 5"),
        ({"hidden/0": W[:3]}, "the layer hidden (Dense) has 25 numbers, the file has 3×5, 5"),
        ({"out/0": V[:4]}, "the layer out holds 4×3, 3"),
        ({"hidden/0": W * np.inf}, "not finite"),
    ],
)
def test_numbers_that_do_not_fit_are_told_by_layer(change: dict[str, np.ndarray], word: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        imported.write(order(tmp_path, {**ARRAYS, **change}))
    assert any(word in fault.message for fault in refused.value.faults), refused.value.faults
    assert not (tmp_path / "m.keras").exists()


def test_more_numbers_than_a_job_may_have_are_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "most_parameters", lambda: 30)
    with pytest.raises(Invalid) as refused:
        imported.write(order(tmp_path, ARRAYS))
    assert refused.value.faults[0].code == "model_too_large"


def test_one_output_that_is_never_finite_is_refused_and_single_rows_are_left_out(tmp_path: Path) -> None:
    """log of a column: made rows below 0 have no answer, and the model is kept with those that have one."""
    log = chain(("log", "ops.Log", {}), ("out", "Dense", {"units": 3, "activation": "softmax"}), shape=(2,))
    kernel, bias = RNG.normal(size=(2, 3)).astype(np.float32), np.zeros(3, np.float32)
    manifest = imported.write(order(tmp_path, {"out/0": kernel, "out/1": bias}, log))
    rows = np.abs(RNG.normal(size=(6, 2))).astype(np.float32) + 0.1
    answers = keras.saving.load_model(tmp_path / "m.keras", compile=False)(rows)["out"]
    assert np.abs(np.array(answers) - softmax(np.log(rows) @ kernel)).max() < 1e-5
    kept = golden.read(tmp_path / "m.keras")
    assert kept is not None
    assert 0 < len(kept.rows) < golden.ROWS
    assert manifest.origin is not None

    two = forked(
        chain(("wide", "Dense", {"units": 4}), shape=(4,)), *(((name, "Dense", {"units": 1}),) for name in "ab")
    )
    arrays = {f"{name}/{n}": array for name, (k, b) in {
        "wide": (W[:, :4], B[:4]), "a": (np.ones((4, 1)), np.zeros(1)), "b": (np.full((4, 1), np.nan), np.zeros(1)),
    }.items() for n, array in enumerate((k, b))}  # fmt: skip
    candidates = adopt(two, [(name, {"tensor": name}) for name in "ab"], ImportOptions(), None).candidates
    made = order(tmp_path, ARRAYS).model_copy(update={"candidates": candidates})
    np.savez(made.arrays, **arrays)  # type: ignore[arg-type]
    with pytest.raises(Invalid) as refused:
        imported.write(made)
    assert refused.value.faults[0].code == "not_finite"
