"""Sounds and archives of them, for tests. Waveforms are written out by hand where bytes matter, by soundfile where they do not."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile


def sine(hertz: float, rate: int, seconds: float, loudness: float = 0.5) -> np.ndarray:
    """(samples,) float64 in -1…1."""
    return loudness * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples: np.ndarray, rate: int) -> bytes:
    """Whole numbers of 16 bits, (frames,) or (frames, channels), by the format's definition: no library rounds them."""
    frames = (samples if samples.ndim > 1 else samples[:, None]).astype("<i2")
    channels, data = frames.shape[1], frames.tobytes()
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def sixteen(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples * 32767).astype(np.int16)


def saved(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def class_folders(count: int = 6, rate: int = 8000, seconds: float = 0.2) -> dict[str, bytes]:
    """`count` WAV files of two classes: low and high tones, each of a pitch of its own."""
    files = {}
    for number in range(count):
        name, base = ("low", 300) if number % 2 else ("high", 1500)
        files[f"{name}/{number}.wav"] = wav(sixteen(sine(base + 10 * number, rate, seconds)), rate)
    return files
