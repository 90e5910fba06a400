"""Augmentation: each change against a plain re-statement, its bounds, that it depends on seed and step alone, and who sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from app.spec.training import Crop, Flip, Noise, RandAugment, Rotation, SpecAugment, TimeShift, Translation, Zoom
from tests.worker.training.methods.resolving import MODEL, faults, resolve
from tests.worker.training.small import DIGIT, PICTURE, batch_source, network, stored
from worker.training.data.augmentation import Augment, warp
from worker.training.data.rand_augment import CHANGES, Drawn
from worker.training.data.scaling import Scaling

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 9, 9, 2)).astype(np.uint8)
BYTES = Scaling((0.0,), (255.0,))


def maps(*rows: list[list[float]]) -> np.ndarray:
    return np.repeat(np.array([rows[0]], np.float64), len(PICTURES), axis=0)


def augment(*spec: Any, seed: int = 0, step: int = 0, rows: np.ndarray = PICTURES) -> np.ndarray:
    return Augment(spec, seed, "d", BYTES)(rows, step)


def test_the_identity_a_whole_shift_a_mirror_and_a_quarter_turn_are_exact() -> None:
    raw = PICTURES.astype(np.float32)
    assert np.array_equal(warp(raw, maps([[1, 0, 0], [0, 1, 0]])), raw)
    shifted = warp(raw, maps([[1, 0, 2], [0, 1, -1]]))  # reads two lower, one to the left
    assert np.array_equal(shifted[:, :-2, 1:], raw[:, 2:, :-1])
    assert np.array_equal(shifted[:, -1, 1:], raw[:, -1, :-1])  # beyond the edge: the edge
    assert np.array_equal(warp(raw, maps([[1, 0, 0], [0, -1, 0]])), raw[:, :, ::-1])
    assert np.allclose(warp(raw, maps([[0, 1, 0], [-1, 0, 0]])), np.rot90(raw, axes=(1, 2)), atol=1e-4)


def test_any_map_equals_scipy_s_bilinear_one() -> None:
    matrix = np.array([[0.9, -0.2], [0.15, 1.1]])
    offset = np.array([0.7, -0.4])
    found = warp(PICTURES.astype(np.float32), maps([[*matrix[0], offset[0]], [*matrix[1], offset[1]]]))
    middle = np.array([4.0, 4.0])
    for picture, result in zip(PICTURES, found, strict=True):
        for channel in range(2):
            expected = ndimage.affine_transform(
                picture[..., channel].astype(np.float64),
                matrix,
                offset=middle - matrix @ middle + offset,
                order=1,
                mode="nearest",
            )
            assert result[..., channel] == pytest.approx(expected, abs=1e-3)


def test_flips_are_about_half_and_along_the_chosen_axis() -> None:
    rows = np.tile(PICTURES[:1], (400, 1, 1, 1))
    found = augment(Flip(horizontal=False, vertical=True), rows=rows)
    as_is = np.array([np.array_equal(one, rows[0]) for one in found])
    mirrored = np.array([np.array_equal(one, rows[0][::-1]) for one in found])
    assert (as_is ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_a_crop_is_a_part_of_the_picture_of_the_least_area_or_more() -> None:
    made = Augment([Crop(least=0.4)], 0, "d", BYTES)._maps(np.random.default_rng(1), (2000, 30, 20, 1), {})
    sides, middles = made[:, [0, 1], [0, 1]], made[:, :, 2] / np.array([30, 20])
    assert np.array_equal(made[:, [0, 1], [1, 0]], np.zeros((2000, 2)))
    assert (np.abs(middles) + sides / 2).max() <= 0.5 + 1e-9
    area, shape = sides.prod(axis=1), sides[:, 1] / sides[:, 0]
    assert 0.38 < area.min() < 0.42
    assert 0.95 < area.max() <= 1
    whole = sides.max(axis=1) < 1  # what was longer than the picture was cut
    assert 0.74 < shape[whole].min() < 0.8
    assert 1.25 < shape[whole].max() < 1.34
    assert 0.68 < area.mean() < 0.71


def all_of(change: str, amount: float, rows: np.ndarray) -> Drawn:
    drawn = Drawn(np.random.default_rng(0), len(rows), RandAugment(ops=1))
    drawn.change[:], drawn.amount[:] = CHANGES.index(change), amount
    return drawn


@pytest.mark.parametrize(
    ("change", "amount", "by_pillow"),
    [
        ("nothing", 0.7, lambda picture: picture),
        ("brightness", -0.5, lambda picture: ImageEnhance.Brightness(picture).enhance(1 - 0.45)),
        ("saturation", 0.5, lambda picture: ImageEnhance.Color(picture).enhance(1.45)),
        ("posterise", 0.5, lambda picture: ImageOps.posterize(picture, 6)),
        ("solarise", 0.4, lambda picture: ImageOps.solarize(picture, 153)),
    ],
)
def test_changes_of_colour_are_pillow_s(change: str, amount: float, by_pillow: Any) -> None:
    rows = RNG.integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
    found = all_of(change, amount, rows).recoloured(rows, np.float32(255))
    for row, result in zip(rows, found, strict=True):
        expected = np.asarray(by_pillow(Image.fromarray(row.astype(np.uint8))), np.float64)
        assert np.abs(result - expected).max() <= 1.5  # Pillow rounds, of saturation twice


def test_contrast_is_about_the_picture_s_own_mean() -> None:
    rows = RNG.uniform(60, 200, (4, 8, 8, 1)).astype(np.float32)
    found = all_of("contrast", -1.0, rows).recoloured(rows, np.float32(255))
    assert found.mean(axis=(1, 2, 3)) == pytest.approx(rows.mean(axis=(1, 2, 3)), rel=1e-4)
    assert found.std(axis=(1, 2, 3)) == pytest.approx(0.1 * rows.std(axis=(1, 2, 3)), rel=1e-3)


def test_changes_of_place_are_matrices_in_the_drawn_order() -> None:
    rows = PICTURES[:3]
    expected = {
        "rotation": ([[np.cos(0.5236 / 2), -np.sin(0.5236 / 2)], [np.sin(0.5236 / 2), np.cos(0.5236 / 2)]], [0, 0]),
        "shear_y": ([[1, 0.15], [0, 1]], [0, 0]),
        "shear_x": ([[1, 0], [0.15, 1]], [0, 0]),
        "shift_y": ([[1, 0], [0, 1]], [0.15 * 9, 0]),
        "shift_x": ([[1, 0], [0, 1]], [0, 0.15 * 9]),
        "solarise": ([[1, 0], [0, 1]], [0, 0]),
    }
    for change, (matrix, offset) in expected.items():
        ((step, moved),) = all_of(change, 0.5, rows).steps(9, 9)
        assert step == pytest.approx(np.array([matrix] * 3), abs=1e-4)
        assert moved == pytest.approx(np.array([offset] * 3), abs=1e-9)


def test_each_picture_has_changes_of_its_own_and_all_are_drawn_about_as_often() -> None:
    drawn = Drawn(np.random.default_rng(5), 5500, RandAugment(ops=2, magnitude=0.4))
    counts = np.array([(drawn.change == number).sum() for number in range(len(CHANGES))])
    assert np.abs(counts - 1000).max() < 130
    assert set(np.unique(drawn.amount)) == {-0.4, 0.4}
    found = augment(RandAugment(ops=2), step=3)
    assert np.array_equal(found, augment(RandAugment(ops=2), step=3))
    assert not np.array_equal(found, augment(RandAugment(ops=2), step=4))
    assert found.min() >= 0
    assert found.max() <= 255


def test_places_move_no_further_than_asked() -> None:
    made = Augment([Translation(fraction=0.2)], 0, "d", BYTES)
    moved = made._maps(np.random.default_rng(1), (500, 10, 20, 1), {})
    assert np.allclose(moved[:, :, :2], np.eye(2))
    assert 1.8 < np.abs(moved[:, 0, 2]).max() <= 2.0
    assert 3.6 < np.abs(moved[:, 1, 2]).max() <= 4.0
    turned = Augment([Rotation(degrees=30)], 0, "d", BYTES)._maps(np.random.default_rng(1), (500, 10, 10, 1), {})
    degrees = np.rad2deg(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert 28 < np.abs(degrees).max() <= 30
    zoomed = Augment([Zoom(fraction=0.25)], 0, "d", BYTES)._maps(np.random.default_rng(1), (500, 10, 10, 1), {})
    factors = 1 / zoomed[:, 0, 0]
    assert 0.75 <= factors.min() < 0.77
    assert 1.23 < factors.max() <= 1.25


def test_noise_is_a_share_of_the_scale_and_of_each_column_s_deviation() -> None:
    grey = np.full((50, 9, 9, 1), 128, np.uint8)
    spread = (augment(Noise(std=0.1), rows=grey) - 128).std()
    assert spread == pytest.approx(25.5, rel=0.05)
    table = np.zeros((4000, 2), np.float32)
    found = Augment([Noise(std=0.5)], 0, "d", Scaling((0.0, 0.0), (2.0, 10.0)))(table, 0)
    assert found.std(axis=0) == pytest.approx([1.0, 5.0], rel=0.1)


def test_a_batch_is_a_function_of_seed_data_set_and_step() -> None:
    spec = [Flip(), Rotation(), Noise()]
    one = augment(*spec)
    assert np.array_equal(one, augment(*spec))
    assert not np.array_equal(one, augment(*spec, step=1))
    assert not np.array_equal(one, augment(*spec, seed=1))
    assert not np.array_equal(one, Augment(spec, 0, "other", BYTES)(PICTURES, 0))


def test_teachers_hear_the_very_pictures_that_the_student_sees_and_stored_ones_stay() -> None:
    whole = network([DIGIT], architecture={"arch": "cnn", "filters": [3], "dense": 6}, shape=PICTURE)
    data = batch_source(whole, {"digit": stored(DIGIT, 8)}, 8, augment=Augment([Translation(), Noise()], 0, "d", BYTES))
    before = data.inputs.copy()
    heard: list[np.ndarray] = []
    data.computed.append(lambda raw: heard.append(raw) or {})
    seen, _ = data.batch(3)
    assert np.array_equal(whole.scaling(heard[0]), seen)
    assert np.array_equal(data.inputs, before)


SOUNDS = RNG.integers(1, 9000, (300, 50, 1)).astype(np.int16)
FULL = Scaling((0.0,), (32768.0,))


def test_sounds_move_by_whole_samples_and_leave_silence() -> None:
    moved = Augment([TimeShift(fraction=0.2)], 0, "d", FULL)(SOUNDS, 0)[..., 0]
    shifts = set()
    for sound, row in zip(SOUNDS[..., 0].astype(np.float32), moved, strict=True):
        there = [
            by for by in range(-10, 11) if np.array_equal(row, np.pad(sound, 10)[10 - by : 60 - by] * _inside(50, by))
        ]
        assert len(there) == 1
        shifts |= set(there)
    assert shifts == set(range(-10, 11))


def _inside(samples: int, by: int) -> np.ndarray:
    """1 where a sound that was moved by so much still is."""
    at = np.arange(samples) - by
    return ((at >= 0) & (at < samples)).astype(np.float32)


def test_stretches_of_a_sound_are_silent_and_the_rest_is_as_it_was() -> None:
    found = Augment([SpecAugment(masks=1, fraction=0.2)], 0, "d", FULL)(SOUNDS, 0)[..., 0]
    silent = found == 0
    assert np.array_equal(found[~silent], SOUNDS[..., 0][~silent])
    lengths = silent.sum(axis=1)
    assert set(lengths) == set(range(11))
    begins = (np.diff(silent.astype(int), prepend=0, axis=1) == 1).sum(axis=1)
    assert np.array_equal(begins, lengths > 0)  # one stretch each
    assert silent[:, 0].any()
    assert silent[:, -1].any()
    several = Augment([SpecAugment(masks=3, fraction=0.1)], 0, "d", FULL)(SOUNDS, 0)[..., 0] == 0
    assert several.sum(axis=1).max() <= 15
    assert (np.diff(several.astype(int), prepend=0, axis=1) == 1).sum(axis=1).max() == 3


def naive_spectrum(sound: np.ndarray) -> np.ndarray:
    """By the definition of the discrete Fourier transform, a sum for each frequency."""
    at = np.arange(len(sound))
    return np.array([(sound * np.exp(-2j * np.pi * k * at / len(sound))).sum() for k in range(len(sound) // 2 + 1)])


@pytest.mark.parametrize("samples", [50, 51])
def test_bands_of_frequencies_are_taken_out_and_the_rest_is_as_it_was(samples: int) -> None:
    sounds = RNG.integers(-9000, 9000, (300, samples, 1)).astype(np.int16)
    spec = SpecAugment(masks=0, bands=1, width=0.4)
    found = Augment([spec], 0, "d", FULL, rate=8000)(sounds, 0)
    assert found.dtype == np.float32
    hertz = np.arange(samples // 2 + 1) * 8000 / samples
    scale = 2595 * np.log10(1 + hertz / 700)
    share = scale / (2595 * np.log10(1 + 4000 / 700))
    widths, lowest, highest = [], [], []
    for sound, row in zip(sounds[..., 0].astype(np.float64), found[..., 0], strict=True):
        before, after = naive_spectrum(sound), naive_spectrum(row)
        gone = np.abs(after) < 0.1
        assert np.abs(before - after)[~gone].max() < 0.1
        places = np.flatnonzero(gone)
        assert len(places) == 0 or np.array_equal(places, np.arange(places[0], places[-1] + 1))
        if len(places):
            widths.append(share[places[-1]] - share[places[0]])
            lowest.append(places[0])
            highest.append(places[-1])
    assert 0.3 < max(widths) <= 0.4
    assert min(lowest) == 1  # a constant is in no band
    assert max(highest) >= samples // 2 - 1
    assert len(widths) > 200
    several = Augment([SpecAugment(masks=0, bands=3, width=0.1)], 0, "d", FULL, rate=8000)(sounds, 0)[..., 0]
    gone = np.abs(np.fft.rfft(several.astype(np.float64), axis=1)) < 0.1
    assert (np.diff(gone.astype(int), prepend=0, axis=1) == 1).sum(axis=1).max() == 3


def test_a_tone_within_a_band_is_silent_in_the_whole_sound_and_another_one_is_not() -> None:
    at = np.arange(4000) / 8000
    low, high = (np.sin(2 * np.pi * hertz * at) for hertz in (300, 3000))
    sounds = np.repeat((8000 * (low + high)).astype(np.int16)[None, :, None], 200, axis=0)
    found = Augment([SpecAugment(masks=0, bands=1, width=0.5)], 0, "d", FULL, rate=8000)(sounds, 0)[..., 0]
    loudness = np.abs(found @ np.stack([low, high], axis=1)) / (at.size / 2)
    kinds = {tuple(row) for row in (loudness > 4000).tolist()}
    assert {(True, True), (False, True), (True, False)} <= kinds
    assert ((loudness < 100) | (loudness > 7900)).all()


def test_masks_of_time_alone_are_what_they_were_before_there_were_bands() -> None:
    first = Augment([SpecAugment(masks=2), Noise(std=0.01)], 0, "d", FULL)(SOUNDS, 5)
    both = Augment([SpecAugment(masks=2, bands=0, width=0.5), Noise(std=0.01)], 0, "d", FULL, 8000)(SOUNDS, 5)
    assert np.array_equal(first, both)
    with pytest.raises(ValueError, match="both 0"):
        SpecAugment(masks=0)


def test_sounds_too_are_a_function_of_seed_data_set_and_step() -> None:
    spec = [TimeShift(), SpecAugment(bands=2), Noise(std=0.01)]
    first = Augment(spec, 0, "d", FULL)(SOUNDS, 5)
    assert first.dtype == np.float32
    assert np.array_equal(first, Augment(spec, 0, "d", FULL)(SOUNDS, 5))
    for other in (Augment(spec, 0, "d", FULL)(SOUNDS, 6), Augment(spec, 1, "d", FULL)(SOUNDS, 5)):
        assert not np.array_equal(first, other)


# --- words


def test_pictures_alone_can_be_moved() -> None:
    body = {"kind": "transfer", "dataset": "wine", "source": {"train": {"dataset": "wine"}}}
    training = {"augmentation": [{"type": "noise"}, {"type": "flip"}]}
    found = faults({**body, "training": training, "source": {"train": {"dataset": "wine", "training": training}}})
    assert set(found) == {"/training/augmentation/1/type", "/source/train/training/augmentation/1/type"}


def test_what_is_cached_is_refused_under_augmentation_and_online_is_then_the_default() -> None:
    training = {"augmentation": [{"type": "rotation"}]}
    body = {"kind": "distillation", "dataset": "digits", "teacher": MODEL, "training": training}
    assert resolve(body).teacher_outputs == "online"
    assert "/teacher_outputs" in faults({**body, "teacher_outputs": "cached"})
    transfer = {"kind": "transfer", "dataset": "digits", "source": MODEL, "strategy": "feature_extraction"}
    assert resolve({**transfer, "training": training})
    assert "/cache_features" in faults({**transfer, "training": training, "cache_features": True})
