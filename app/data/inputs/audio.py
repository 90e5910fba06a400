"""Sounds: (samples, 1), int16 in 1/32,768 of full scale, one rate and one length for all.

The second dimension, of one channel, keeps them apart from texts and tables. Whole numbers of 16 bits are what most files hold, so nothing
is lost, and they take half of what floats would on the disk; finer files are rounded 96 dB below full scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from app.data.decode_sound import SCALE, VERSION
from app.data.inputs import Encode
from app.data.lists import Numbers
from app.data.table import Hashes, row_hashes
from app.spec.data import Decoding, InputSchema, SoundDecoding
from app.spec.faults import Fault

DIMENSIONS = 2
ARCHITECTURE, STUDENT = "audio-cnn", "audio-cnn-small"
AUGMENTATIONS: frozenset[str] | None = frozenset({"time_shift", "noise", "spec_augment", "mixup"})
RESIZED = False
STORED = np.int16


def takes(values: np.ndarray) -> bool:  # noqa: ARG001
    """An array of an npz is never sound: nobody could say its rate."""
    return False


def read(values: np.ndarray, names: list[str] | None, place: str) -> list[Fault]:  # noqa: ARG001
    return [
        Fault(place, "sounds do not come as an array", "send class folders of .wav, .flac, .ogg, .mp3 or .aiff files")
    ]


def decoded(rate: int, samples: int) -> SoundDecoding:
    """How files become rows of so many samples at this rate, by the libraries that are here."""
    import soundfile  # in the processes that decode, and where somebody asks
    import soxr

    return SoundDecoding(
        version=f"{soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}",
        resampler=f"soxr {soxr.__version__}",
        rules=VERSION,
        rate=rate,
        samples=samples,
    )


def schema(how: SoundDecoding) -> InputSchema:
    """The input of sounds that were decoded so."""
    return InputSchema(kind="audio", shape=[how.samples, 1], scale=float(SCALE), decode=how)


def hashes(inputs: np.ndarray, input: InputSchema) -> Hashes:  # noqa: ARG001
    """Of the samples that a model sees: sounds that differ only behind the cut are the same row."""
    return row_hashes(inputs.reshape(len(inputs), -1))


def encoder(input: InputSchema) -> Encode:
    """A list of numbers in -1…1."""
    samples = Numbers(
        f"{input.shape[0]} numbers from -1 to 1", -1, 1, "expected a sample of -1 to 1, where 1 is full scale"
    )

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        numbers = samples.read(row, input.shape[:1], place, faults)
        return None if numbers is None else numbers.reshape(input.shape) * input.scale

    return encode


def decoding(input: InputSchema) -> Decoding | None:
    return input.decode


def preview(row: np.ndarray, input: InputSchema) -> Any:
    return (row.reshape(-1) / input.scale).tolist()
