"""LiteRT files of fewer digits: their numbers are the network's, rounded as the format says, and what that costs is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data import builtins
from app.data.splits import split
from app.spec.data import SplitSpec
from tests.worker.training import small
from tests.worker.training.driven import TRANSFER, assignment, drive
from worker.reports import Exit
from worker.training.kept import export, formats
from worker.training.networks.network import Network
from worker.training.process.failures import Failure

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")]
RNG = np.random.default_rng(4)
ROWS = RNG.integers(0, 256, (40, *small.PICTURE.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def net() -> Network:
    """Large enough that its kernels are worth quantizing, which TensorFlow leaves alone below 1,024 numbers."""
    made = small.network([small.DIGIT], 0, {"arch": "cnn", "filters": [16, 32], "dense": 64}, small.PICTURE)
    return replace(made, weights={k: [a + 0.01 for a in arrays] for k, arrays in made.weights.items()})


def folded(kernel: np.ndarray) -> np.ndarray:
    """As it stands in the file: the first one with the scaling of the pixels."""
    return kernel / np.float32(small.PICTURE.scale) if kernel.shape[-2] == small.PICTURE.shape[-1] else kernel


def halves(array: np.ndarray) -> np.ndarray:
    if array.ndim < 2:
        return array
    return folded(array).astype(np.float16).astype(np.float32) * (array[0].flat[0] / folded(array)[0].flat[0])


def opened(path: Path) -> Any:
    interpreter = formats._interpreter()(model_path=str(path))
    interpreter.allocate_tensors()
    return interpreter


def test_float16_answers_as_the_same_network_with_numbers_of_half_precision(net: Network, tmp_path: Path) -> None:
    told = formats.write(net, ["litert", "litert_float16"], ROWS, tmp_path)
    assert told["litert_float16"]["bytes"] < 0.6 * told["litert"]["bytes"]
    halved = {k: [halves(array) for array in arrays] for k, arrays in net.weights.items()}
    expected = export.inference_model(replace(net, weights=halved)).predict_on_batch(ROWS.astype(np.float32))["digit"]
    runner = opened(tmp_path / "model.float16.tflite").get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    assert np.abs(runner(**{name: ROWS.astype(np.float32)})["digit"] - expected).max() < 1e-5


def test_int8_kernels_are_the_network_s_to_half_a_step_of_their_channel(net: Network, tmp_path: Path) -> None:
    """Symmetric, a scale for each channel: the largest of its numbers is 127 steps (Jacob et al. 2018, with a range about 0)."""
    told = formats.write(net, ["litert", "litert_int8"], ROWS, tmp_path, calibration=ROWS)
    assert told["litert_int8"]["bytes"] < 0.45 * told["litert"]["bytes"]
    interpreter = opened(tmp_path / "model.int8.tflite")
    found = []
    for about in interpreter.get_tensor_details():
        scales = about["quantization_parameters"]["scales"]
        if about["dtype"] is np.int8 and len(scales) > 1:  # kernels: activations have one scale for all
            axis = about["quantization_parameters"]["quantized_dimension"]
            shape = [1] * len(about["shape"])
            shape[axis] = -1
            found.append((interpreter.get_tensor(about["index"]) * scales.reshape(shape), scales))
    wanted = [array for arrays in net.weights.values() for array in arrays if array.ndim == 4]
    assert len(wanted) == 2
    for kernel in wanted:
        ours = folded(kernel).transpose(3, 0, 1, 2)
        near = [(values, scales) for values, scales in found if values.shape == ours.shape]
        assert near
        values, scales = near[0]
        assert np.allclose(scales, np.abs(ours).max(axis=(1, 2, 3)) / 127, rtol=1e-5)
        assert np.all(np.abs(values - ours).max(axis=(1, 2, 3)) <= 0.501 * scales)


def test_calibration_rows_set_the_ranges(net: Network, tmp_path: Path) -> None:
    """Rows as dark as night show nothing of what bright ones need."""
    off = {}
    for name, shown in (("of all kinds", ROWS), ("dark", np.zeros_like(ROWS))):
        told = formats.write(net, ["litert_int8"], ROWS, tmp_path, calibration=shown)
        off[name] = told["litert_int8"]["largest_difference"]
    assert off["dark"] > 3 * off["of all kinds"]


def test_a_quantized_file_that_answers_no_number_is_no_export(
    net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(kind: str, model: Any, path: Path, shown: np.ndarray) -> formats.Answer:
        path.write_bytes(b"x")
        return lambda rows: {"digit": np.full((len(rows), 10), np.nan, np.float32)}

    monkeypatch.setattr(formats, "_quantized", broken)
    with pytest.raises(Failure, match="litert_int8"):
        formats.write(net, ["litert_int8"], ROWS, tmp_path)


def test_a_job_says_what_its_quantized_files_cost(tmp_path: Path) -> None:
    """Their scores on the test rows, recomputed from the file."""
    body = {**TRANSFER, "export": ["litert", "litert_float16", "litert_int8"], "control": {"seeds": 0}}
    ended = drive(assignment(body, tmp_path), tmp_path / "out")
    assert ended.code == Exit.DONE
    report = json.loads((ended.out / "report.json").read_text())
    table = builtins.load("digits")
    test = split(table, SplitSpec(), ["digit"]).test
    truth = table.columns["digit"][test]
    for kind in ("litert_float16", "litert_int8"):
        told = report["export"][kind]
        assert told["rows"] == len(test)
        score = told["scores"]["digit"]
        runner = opened(ended.out / told["file"]).get_signature_runner("serving_default")
        (name,) = runner.get_input_details()
        said = runner(**{name: table.inputs[test].astype(np.float32)})["digit"].argmax(axis=1)
        assert score["metric"] == "accuracy"
        assert score["file"] == pytest.approx((said == truth).mean())
        assert score["keras"] == pytest.approx(report["tasks"]["digit"]["accuracy"])
        assert told["ms_per_row"] > 0
        assert f"`{told['file']}`, {told['bytes']:,} bytes; " in (ended.out / "card.md").read_text()
    assert "scores" not in report["export"]["litert"]
