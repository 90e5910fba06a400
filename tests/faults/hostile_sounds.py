"""Archives of sounds that lie about their length, rate or channels, that swell, or that are none. One function a kind, by chance."""

from __future__ import annotations

import pickle
import random
import struct

import numpy as np

from tests.app.data.pictures import noise
from tests.app.data.pictures import saved as picture
from tests.app.data.sounds import class_folders, saved, sine, sixteen, wav
from tests.faults.hostile_archives import packed
from tests.faults.hostile_npz import Hostile, Lair, Make, Trap

RATE = 8000
FORMATS = {"WAV": "wav", "FLAC": "flac", "OGG": "ogg", "MP3": "mp3", "AIFF": "aiff"}
WAVE = sixteen(sine(440, RATE, 0.2))


def with_files(files: dict[str, bytes], chance: random.Random) -> Hostile:
    """Beside twelve sounds that can be heard."""
    return packed({**class_folders(12), **files}, chance)


def encoded(chance: random.Random) -> tuple[str, bytes]:
    name = chance.choice(list(FORMATS))
    return FORMATS[name], saved(WAVE, RATE, name)


def lying_length(chance: random.Random, lair: Lair) -> Hostile:
    """A milliard of samples in a header, and no more than a thousand behind it."""
    content, flac = bytearray(wav(WAVE, RATE)), bytearray(saved(WAVE, RATE, "FLAC"))
    content[40:44] = struct.pack("<I", chance.choice([2**31 - 2, 2**32 - 2, 2**32 - 1, 10**9]))
    count = chance.choice([10**9, 2**36 - 1, 400_000_000])
    flac[18:26] = (int.from_bytes(flac[18:26], "big") & ~(2**36 - 1) | count).to_bytes(8, "big")
    return with_files({"low/a.wav": bytes(content), "low/a.flac": bytes(flac)}, chance)


def odd_header(chance: random.Random, lair: Lair) -> Hostile:
    """No rate, a rate of millions, no channel, thousands of them, codings that nobody has."""
    content = bytearray(wav(WAVE, RATE))
    at, form, values = chance.choice(
        [
            (24, "<I", [0, 1, 7, 999, 384_001, 2**31 - 1, 2**32 - 1]),
            (22, "<H", [0, 33, 1024, 65_535]),
            (20, "<H", [0, 2, 3, 6, 7, 17, 49, 85, 0xFFFE, 0xFFFF]),
            (32, "<H", [0, 1, 65_535]),
            (34, "<H", [0, 1, 8, 24, 64, 65_535]),
        ]
    )
    struct.pack_into(form, content, at, chance.choice(values))
    return with_files({"low/odd.wav": bytes(content)}, chance)


def silence(chance: random.Random, lair: Lair) -> Hostile:
    """Hours of silence in a few bytes: as much as a row holds is decoded, and no more."""
    samples = np.zeros((30_000_000 if lair.large else 2_000_000, 1), np.int16)
    return with_files({f"low/{n}x.flac": saved(samples, 192_000, "FLAC") for n in range(4)}, chance)


def cut_sound(chance: random.Random, lair: Lair) -> Hostile:
    ending, content = encoded(chance)
    return with_files({f"low/cut.{ending}": content[: chance.randrange(len(content))]}, chance)


def flipped_sounds(chance: random.Random, lair: Lair) -> Hostile:
    files = {}
    for number in range(60 if lair.large else 20):
        ending, content = encoded(chance)
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 3, 9])):
            damaged[chance.randrange(min(len(damaged), chance.choice([80, 10**6])))] = chance.choice([0, 127, 128, 255])
        files[f"low/flipped{number}.{ending}"] = bytes(damaged)
    return with_files(files, chance)


def other_content(chance: random.Random, lair: Lair) -> Hostile:
    """Videos, pages, programs, pickles and pictures under the name of a sound."""
    what = [
        b"\0\0\0\x20ftypmp42" + bytes(400), b"\x1aE\xdf\xa3" + bytes(400), b"\xff\xf1\x50\x80" + bytes(400),
        b"<html>404</html>", b"\x7fELF" + bytes(400), b"%PDF-1.7", b"#!/bin/sh\n", b"MThd\0\0\0\x06", b"RIFF\x24\0\0\0AVI LIST",
        pickle.dumps(Trap(lair.canary)), picture(noise(0, 8, 8, 3)), saved(WAVE, RATE, "CAF"), saved(WAVE, RATE, "AU"),
        saved(WAVE, RATE, "OGG", "OPUS"), saved(WAVE, RATE, "WAV", "G721_32"), saved(WAVE, RATE, "MAT5"),
    ]  # fmt: skip
    names = chance.sample(range(len(what)), 4)
    return with_files({f"low/other{n}.{chance.choice(list(FORMATS.values()))}": what[n] for n in names}, chance)


def odd_samples(chance: random.Random, lair: Lair) -> Hostile:
    """Not numbers, infinite, or of another scale."""
    samples = WAVE.astype(np.float32) / 32768
    samples[chance.randrange(len(samples))] = chance.choice([np.nan, np.inf, -np.inf, 1e38, 40.0])
    return with_files({"low/odd.wav": saved(samples, RATE, "WAV", "FLOAT")}, chance)


def odd_chunks(chance: random.Random, lair: Lair) -> Hostile:
    """Chunks without end, of no length, in a ring of sizes, thousands of them."""
    content = wav(WAVE, RATE)
    size = chance.choice([0, 1, 2**31 - 1, 2**32 - 1])
    many = chance.choice([1, 50_000 if lair.large else 5_000])
    chunk = chance.choice([b"LIST", b"bext", b"cue ", b"smpl", b"fmt ", b"PEAK"]) + struct.pack("<I", size)
    return with_files({"low/chunks.wav": content[:36] + chunk * many + content[36:]}, chance)


ALL: list[Make] = [
    lying_length, odd_header, silence, cut_sound, flipped_sounds, other_content, odd_samples, odd_chunks,
]  # fmt: skip
