"""The speaker encoder of Resemblyzer: three LSTMs over mel bands, trained so that sounds of one speaker lie close.

Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification". It hears 1.6 seconds of 16 kHz. What librosa made of sounds
before it is part of the network here, in operations of Keras: the loudness that it was trained on, frames of 25 ms each 10 ms, their
power in 40 mel bands (of Slaney's scale, each band of area 1; no logarithm).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from app.pretrained.drawing import Array, Drawing, Tensor
from app.pretrained.source import Built, Source

RATE, SAMPLES = 16_000, 25_600
WINDOW, STEP, BANDS = 400, 160, 40
LOUDNESS = 10 ** (-30 / 20)
"""Root of the mean square, of full scale."""

SILENCE = 1e-9
"""A mean square below which nothing is made louder: about −90 dB."""

LAYERS = 3
NOTES = [
    "each sound is brought to −30 dB of full scale first, as in training; samples that are exactly zero do not count",
    "mel bands stand in the layer `mel`, so a fit that trains all layers changes them too",
    "LiteRT has no Fourier transform of 400 samples: models that inherit from it are exported to ONNX and SavedModel only",
    "it was trained on 1.6 seconds of speech without pauses: sounds that end in silence are told apart less well",
]


def build(source: Source, size: tuple[int, int] | None = None) -> Built:  # noqa: ARG001 - it hears no pictures
    """From samples of -1 to 1 to a vector of length 1, of 256 numbers."""
    source.leave(*(name for name in source.names if not name.startswith("model_state/")))
    source.leave("model_state/similarity_weight", "model_state/similarity_bias")  # of the loss
    drawing = Drawing("samples", (SAMPLES, 1))
    x = _mel(drawing, _normalized(drawing))
    for number in range(LAYERS):
        ours = f"lstm{number + 1}"
        kernel, recurrent, bias, second = (
            source.take(f"model_state/lstm.{part}_l{number}")
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        arrays = [kernel.T, recurrent.T, bias + second]  # the gates stand in one order in both
        config = {"units": recurrent.shape[1]} | ({"return_sequences": True} if number + 1 < LAYERS else {})
        x = drawing.add(ours, "LSTM", x, arrays=arrays, **config)
    dense = [source.take("model_state/linear.weight").T, source.take("model_state/linear.bias")]
    x = drawing.add("embedding", "Dense", x, arrays=dense, units=len(dense[1]), activation="relu")
    return Built(drawing.graph("audio", drawing.add("unit", "UnitNormalization", x)), drawing.arrays, list(NOTES))


def _normalized(drawing: Drawing) -> Tensor:
    """(batch, samples) at one loudness."""
    along: dict[str, Any] = {"axis": 1, "keepdims": True}
    x = drawing.add("samples-float", "ops.Cast", drawing.input, dtype="float32")
    x = drawing.add("samples-row", "ops.Reshape", x, newshape=[-1, SAMPLES])
    power = drawing.add("loudness-sum", "ops.Sum", drawing.add("loudness-square", "ops.Square", x), **along)
    heard = drawing.add("heard", "ops.Cast", drawing.add("heard-not-zero", "ops.NotEqual", x, 0.0), dtype="float32")
    count = drawing.add("heard-some", "ops.Maximum", drawing.add("heard-sum", "ops.Sum", heard, **along), 1.0)
    mean = drawing.add("loudness-mean", "ops.Divide", power, count)
    mean = drawing.add("loudness-floor", "ops.Maximum", mean, SILENCE)
    gain = drawing.add("gain", "ops.Multiply", drawing.add("gain-root", "ops.Rsqrt", mean), LOUDNESS)
    return drawing.add("normalized", "ops.Multiply", x, gain)


def _mel(drawing: Drawing, x: Tensor) -> Tensor:
    """(batch, frames, bands). The frames' middles are at 0, 10, … 1,590 ms."""
    frames = SAMPLES // STEP
    behind = (frames - 1) * STEP + WINDOW // 2 - SAMPLES
    x = drawing.add("framed", "ops.Pad", x, pad_width=[[0, 0], [WINDOW // 2, behind]])
    sides: dict[str, Any] = {"sequence_length": WINDOW, "sequence_stride": STEP, "fft_length": WINDOW, "center": False}
    x = drawing.add("spectrum", "ops.STFT", x, **sides)
    real = drawing.add("spectrum-real", "ops.Square", {**x, "output": 0})
    imaginary = drawing.add("spectrum-imaginary", "ops.Square", {**x, "output": 1})
    x = drawing.add("spectrum-power", "ops.Add", real, imaginary)
    return drawing.add("mel", "Dense", x, arrays=[mel_bands().T], units=BANDS, use_bias=False)


def mel_bands() -> Array:
    """(bands, frequencies): triangles of Slaney's scale from 0 to half the rate, each of area 1, as librosa makes them."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    corners = _hertz(np.linspace(0, _mels(RATE / 2), BANDS + 2))
    wide = np.diff(corners)[:, None]
    away = corners[:, None] - frequencies
    triangles = np.maximum(0, np.minimum(-away[:-2] / wide[:-1], away[2:] / wide[1:]))
    bands: Array = triangles * (2 / (corners[2:] - corners[:-2]))[:, None]
    return bands.astype(np.float32)


_STEP = np.log(6.4) / 27  # of one mel above 1,000 Hz; below, one mel is 200/3 Hz


def _mels(hertz: float) -> float:
    return float(15 + np.log(hertz / 1000) / _STEP) if hertz >= 1000 else hertz * 3 / 200


def _hertz(mels: Array) -> Array:
    hertz: Array = np.where(mels >= 15, 1000 * np.exp(_STEP * (mels - 15)), mels * 200 / 3)
    return hertz
