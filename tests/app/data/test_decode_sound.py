"""Files of sounds become samples: channels, rates, lengths; against waves written out by hand."""

from __future__ import annotations

import ast
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.data import decode_sound
from tests.app.data.pictures import noise
from tests.app.data.pictures import saved as picture
from tests.app.data.sounds import saved, sine, sixteen, wav

RATE = 8000
WAVE = sixteen(sine(440, RATE, 0.5))


def decoded(content: bytes, rate: int = RATE, samples: int = len(WAVE)) -> np.ndarray:
    row = decode_sound.sound(content, rate=rate, samples=samples)
    assert row.dtype == np.int16
    assert row.shape == (samples, 1)
    return row[:, 0]


def test_sixteen_bits_of_the_same_rate_come_out_to_the_bit() -> None:
    whole = np.concatenate([WAVE, np.array([-32768, 32767, 0, 1, -1], np.int16)])
    assert decode_sound.header(wav(whole, RATE)) == decode_sound.Header(len(whole), RATE, 1)
    assert np.array_equal(decoded(wav(whole, RATE), samples=len(whole)), whole)
    for name, subtype in (("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16")):
        assert np.array_equal(decoded(saved(whole, RATE, name, subtype), samples=len(whole)), whole)


@pytest.mark.parametrize(
    ("format", "subtype", "most"),
    [
        ("WAV", "PCM_U8", 1 / 128),
        ("WAV", "PCM_24", 1 / 32768),
        ("WAV", "FLOAT", 1 / 32768),
        ("WAV", "DOUBLE", 1 / 32768),
        ("WAV", "ULAW", 0.03),
        ("WAV", "MS_ADPCM", 0.1),
        ("FLAC", "PCM_24", 1 / 32768),
        ("AIFF", "FLOAT", 1 / 32768),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_every_format_comes_near_to_the_wave(format: str, subtype: str, most: float) -> None:
    wave = sine(440, RATE, 0.5)
    row = decoded(saved(wave, RATE, format, subtype)) / 32768
    assert np.abs(row - wave).max() <= most
    assert np.corrcoef(row, wave)[0, 1] > 0.999


def test_several_channels_become_their_mean() -> None:
    rng = np.random.default_rng(0)
    channels = rng.integers(-30000, 30000, (500, 5)).astype(np.int16)
    row = decoded(wav(channels, RATE), samples=500)
    assert np.abs(row - channels.astype(np.float64).mean(axis=1)).max() <= 0.51
    opposite = np.stack([WAVE, -WAVE], axis=1)
    assert not decoded(wav(opposite, RATE)).any()


def test_what_is_longer_is_cut_and_what_is_shorter_is_filled_at_the_end() -> None:
    assert np.array_equal(decoded(wav(WAVE, RATE), samples=1000), WAVE[:1000])
    longer = decoded(wav(WAVE, RATE), samples=len(WAVE) + 700)
    assert np.array_equal(longer[: len(WAVE)], WAVE)
    assert not longer[len(WAVE) :].any()


@pytest.mark.parametrize(
    ("there", "rate"), [(44100, 16000), (48000, 8000), (8000, 16000), (22050, 48000), (11025, 8000)]
)
def test_another_rate_is_resampled_as_an_ideal_wave(there: int, rate: int) -> None:
    """A sine stays the sine of its frequency and loudness; the first and last 10 ms, where the sound begins, are left out."""
    row = decoded(wav(sixteen(sine(440, there, 0.5)), there), rate, rate // 2) / 32768
    inner = slice(rate // 100, -rate // 100)
    assert np.abs(row - sine(440, rate, 0.5))[inner].max() < 5e-4
    spectrum = np.abs(np.fft.rfft(row * np.hanning(len(row))))
    assert abs(spectrum.argmax() * rate / len(row) - 440) < 2


def test_what_the_new_rate_cannot_hold_is_gone_and_not_folded_back() -> None:
    high = decoded(wav(sixteen(sine(3000, 8000, 0.5)), 8000), 4000, 2000) / 32768
    assert np.abs(high[100:-100]).max() < 1e-3
    low = decoded(wav(sixteen(sine(3000, 48000, 0.5) + sine(12000, 48000, 0.5, 0.3)), 48000), 8000, 4000) / 32768
    assert np.abs(low - sine(3000, 8000, 0.5))[100:-100].max() < 1e-3


def test_a_cut_sound_is_resampled_as_if_the_rest_were_there() -> None:
    whole = wav(sixteen(sine(700, 44100, 2)), 44100)
    assert np.array_equal(decoded(whole, 16000, 3000), decoded(whole, 16000, 32000)[:3000])


def test_a_little_above_full_scale_is_cut_and_far_above_is_refused() -> None:
    wave = sine(440, RATE, 0.5, loudness=1.5).astype(np.float32)
    row = decoded(saved(wave, RATE, "WAV", "FLOAT"))
    assert (row.min(), row.max()) == (-32768, 32767)
    assert np.abs(row - np.clip(np.rint(wave * 32768.0), -32768, 32767)).max() == 0
    with pytest.raises(decode_sound.Undecodable, match="where 1 is full scale"):
        decoded(saved(wave * 20000, RATE, "WAV", "FLOAT"))


WAV = wav(WAVE, RATE)
FLAC, OGG, MP3, AIFF = (saved(WAVE, RATE, name) for name in ("FLAC", "OGG", "MP3", "AIFF"))
LONG_FLAC = bytearray(FLAC)
LONG_FLAC[18:26] = (int.from_bytes(FLAC[18:26], "big") & ~(2**36 - 1) | 10**9).to_bytes(8, "big")


def with_header(at: int, size: int, value: int) -> bytes:
    return WAV[:at] + value.to_bytes(size, "little") + WAV[at + size :]


def not_a_number() -> bytes:
    wave = sine(440, RATE, 0.5).astype(np.float32)
    wave[77] = np.nan
    return saved(wave, RATE, "WAV", "FLOAT")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\0\0\0\x20ftypmp42" + bytes(500), r"MP4 or M4A file; convert it: ffmpeg -i FILE FILE\.wav"),
        (b"\xff\xf1\x50\x80" + bytes(500), "AAC file; convert it: ffmpeg"),
        (b"\x1aE\xdf\xa3" + bytes(500), "WebM or Matroska file; convert it: ffmpeg"),
        (saved(WAVE, RATE, "OGG", "OPUS"), "OPUS, which is not read here; convert it: ffmpeg"),
        (saved(WAVE, RATE, "CAF"), "CAF file; convert it: ffmpeg"),
        (saved(WAVE, RATE, "WAV", "G721_32"), "G721_32, which is not read"),
        (picture(noise(0, 9, 9, 3)), "it is a picture"),
        (b"RIFF\x24\0\0\0AVI LIST" + bytes(40), "video"),
        (b"PK\3\4" + bytes(40), "zip"),
        (bytes(range(256)) * 8, "no sound of a known format"),
        (WAV[:20], "cannot be opened"),
        (WAV[:44], "ends early"),
        (WAV[: len(WAV) // 2], "ends early"),
        (AIFF[: len(AIFF) // 2], "ends early"),
        (FLAC[: len(FLAC) // 2], "ends early"),
        (OGG[: len(OGG) // 2], "cannot be opened"),
        (MP3[: len(MP3) // 4], "ends early|cannot be opened"),
        (b"\xff\xfb\x90\x00" + bytes(2000), "cannot be opened"),
        (b"ID3\3\0\0\0\0\x0f\x76" + bytes(3000), "cannot be opened"),
        (b"OggS" + bytes(100), "cannot be opened"),
        (b"fLaC" + bytes(100), "cannot be opened"),
        (wav(WAVE[:0], RATE), "no samples"),
        (with_header(40, 4, 2 * 10**9), "ends early"),
        (bytes(LONG_FLAC), "1000000000 samples, at most"),
        (with_header(24, 4, 0), "cannot be opened"),
        (with_header(24, 4, 2**31 - 1), "2147483647 samples a second"),
        (with_header(24, 4, 7), "7 samples a second, 1000 to"),
        (with_header(22, 2, 0), "cannot be opened"),
        (with_header(22, 2, 65535), "cannot be opened"),
        (wav(np.zeros((100, 33), np.int16), RATE), "33 channels"),
        (not_a_number(), "not finite"),
    ],
    ids=range(33),
)
def test_what_is_no_sound_is_refused_with_what_it_is(content: bytes, says: str) -> None:
    with pytest.raises(decode_sound.Undecodable, match=says):
        decode_sound.sound(content, rate=RATE, samples=4000)


def test_damage_at_random_is_refused_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """No other exception, not even one that a callback prints."""
    rng = np.random.default_rng(0)
    whole = [WAV, FLAC, OGG, AIFF, saved(WAVE, RATE, "WAV", "MS_ADPCM"), saved(WAVE, RATE, "WAV", "GSM610")]
    refused = 0
    for number in range(1200):
        content = bytearray(whole[number % len(whole)])
        for at in rng.integers(0, 120, 4):
            content[at] = rng.choice([0, 1, 127, 128, 255])
        if number % 3 == 0:
            del content[int(rng.integers(len(content))) :]
        try:
            decode_sound.sound(bytes(content), rate=11025, samples=9000)
        except decode_sound.Undecodable:
            refused += 1
    assert refused > 800
    assert "Traceback" not in "".join(capfd.readouterr())  # mpg123, within libsndfile, prints notes of its own


def test_a_stream_of_unknown_length_is_read_to_its_end() -> None:
    """As programs write to a pipe: the sizes are all ones."""
    streamed = WAV[:4] + b"\xff" * 4 + WAV[8:40] + b"\xff" * 4 + WAV[44:]
    assert np.array_equal(decoded(streamed), WAVE)
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"  # a chunk of odd length before the samples
    assert np.array_equal(decoded(WAV[:36] + extra + WAV[36:]), WAVE)


def test_it_stands_alone(tmp_path: Path) -> None:
    """A user's program has the file beside the model, NumPy, soundfile and soxr, and nothing of the service, nor Pillow."""
    source = Path(decode_sound.__file__)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"numpy", "soundfile", "soxr"}
    shutil.copy(source, tmp_path / "preprocess.py")
    content = saved(WAVE, RATE, "FLAC")
    (tmp_path / "seven.flac").write_bytes(content)
    program = (
        "import json, preprocess; row = preprocess.sound(open('seven.flac', 'rb').read(), rate=6000, samples=900);"
        " print(json.dumps(row.tolist()))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert np.array_equal(json.loads(answer.stdout), decode_sound.sound(content, rate=6000, samples=900))
