"""Training rows changed at random, as a function of (seed, data set, step) alone: a stopped run goes on with the same pictures.

Both arms of a pair see the same pictures, and so does a teacher that is asked about each batch (Beyer et al. 2022: teacher and student
should see one view). All changes of place are combined into one map, so that a picture is sampled once. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec.training import (
    Color,
    Crop,
    Cutout,
    Flip,
    MixUp,
    Noise,
    RandAugment,
    Rotation,
    SpecAugment,
    TimeShift,
    TokenDropout,
    Translation,
    Zoom,
)
from worker.training.data import rand_augment

if TYPE_CHECKING:
    from app.spec.training import Augmentation
    from worker.training.data.scaling import Scaling


_PLACES = Flip | Translation | Rotation | Zoom | Crop | RandAugment


USUAL_RATE = 16_000
LEAST_SHARE = 1e-4  # a label that is there counts for something, however small `alpha` is


@dataclass(frozen=True)
class Mixing:
    """Of each row of a batch `share` (n,) is itself, the rest the row `other` (n,)."""

    share: np.ndarray
    other: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        share = self.share.reshape(-1, *(1,) * (rows.ndim - 1))
        return np.asarray(share * rows + (1 - share) * rows[self.other], np.float32)

    def of_targets(self, y: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same of targets, as `heads.loss` takes them: of each task its share, and the other row's target and mask."""
        others = {f"{name}/other": values[self.other] for name, values in y.items()}
        return {**y, **others, **{f"{name}/share": self.share for name in y if not name.endswith("/labelled")}}


class Augment:
    """`spec` applied to the raw rows of a batch. `scaling`: as fitted on the rows that have the unit of `noise`, which need not be a
    network's own. `rate`: of sounds, samples a second."""

    def __init__(self, spec: Sequence[Augmentation], seed: int, name: str, scaling: Scaling, rate: int | None = None):
        self.spec, self._scaling, self._rate = list(spec), scaling, rate or USUAL_RATE
        self._in_tokens = scaling.tokenizer is not None
        self._entropy = [seed, *name.encode()]

    def __call__(self, raw: np.ndarray, step: int) -> np.ndarray:
        """(n, …) float32, in the units of `raw` (n, …). Pictures are (n, height, width, channels), sounds (n, samples, 1);
        noise takes any shape."""
        rng, drawn, maps = self._drawn(raw.shape, step)
        rows = raw.astype(np.float32)
        if maps is not None:
            rows = warp(rows, maps)
        for place, augmentation in enumerate(self.spec):
            match augmentation:
                case RandAugment():
                    rows = drawn[place].recoloured(rows, self._scaling.unit)
                case Noise():
                    deviation = np.float32(augmentation.std) * self._scaling.unit
                    rows = rows + rng.standard_normal(rows.shape, np.float32) * deviation
                case Color():
                    rows = recoloured(rows, augmentation, self._scaling.unit, rng)
                case Cutout():
                    rows = cut_out(rows, augmentation.fraction, rng)
                case TokenDropout() if not self._in_tokens:
                    rows = np.where(rng.random(rows.shape, np.float32) < augmentation.rate, np.float32(0), rows)
                case TimeShift():
                    rows = shifted(rows, augmentation.fraction, rng)
                case SpecAugment():
                    rows = masked(rows, augmentation, rng)
                    if augmentation.bands:
                        rows = without_bands(rows, augmentation, self._rate, rng)
        mixing = self.mixing(len(rows), step)
        return rows if mixing is None else mixing.of(rows)

    def mixing(self, n: int, step: int) -> Mixing | None:
        """How the `n` rows of a batch are mixed at that step; None: they are not."""
        by = next((augmentation for augmentation in self.spec if isinstance(augmentation, MixUp)), None)
        if by is None:
            return None
        rng = np.random.default_rng([*self._entropy, 258, step])
        share = np.clip(rng.beta(by.alpha, by.alpha, n), LEAST_SHARE, 1 - LEAST_SHARE)
        return Mixing(share.astype(np.float32), rng.permutation(n))

    def maps(self, shape: Sequence[int], step: int) -> np.ndarray | None:
        """The very maps, as `warp` takes them, by which a batch of `shape` is moved at that step; None: everything stays in its place."""
        return self._drawn(shape, step)[2]

    def _drawn(
        self, shape: Sequence[int], step: int
    ) -> tuple[np.random.Generator, dict[int, rand_augment.Drawn], np.ndarray | None]:
        """What is drawn first for a batch: the changes of each RandAugment, and the maps; and the generator for the rest."""
        rng = np.random.default_rng([*self._entropy, 257, step])
        drawn = {
            place: rand_augment.Drawn(rng, shape[0], by)
            for place, by in enumerate(self.spec)
            if isinstance(by, RandAugment)
        }
        moves = any(isinstance(augmentation, _PLACES) for augmentation in self.spec)
        return rng, drawn, self._maps(rng, shape, drawn) if moves else None

    def of_scaled(self, scaled: np.ndarray, step: int) -> np.ndarray:
        """What is done to scaled rows (n, …) instead: ids of tokens are left out where a network sees tokens."""
        rng = np.random.default_rng([*self._entropy, 259, step])
        for augmentation in self.spec:
            if self._in_tokens and isinstance(augmentation, TokenDropout):
                scaled = np.where(rng.random(scaled.shape, np.float32) < augmentation.rate, np.float32(0), scaled)
        return scaled

    def _maps(
        self, rng: np.random.Generator, shape: Sequence[int], drawn: Mapping[int, rand_augment.Drawn]
    ) -> np.ndarray:
        """(n, 2, 3) maps: from each pixel (y, x), counted from the middle, to the place where it is read."""
        n, height, width, *_ = shape
        maps = np.tile(np.eye(2, 3, dtype=np.float64), (n, 1, 1))
        for place, augmentation in enumerate(self.spec):
            step = np.tile(np.eye(2), (n, 1, 1))
            match augmentation:
                case Flip():
                    signs = np.where(rng.random((n, 2)) < 0.5, -1.0, 1.0)
                    step[:, 0, 0] = signs[:, 0] if augmentation.vertical else 1.0
                    step[:, 1, 1] = signs[:, 1] if augmentation.horizontal else 1.0
                case Translation():
                    sides = augmentation.fraction * np.array([height, width])
                    maps[:, :, 2] += np.einsum("nij,nj->ni", maps[:, :, :2], rng.uniform(-1, 1, (n, 2)) * sides)
                    continue
                case Rotation():
                    turn = np.deg2rad(rng.uniform(-augmentation.degrees, augmentation.degrees, n))
                    step = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(n, 2, 2)
                case Crop():
                    step, moved = cropped(rng, n, height, width, augmentation.least)
                    maps[:, :, 2] += np.einsum("nij,nj->ni", maps[:, :, :2], moved)
                case RandAugment():
                    for step, moved in drawn[place].steps(height, width):
                        maps[:, :, 2] += np.einsum("nij,nj->ni", maps[:, :, :2], moved)
                        maps[:, :, :2] = maps[:, :, :2] @ step
                    continue
                case Zoom():
                    step /= rng.uniform(1 - augmentation.fraction, 1 + augmentation.fraction, (n, 1, 1))
                case _:
                    continue
            maps[:, :, :2] = maps[:, :, :2] @ step
        return maps


def cropped(rng: np.random.Generator, n: int, height: int, width: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The maps (n, 2, 2) and middles (n, 2) of parts of pictures: area and shape drawn, cut where they were too long, any place."""
    area = rng.uniform(least, 1, n)
    shape = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n) / 2)
    sides = np.minimum(np.stack([np.sqrt(area) / shape, np.sqrt(area) * shape], axis=1), 1)
    step = np.zeros((n, 2, 2))
    step[:, [0, 1], [0, 1]] = sides
    return step, rng.uniform(-0.5, 0.5, (n, 2)) * (1 - sides) * np.array([height, width])


def recoloured(pictures: np.ndarray, by: Color, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures (n, h, w, c) float32, each with a brightness and a contrast of its own; they stay within 0 and `scale`."""
    drawn = rng.uniform(-1, 1, (2, len(pictures), 1, 1, 1)).astype(np.float32)
    mean = pictures.mean(axis=(1, 2, 3), keepdims=True)
    changed = (pictures - mean) * (1 + by.contrast * drawn[0]) + mean + by.brightness * drawn[1] * scale
    return np.asarray(np.clip(changed, 0, scale), np.float32)


def cut_out(pictures: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Pictures (n, h, w, c) float32, each with a rectangle that has its mean. The middle lies in the picture, the rest may not."""
    n, height, width, _ = pictures.shape
    middles = rng.random((2, n, 1, 1)) * np.array([height, width]).reshape(2, 1, 1, 1)
    down = np.abs(np.arange(height).reshape(1, -1, 1) + 0.5 - middles[0]) <= fraction * height / 2
    across = np.abs(np.arange(width).reshape(1, 1, -1) + 0.5 - middles[1]) <= fraction * width / 2
    mean = pictures.mean(axis=(1, 2, 3), keepdims=True)
    return np.where((down & across)[..., None], mean, pictures)


def shifted(sounds: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Sounds (n, samples, 1), each moved by a number of samples of its own, zeros where it left."""
    samples = sounds.shape[1]
    furthest = int(fraction * samples)
    moved = np.zeros_like(sounds)
    for sound, row, by in zip(
        sounds, moved, rng.integers(-furthest, furthest, len(sounds), endpoint=True), strict=True
    ):
        row[max(0, by) : samples + min(0, by)] = sound[max(0, -by) : samples - max(0, by)]
    return moved


def masked(sounds: np.ndarray, by: SpecAugment, rng: np.random.Generator) -> np.ndarray:
    """Sounds (n, samples, 1), each with some stretches of zeros, their lengths and places drawn evenly."""
    samples = sounds.shape[1]
    lengths = rng.integers(0, int(by.fraction * samples), (by.masks, len(sounds), 1), endpoint=True)
    starts = (rng.random(lengths.shape) * (samples - lengths + 1)).astype(np.int64)
    at = np.arange(samples)
    silent = ((at >= starts) & (at < starts + lengths)).any(axis=0)
    return np.where(silent[..., None], np.float32(0), sounds)


def without_bands(sounds: np.ndarray, by: SpecAugment, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Sounds (n, samples, 1), each without some bands of frequencies, their widths and places on the mel scale drawn evenly.

    A mask of frequencies spans a whole spectrogram, so a band goes out of the whole sound at once, whatever frames a network makes of it.
    """
    samples, top = sounds.shape[1], mel(rate / 2)
    widths = rng.random((by.bands, len(sounds), 1)) * by.width * top
    lows = rng.random(widths.shape) * (top - widths)
    at = mel(np.fft.rfftfreq(samples, 1 / rate))
    out = ((at >= lows) & (at < lows + widths)).any(axis=0)
    spectra = np.where(out, 0, np.fft.rfft(sounds[..., 0], axis=1))
    return np.asarray(np.fft.irfft(spectra, samples, axis=1), np.float32)[..., None]


def mel(hertz: Any) -> Any:
    """Frequencies on the mel scale (O'Shaughnessy 1987)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def warp(pictures: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Pictures (n, h, w, c) float32 read bilinearly at A (y, x) + b, counted from the middle, for maps [A | b] (n, 2, 3).

    Places outside have the value of the nearest edge.
    """
    n, height, width, channels = pictures.shape
    corners = [_around(maps[:, axis], axis, (height, width)) for axis in (0, 1)]
    (above, below, down), (left, right, across) = corners
    first = (np.arange(n) * (height * width))[:, None, None]
    above, below = first + above * width, first + below * width
    flat = pictures.reshape(-1, channels)

    def between(row: np.ndarray) -> np.ndarray:
        one, other = flat.take(row + left, axis=0), flat.take(row + right, axis=0)
        one *= 1 - across
        other *= across
        one += other
        return one

    # In place: these arrays are as large as all the pictures.
    top, bottom = between(above), between(below)
    top *= 1 - down
    bottom *= down
    top += bottom
    return np.asarray(top, np.float32)


def _around(to: np.ndarray, axis: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along an axis, where a picture of `shape` is read by rows `to` (n, 3) of maps: the numbers of the places before and behind, each
    (n, h, w), and the share of the latter, (n, h, w, 1) float32."""
    height, width = shape
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    last = shape[axis] - 1
    at = (to[:, 0, None] * y)[:, :, None] + (to[:, 1, None] * x)[:, None, :]
    at += to[:, 2, None, None]
    at += last / 2
    np.clip(at, 0, last, out=at)
    low = np.minimum(np.floor(at + 1e-9).astype(np.intp), last)
    at -= low
    return low, np.minimum(low + 1, last), np.clip(at, 0, 1, out=at).astype(np.float32)[..., None]
