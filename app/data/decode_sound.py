"""Sound files to arrays: one way for the rows of a data set, for requests to predict, and for a user's own program.

This file stands beside a kept model as `preprocess.py`. It needs NumPy, soundfile and soxr, and nothing of the service.

    row = sound(open("seven.wav", "rb").read(), rate=16000, samples=16000)
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np

VERSION = 1
"""Raised whenever the same bytes would give other numbers."""

FORMATS = ("WAV", "FLAC", "OGG", "MP3", "AIFF")
SCALE = 32768
"""The stored number of a full-scale sample."""

RATES = (1_000, 384_000)
MOST_CHANNELS = 32
MOST_FRAMES = 500_000_000
LOUDEST = 2.0  # of floating-point samples, whose full scale is 1: what is a little above is cut, what is far above has another scale

CONVERT = "convert it: ffmpeg -i FILE FILE.wav"

_READ_FORMATS = (*FORMATS, "WAVEX", "RF64")
_CODINGS = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("IMA_ADPCM", "MS_ADPCM", "GSM610", "VORBIS", "MPEG_LAYER_III"),
)
_CHUNKS: dict[bytes, tuple[bytes, Literal["little", "big"]]] = {b"RIFF": (b"data", "little"), b"FORM": (b"SSND", "big")}
_STREAMED = (0, 0xFFFFFFFF)  # the sizes of a file whose writer could not know them
_BEGINNINGS = (
    (b"<", "it begins like HTML or XML"),
    (b"%PDF", "it is a PDF"),
    (b"PK", "it begins like a zip archive"),
    (b"\xff\xd8\xff", "it is a picture"),
    (b"\x89PNG", "it is a picture"),
    (b"\x1aE\xdf\xa3", f"it is a WebM or Matroska file; {CONVERT}"),
    (b"0&\xb2u", f"it is a WMA file; {CONVERT}"),
    (b"#!AMR", f"it is an AMR file; {CONVERT}"),
    (b"caff", f"it is a CAF file; {CONVERT}"),
)
_BLOCK, _MARGIN = 65_536, 1_024
_MPEG_SLACK = 2 * 1_152  # an MP3 says how many blocks it has; what its encoder added at both ends is not always told


class Undecodable(ValueError):
    """Bytes that are no sound of a known format, or a damaged one. The message says which."""


class _Stream(io.BytesIO):
    """A damaged file may send libsndfile before its beginning, where an exception would be printed and change nothing."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


@dataclass(frozen=True)
class Header:
    """What a sound says of itself. `rate`: samples a second, `frames`: samples of each channel."""

    frames: int
    rate: int
    channels: int


def header(content: bytes) -> Header:
    """The length, rate and channels of a sound. Raises Undecodable."""
    with _opened(content) as file:
        return Header(file.frames, file.samplerate, file.channels)


def sound(content: bytes, *, rate: int, samples: int) -> np.ndarray:
    """The beginning of a sound as (samples, 1) int16, where 32,768 would be full scale.

    The mean of its channels; at another rate than `rate` it is resampled (soxr, "HQ"). A shorter one is filled with zeros at the end.

    Args:
        content: a WAV, FLAC, Ogg Vorbis, MP3 or AIFF file.
        rate: samples a second.

    Raises:
        Undecodable: with what is the matter.
    """
    with _opened(content) as file:
        there = int(file.samplerate)
        wanted = samples if there == rate else ceil((samples + _MARGIN) * there / rate)
        wanted = min(wanted, file.frames)
        mono = _mono(file, wanted)
        slack = _MPEG_SLACK if file.format == "MP3" else 0
    if len(mono) < wanted - slack:
        raise Undecodable("the sound ends early")
    if not np.isfinite(mono).all():
        raise Undecodable("its samples are not finite numbers")
    peak = float(np.abs(mono).max(initial=0))
    if peak > LOUDEST:
        raise Undecodable(f"its samples reach {peak:.4g}, where 1 is full scale; divide them")
    if there != rate:
        import soxr

        mono = soxr.resample(mono, there, rate, quality="HQ")
    row = np.zeros((samples, 1), np.int16)
    mono = mono[:samples]
    row[: len(mono), 0] = np.clip(np.rint(mono * np.float32(SCALE)), -SCALE, SCALE - 1)
    return row


def _mono(file: Any, wanted: int) -> np.ndarray:
    """The mean of the channels of the first frames, float32: up to `wanted` of them, read in blocks."""
    blocks, done = [np.zeros(0, np.float32)], 0
    try:
        while done < wanted:
            block = file.read(min(_BLOCK, wanted - done), dtype="float32", always_2d=True)
            if not len(block):
                break
            blocks.append(block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0])
            done += len(block)
    except MemoryError:
        raise
    except Exception:  # a damaged file may raise almost anything in libsndfile
        raise Undecodable("the sound is damaged, or ends early") from None
    return np.concatenate(blocks)


@contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    """A sound whose header was found good."""
    import soundfile

    if not _known(content):
        raise Undecodable(_not_a_sound(content))
    if _cut_short(content):
        raise Undecodable("the sound ends early: its header names more bytes than there are")
    try:
        file = soundfile.SoundFile(_Stream(content))
    except MemoryError:
        raise
    except Exception:  # as above
        raise Undecodable(_not_a_sound(content)) from None
    with file:
        _check(file)
        yield file


def _check(file: Any) -> None:
    low, high = RATES
    if file.format not in _READ_FORMATS or file.subtype not in _CODINGS:
        raise Undecodable(f"its coding is {file.subtype}, which is not read here; {CONVERT}")
    if not low <= file.samplerate <= high:
        raise Undecodable(f"{file.samplerate} samples a second, {low} to {high} are read")
    if not 1 <= file.channels <= MOST_CHANNELS:
        raise Undecodable(f"{file.channels} channels, at most {MOST_CHANNELS} are read")
    if file.frames > MOST_FRAMES:
        raise Undecodable(f"its header says {file.frames} samples, at most {MOST_FRAMES} are read")
    if file.frames < 1:
        raise Undecodable("it has no samples")


def _known(content: bytes) -> bool:
    """Whether the first bytes are those of a format that is read: libsndfile knows many more, which nobody needs here."""
    if content[:4] in (b"RIFF", b"RF64"):
        return content[8:12] == b"WAVE"
    if content[:4] == b"FORM":
        return content[8:12] in (b"AIFF", b"AIFC")
    return content[:4] in (b"fLaC", b"OggS") or content[:3] == b"ID3" or _is_mpeg(content)


def _is_mpeg(content: bytes) -> bool:
    """Eleven ones and a layer, which AAC does not have."""
    return len(content) > 3 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0 and bool(content[1] & 0x06)


def _cut_short(content: bytes) -> bool:
    """Whether the samples of a WAV or AIFF should go on behind its end: libsndfile would read what is there and say nothing."""
    name, order = _CHUNKS.get(content[:4], (b"", "little"))
    at = 12
    while name and at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], order)
        if content[at : at + 4] == name:
            return size not in _STREAMED and at + 8 + size > len(content) + 1  # its padding may be missing
        at += 8 + size + size % 2
    return False


def _not_a_sound(content: bytes) -> str:
    if not content:
        return "the file is empty"
    start = content.lstrip(b"\xef\xbb\xbf \r\n\t")[:16]
    what = next((what for beginning, what in _BEGINNINGS if start.startswith(beginning)), None)
    if content[4:8] == b"ftyp":
        what = f"it is an MP4 or M4A file; {CONVERT}"
    elif content[:1] == b"\xff" and len(content) > 1 and content[1] & 0xF6 == 0xF0:
        what = f"it is an AAC file; {CONVERT}"
    elif content[:4] == b"RIFF" and content[8:12] != b"WAVE":
        what = "it begins like a video or a picture"
    elif _known(content):
        return "the sound is damaged: it cannot be opened"
    return f"no sound of a known format ({', '.join(FORMATS)})" + (f": {what}" if what else "")
