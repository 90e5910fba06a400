"""Synthetic sounds: a pattern of a pitch over a quarter of a second, and whether it is high. To try sounds without any of one's own.

Each has a pitch, a loudness, a beginning, overtones and a noise of its own. Whole numbers throughout, so that every machine makes the same.
"""

from __future__ import annotations

import math

import numpy as np

RATE, SAMPLES = 8_000, 2_000
PATTERNS = ("rising", "falling", "steady", "pulsed")
HEIGHTS = ("low", "high")

_TURN = 2**20  # the phase is counted in so many parts of a turn
_SINE = np.array([round(2047 * math.sin(2 * math.pi * step / 1024)) for step in range(1024)], np.int64)
_LOWEST, _MIDDLE, _HIGHEST = 250, 700, 1500  # hertz, of the pitch at half time


def make(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count` sounds, (count, SAMPLES, 1) int16, the number of each one's pattern, and of its height, int32. The same every time."""
    rng = np.random.default_rng(2027)
    rows = np.zeros((count, SAMPLES, 1), np.int16)
    pattern = (np.arange(count) % len(PATTERNS)).astype(np.int32)
    high = rng.integers(len(HEIGHTS), size=count).astype(np.int32)
    for row, of, is_high in zip(rows, pattern, high, strict=True):
        bounds = (_MIDDLE + 100, _HIGHEST) if is_high else (_LOWEST, _MIDDLE - 100)
        row[:, 0] = _sound(rng, PATTERNS[of], int(rng.integers(*bounds)))
    return rows, pattern, high


def _sound(rng: np.random.Generator, pattern: str, hertz: int) -> np.ndarray:
    """(SAMPLES,) int64 within 16 bits."""
    begin, length = int(rng.integers(0, 400)), int(rng.integers(1200, 1600))
    time = np.arange(length)
    change = {"rising": 1, "falling": -1}.get(pattern, 0) * int(rng.integers(25, 60))  # percent, from beginning to end
    pitch = hertz * (100 * length + change * (time - length // 2)) // (100 * length)
    phase = np.cumsum(pitch * _TURN // RATE)
    wave = sum(
        _SINE[(over * phase // (_TURN // 1024)) % 1024] * weight for over, weight in ((1, 8), (2, int(rng.integers(5))))
    )
    if pattern == "pulsed":
        wave = np.where(time // int(rng.integers(120, 240)) % 2, 0, wave)
    edges = np.minimum(np.minimum(time, time[::-1]), 80)  # it comes and goes within 10 ms
    loudness = int(rng.integers(20, 100))
    sound = rng.integers(-1, 2, SAMPLES) * int(rng.integers(50, 400))
    sound[begin : begin + length] += wave * edges * loudness // (80 * 100)
    return np.asarray(sound)
