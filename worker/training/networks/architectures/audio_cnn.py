"""The logarithm of a mel spectrogram, then audio-conv1, audio-norm1, audio-relu1, audio-pool1, …, the mean and the largest value over
time, audio-dense.

Bands stay apart until the dense layer: a pitch is where it is. The spectrogram is made of stock layers in float32 and has no numbers that
are learnt. Its layer would cut off what lies `top_db` below the loudest sound *of the batch*; that is set out of reach, so that no
answer depends on a row's company, and `QUIETEST` is the floor instead.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.audio_cnn import Spec

QUIETEST = 1e-6  # of power: above what rounding to 16 bits makes of silence, 1.5e-8
LOWEST_HERTZ = 20.0
UNREACHABLE_DB = 1000.0


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dense) of (batch, samples, 1) in -1…1."""
    x = _log_mel(spec, inputs)
    for number, width in enumerate(spec.filters, 1):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"audio-conv{number}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"audio-norm{number}")(x)  # fits of a hundred steps are usual
        x = layers.Activation("relu", name=f"audio-relu{number}")(x)
        x = layers.MaxPooling2D(2, name=f"audio-pool{number}")(x)
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]), name="audio-frames")(x)
    over_time = [
        layers.GlobalAveragePooling1D(name="audio-mean")(x),
        layers.GlobalMaxPooling1D(name="audio-largest")(x),
    ]
    x = layers.Concatenate(name="audio-whole")(over_time)
    x = layers.Dense(spec.dense, activation="relu", name="audio-dense")(x)
    return layers.Dropout(spec.dropout, name="audio-dropout")(x) if spec.dropout else x


def _log_mel(spec: Spec, x: Any) -> Any:
    """(batch, frames, bands, 1), about -1 to 2."""
    plain: dict[str, Any] = {"dtype": "float32"}
    missing = -x.shape[1] % spec.step
    if missing:  # the layer counts the frames of other lengths wrongly, Keras 3.15
        x = layers.ZeroPadding1D((0, missing), name="audio-filled", **plain)(x)
    x = layers.Reshape((x.shape[1],), name="audio-samples", **plain)(x)
    x = layers.MelSpectrogram(
        fft_length=2 ** (spec.frame - 1).bit_length(),
        sequence_stride=spec.step,
        sequence_length=spec.frame,
        sampling_rate=spec.of_rate,
        num_mel_bins=spec.mels,
        min_freq=LOWEST_HERTZ,
        max_freq=spec.of_rate / 2,
        top_db=UNREACHABLE_DB,
        min_power=QUIETEST,
        name="audio-mel",
        **plain,
    )(x)
    x = layers.Rescaling(0.04, 0.4, name="audio-scaled", **plain)(x)
    x = layers.Permute((2, 1), name="audio-turned", **plain)(x)
    return layers.Reshape((*x.shape[1:], 1), name="audio-map", **plain)(x)
