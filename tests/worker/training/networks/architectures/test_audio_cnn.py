"""The network for sounds: its spectrogram against NumPy by definition, what it takes, and that it is the same everywhere."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.data import builtins
from app.data.inputs import audio
from app.spec import architectures
from app.spec.data import InputSchema, SoundDecoding
from app.spec.models import HeadSpec
from tests import plain_keras
from tests.worker.training import small
from tests.worker.training.kept.installed import INSTALLED
from tests.worker.training.methods.resolving import MODEL, Lookup, faults, resolve
from worker.training.data.scaling import Scaling
from worker.training.kept import export, formats
from worker.training.networks import build, trunk
from worker.training.networks.initial import initial
from worker.training.networks.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def sounds(samples: int, rate: int = 8000) -> InputSchema:
    return audio.schema(SoundDecoding(version="x", resampler="y", rate=rate, samples=samples))


def whole(architecture: Any, shape: InputSchema, precision: str = "float32") -> Network:
    spec = architectures.resolve(architecture).fitted(tuple(shape.shape), shape)
    heads = {task.name: HeadSpec() for task in (small.DIGIT, small.SIZE)}
    tasks = {"digit": small.DIGIT, "size": small.SIZE}
    made = Network(spec, shape, tasks, heads, Scaling((0.0,), (shape.scale,)), {}, precision)
    made.weights = initial(build.keras_layers(made), 0)
    return made


def mel_power(sound: np.ndarray, rate: int, frame: int, hop: int, mels: int) -> np.ndarray:
    """(frames, mels) by definition: Hann frames about every hop-th sample of a sound that is mirrored at its ends, power, triangles on the
    HTK scale."""
    size = 1 << (frame - 1).bit_length()
    mirrored = np.pad(sound, size // 2, mode="reflect")
    window = np.zeros(size)
    left = (size - frame) // 2
    window[left : left + frame] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    starts = range(0, len(mirrored) - size + 1, hop)
    power = np.stack([np.abs(np.fft.rfft(mirrored[start : start + size] * window)) ** 2 for start in starts])

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return np.asarray(1127.0 * np.log(1 + np.asarray(hertz) / 700))

    edges = np.linspace(mel(20.0), mel(rate / 2), mels + 2)
    bins = mel(np.arange(1, size // 2 + 1) * rate / size)
    triangles = np.zeros((size // 2 + 1, mels))
    for band, (low, middle, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        triangles[1:, band] = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    return np.asarray(power @ triangles)


@pytest.mark.parametrize(("rate", "samples"), [(8000, 2000), (8000, 2079), (8000, 2081), (16000, 4801), (11025, 3000)])
def test_the_spectrogram_is_the_logarithm_of_powers_in_bands(rate: int, samples: int) -> None:
    made = whole("audio-cnn-small", sounds(samples, rate))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, samples, 1)) * np.array([0.3, 0.01, 0.0]).reshape(3, 1, 1)).astype(np.float32)
    layers = build.keras_layers(made)
    seen = np.asarray(layers.ask(layers.tap(["audio-map"]), x)["feature/audio-map"])
    spec = made.architecture
    hop = spec.hop  # type: ignore[attr-defined]
    padded = np.pad(x[..., 0].astype(np.float64), ((0, 0), (0, -samples % hop)))
    for row, shown in zip(padded, seen, strict=True):
        power = mel_power(row, rate, spec.window, hop, 40)  # type: ignore[attr-defined]
        expected = 0.04 * 10 * np.log10(np.maximum(power, 1e-6)) + 0.4
        assert shown.shape == (*expected.shape, 1)
        assert np.abs(shown[..., 0] - expected).max() < 2e-3
    assert np.allclose(seen[2], 0.04 * -60 + 0.4)


@pytest.mark.parametrize("samples", [1999, 2000, 2001, 2079])
def test_the_trace_has_the_shapes_that_come_out(samples: int) -> None:
    made = whole("audio-cnn-small", sounds(samples))
    layers = build.keras_layers(made)
    names = [layer.name for layer in made.trace.layers]
    given = layers.ask(layers.tap(names), np.zeros((2, samples, 1), np.float32))
    for layer in made.trace.layers:
        assert list(given[f"feature/{layer.name}"].shape[1:]) == list(layer.shape)


def test_an_answer_does_not_depend_on_the_other_rows() -> None:
    """Keras's layer would cut off what is 80 dB below the loudest sound of the batch."""
    made = whole("audio-cnn-small", sounds(2000))
    rng = np.random.default_rng(0)
    quiet = np.rint(rng.standard_normal((1, 2000, 1)) * 3).astype(np.float32)
    loud = np.rint(rng.standard_normal((1, 2000, 1)) * 9000).clip(-32768, 32767).astype(np.float32)
    model = export.inference_model(made)
    alone = model.predict_on_batch(quiet)
    beside = model.predict_on_batch(np.concatenate([quiet, loud]))
    for name in alone:
        assert np.abs(np.asarray(alone[name][0]) - np.asarray(beside[name][0])).max() < 1e-5


def test_in_half_precision_the_spectrogram_stays_in_full() -> None:
    made = whole("audio-cnn-small", sounds(2000), "mixed_float16")
    made_layers = build.keras_layers(made).layers
    assert made_layers["audio-mel"].compute_dtype == "float32"
    assert made_layers["audio-map"].compute_dtype == "float32"
    assert made_layers["audio-conv1"].compute_dtype == "float16"


def test_what_follows_from_the_rate_is_written_down() -> None:
    spec = architectures.resolve("audio-cnn")
    fitted = spec.fitted((2000, 1), sounds(2000, 44100))
    assert architectures.as_data(fitted) | {"rate": 44100, "window": 1102, "hop": 441} == architectures.as_data(fitted)
    assert fitted.fitted((2000, 1), sounds(2000, 8000)) == fitted
    own = architectures.resolve({"arch": "audio-cnn", "hop": 100}).fitted((2000, 1), sounds(2000, 8000))
    assert (own.hop, own.window) == (100, 200)  # type: ignore[attr-defined]
    assert spec.fitted((2000, 1)).rate == 16000  # type: ignore[attr-defined]


def test_what_it_cannot_take_is_refused_by_arithmetic() -> None:
    spec = architectures.resolve("audio-cnn").fitted((480, 1), sounds(480))
    with pytest.raises(ValueError, match="needs sounds of 481 samples or more, these have 480"):
        architectures.trunk_shape(spec, (480, 1))
    assert trunk.trace(spec, (481, 1)).features_shape == (128,)
    with pytest.raises(ValueError, match="one channel"):
        architectures.trunk_shape(spec, (8000, 2))
    with pytest.raises(ValueError, match="enlarge `hop`"):
        architectures.trunk_shape(architectures.resolve({"arch": "audio-cnn", "hop": 1}), (16000, 1))
    with pytest.raises(ValueError, match="audio inputs of 2 dimensions"):
        architectures.trunk_shape(spec, (8000,))


def test_data_of_another_rate_are_no_source() -> None:
    tones = builtins.schema("tones").input
    assert tones.decode is not None
    other = tones.model_copy(update={"decode": tones.decode.model_copy(update={"rate": 16000})})
    spec = architectures.resolve("audio-cnn-small").fitted((2000, 1), other)
    lookup = Lookup(architecture=architectures.as_data(spec), input=other)
    found = faults({"kind": "transfer", "dataset": "tones", "source": MODEL}, lookup)
    assert "16000 samples a second, the data set has 8000 (upload it again with -F rate=16000)" in found["/source"]
    same = Lookup(architecture=architectures.as_data(spec.fitted((2000, 1), tones)), input=tones)
    assert resolve({"kind": "transfer", "dataset": "tones", "source": MODEL}, same)


def test_the_default_networks_are_those_for_sounds() -> None:
    body = {"kind": "distillation", "dataset": "tones", "teacher": {"train": {"dataset": "tones"}}}
    spec = resolve(body)
    assert (spec.teachers[0].train.architecture.arch, spec.student.arch) == ("audio-cnn", "audio-cnn-small")
    assert spec.student.rate == 8000
    wrong = faults({**body, "student": "text-cnn", "training": {"augmentation": [{"type": "flip"}]}})
    assert "text-cnn takes text inputs, the data has audio inputs (for audio inputs: audio-cnn)" in wrong["/student"]
    assert "flip is not for inputs of kind audio" in wrong["/training/augmentation/0/type"]


PROGRAM = """
import json, sys
import numpy as np, keras
model = keras.saving.load_model(sys.argv[1], compile=False, safe_mode=True)
answers = model.predict(np.load(sys.argv[2]), verbose=0)
print("ANSWERS", keras.backend.backend(), json.dumps({name: np.asarray(values).tolist() for name, values in answers.items()}))
"""


@pytest.mark.slow
@plain_keras.needs_jax
def test_a_kept_file_is_stock_keras_and_answers_alike_on_both_backends(tmp_path: Path) -> None:
    made = whole("audio-cnn", builtins.schema("tones").input)
    path, rows = tmp_path / "model.keras", np.asarray(builtins.load("tones").inputs[:8])
    export.write(made, path)
    np.save(tmp_path / "rows.npy", rows)
    with zipfile.ZipFile(path) as archive:
        assert b"worker" not in archive.read("config.json")
    ours = keras.saving.load_model(path, compile=False).predict(rows, verbose=0)
    printed = plain_keras.run(PROGRAM, tmp_path, path, "rows.npy", backend="jax")
    (said,) = [line for line in printed.splitlines() if line.startswith("ANSWERS jax ")]
    theirs = json.loads(said.removeprefix("ANSWERS jax "))
    for name, values in theirs.items():
        scale = max(1.0, float(np.abs(ours[name]).max()))
        assert np.abs(np.array(values) - ours[name]).max() <= 1e-4 * scale


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_format_has_the_spectrogram(tmp_path: Path) -> None:
    made = whole("audio-cnn-small", builtins.schema("tones").input)
    rows = np.asarray(builtins.load("tones").inputs[:7])
    about = formats.write(made, INSTALLED, rows, tmp_path)  # type: ignore[arg-type]
    assert set(about) == set(INSTALLED)
    assert max(entry["largest_difference"] for entry in about.values()) <= 1e-5
