"""Boxes go where their pixels go: a rectangle is drawn, the picture is augmented, and the box is found again in the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.data import builtins
from app.data.boxes import PAD
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec
from app.spec.training import (
    Augmentation,
    Color,
    Crop,
    Cutout,
    Flip,
    RandAugment,
    Rotation,
    TrainingSpec,
    Translation,
    Zoom,
)
from worker.training.data.augmentation import Augment, warp
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling
from worker.training.dummy import dummy_job
from worker.training.tasks import boxes, heads

HEIGHT, WIDTH, PICTURES = 60, 80, 400
BYTES = Scaling((0.0,), (255.0,))


def drawn(middle: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with one bright rectangle each, of its own place and size, and its box; `middle`: near there, so that nothing leaves."""
    rng = np.random.default_rng(3)
    pictures, target = np.zeros((PICTURES, HEIGHT, WIDTH, 1), np.uint8), np.full((PICTURES, 2, 5), PAD, np.float32)
    for picture, rows in zip(pictures, target, strict=True):
        height, width = rng.integers(8, 16, 2)
        low = (HEIGHT // 2 - 14, WIDTH // 2 - 14) if middle else (2, 2)
        high = (HEIGHT // 2 + 12, WIDTH // 2 + 12) if middle else (HEIGHT - 2, WIDTH - 2)
        top, left = rng.integers(low[0], high[0] - height), rng.integers(low[1], high[1] - width)
        picture[top : top + height, left : left + width] = 255
        rows[1] = [left / WIDTH, top / HEIGHT, (left + width) / WIDTH, (top + height) / HEIGHT, 4]
    return pictures, target


def found(picture: np.ndarray) -> list[float]:
    """Left, top, right and bottom of what is bright, in shares of the picture."""
    down, across = np.flatnonzero((picture > 127).any(axis=(1, 2))), np.flatnonzero((picture > 127).any(axis=(0, 2)))
    return [across[0] / WIDTH, down[0] / HEIGHT, (across[-1] + 1) / WIDTH, (down[-1] + 1) / HEIGHT]


def moved(*spec: Augmentation, middle: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A batch's pictures, with no change but of places, and targets, taken as a fit takes them."""
    pictures, target = drawn(middle)
    sampler = Sampler(np.arange(PICTURES), PICTURES, 0)
    augment = Augment(spec, 0, "d", BYTES)
    source = BatchSource(pictures, BYTES, {"t": target}, [sampler], augment=augment, moved={"t": boxes.moved})
    batch, y = source.batch(7)
    maps = augment.maps(pictures.shape, 7)
    if any(isinstance(change, RandAugment) for change in spec):  # which may leave no bright pixel
        assert maps is not None
        return warp(pictures[sampler.batch(7)].astype(np.float32), maps), y["t"]
    return batch * 255, y["t"]


@pytest.mark.parametrize(
    ("spec", "middle", "pixels"),
    [
        ([Flip(horizontal=True, vertical=False)], False, 1e-3),
        ([Flip(horizontal=True, vertical=True)], False, 1e-3),
        ([Color(brightness=0.05, contrast=0.1)], False, 1e-3),
        ([Zoom(fraction=0.3)], True, 1.1),
        ([Translation(fraction=0.2)], True, 1.1),
        ([Rotation(degrees=180)], True, 1.6),
        ([Flip(), Zoom(fraction=0.2), Translation(fraction=0.1), Rotation(degrees=20)], True, 1.6),
        ([RandAugment(ops=3, magnitude=0.2)], True, 1.6),
    ],
)
def test_a_box_is_where_its_pixels_are(spec: list[Any], middle: bool, pixels: float) -> None:
    pictures, target = moved(*spec, middle=middle)
    assert (target[:, 0] == PAD).all()  # what was no box stays none
    assert (target[:, 1, 4] == 4).all()
    off = np.abs([found(picture) - row for picture, row in zip(pictures, target[:, 1, :4], strict=True)])
    assert (off * [WIDTH, HEIGHT, WIDTH, HEIGHT]).max() <= pixels


@pytest.mark.parametrize("spec", [[Crop(least=0.2)], [Translation(fraction=0.5)], [Flip(), Crop(least=0.3)]])
def test_a_box_is_cut_at_the_edge_and_dropped_where_less_than_a_quarter_is_left(spec: list[Any]) -> None:
    pictures, target = moved(*spec)
    originals, before = drawn(False)
    maps = Augment(spec, 0, "d", BYTES).maps(originals.shape, 7)
    assert maps is not None
    order = Sampler(np.arange(PICTURES), PICTURES, 0).batch(7)
    sides = (before[order][:, 1, 2:4] - before[order][:, 1, :2]) * [WIDTH, HEIGHT]
    whole = sides.prod(axis=1) / np.linalg.det(maps[:, :, :2])  # of the box where it went, in pixels
    lit = (pictures > 127).sum(axis=(1, 2, 3))
    there = target[:, 1, 4] == 4
    assert (target[~there, 1] == PAD).all()
    inside = ~(pictures[:, [0, -1]] > 127).any(axis=(1, 2, 3)) & ~(pictures[:, :, [0, -1]] > 127).any(axis=(1, 2, 3))
    assert there[inside & (lit > 0)].all()  # nothing of it touches an edge
    assert not there[lit == 0].any()
    assert 20 < (~there).sum() < PICTURES - 20
    shown = lit / np.abs(whole)
    touching = ~inside & there
    off = np.abs([found(pictures[row]) - target[row, 1, :4] for row in np.flatnonzero(there)]) * np.tile(
        [WIDTH, HEIGHT], 2
    )
    assert off.max() <= 2.2 / min(1, np.abs(maps[:, 0, 0]).min())
    assert touching.sum() > 20
    assert ((target[touching, 1, :4] == 0) | (target[touching, 1, :4] == 1)).any(axis=1).mean() > 0.8
    assert shown[~there].max() < 0.5  # a quarter, and a line of pixels more
    assert shown[there].min() > 0.1
    assert target[there, 1, :4].min() >= 0
    assert target[there, 1, :4].max() <= 1


def test_the_rule_itself_is_a_quarter_of_the_area() -> None:
    target = np.array([[[0.0, 0.2, 0.4, 0.6, 1]]], np.float32)
    for shift, there in ((0.29, True), (0.31, False), (-0.29, True)):
        maps = np.array([[[1, 0, 0], [0, 1, shift * 100]]])  # reads that much further right
        box = boxes.moved(target, maps, (50, 100))[0, 0]
        expected = [max(0, -shift), 0.2, 0.4 - shift, 0.6, 1] if there else [PAD] * 5
        assert box == pytest.approx(expected, abs=1e-6)


def test_what_stays_and_what_moves_is_a_function_of_the_step_as_for_pixels() -> None:
    one, other = moved(Flip()), moved(Flip())
    assert np.array_equal(one[1], other[1])
    still = Augment([Color(), Cutout()], 0, "d", BYTES)
    assert still.maps((4, HEIGHT, WIDTH, 1), 3) is None


def test_a_job_s_batches_have_boxes_that_move_in_both_arms_alike() -> None:
    training = TrainingSpec(batch_size=8, augmentation=[Flip(horizontal=True, vertical=False)])
    with dummy_job() as job:
        data = job.run.data("shapes", {"boxes": TaskSpec(), "main": TaskSpec()}, SplitSpec())
        subset = data.subset(0)
        network: Any = type("N", (), {"tasks": subset.tasks, "scaling": BYTES})
        source = job.run.batch_source(network, subset, training, 0)
        (_, first), (_, again) = source.batch(2), job.run.batch_source(network, subset, training, 0).batch(2)
    assert np.array_equal(first["boxes"], again["boxes"])
    rows = source.samplers[0].batch(2)
    stored = heads.targets(subset.tasks["boxes"], builtins.load("shapes").columns["boxes"])["boxes"][rows]
    turned = stored.copy()
    turned[..., [0, 2]] = 1 - stored[..., [2, 0]]
    turned[stored[..., 4] < 0] = PAD
    as_is = np.isclose(first["boxes"], stored, atol=1e-6).all(axis=(1, 2))
    mirrored = np.isclose(first["boxes"], turned, atol=1e-6).all(axis=(1, 2))
    assert (as_is ^ mirrored).all()
    assert as_is.any()
    assert mirrored.any()
