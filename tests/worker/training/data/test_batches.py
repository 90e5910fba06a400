"""Batches are a pure function of (seed, step)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.data import source
from app.data.source import RowSource
from app.spec.training import Noise
from worker.training.data import batches
from worker.training.data.augmentation import Augment
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling


def test_rows_of_one_value_follow_each_other_by_fours_and_every_row_still_comes_once_a_pass() -> None:
    values = np.random.default_rng(0).integers(0, 30, 400)
    values[::7] = -1
    rows = np.flatnonzero(np.arange(400) % 3 > 0)
    sampler = Sampler(rows, 32, seed=5, values=values)
    whole = np.concatenate([sampler.batch(step) for step in range(20)])
    for start in range(0, 2 * len(rows), len(rows)):
        assert sorted(whole[start : start + len(rows)]) == rows.tolist()
    seen = values[whole[: len(rows)]]
    runs = np.split(seen, np.flatnonzero(np.diff(seen)) + 1)
    for value in np.unique(values[rows]):
        lengths = [len(run) for run in runs if run[0] == value]
        if value >= 0:  # two fours may meet
            assert sum(length % 4 > 0 for length in lengths) <= 1
    alone = [np.mean([(batch == v).sum() == 1 for v in batch if v >= 0]) for batch in np.split(seen[:256], 8)]
    assert np.mean(alone) < 0.15
    again = Sampler(rows, 32, seed=5, values=values)
    assert np.array_equal(again.batch(9), sampler.batch(9)), "a pure function of the step"
    assert not np.array_equal(Sampler(rows, 32, seed=6, values=values).batch(0), sampler.batch(0))


def test_every_row_comes_once_in_each_pass_and_all_batches_have_one_size() -> None:
    line = Sampler(np.arange(100, 110), 4, seed=3)
    drawn = [line.batch(step) for step in range(10)]  # 40 rows: four passes of ten
    assert {len(rows) for rows in drawn} == {4}
    for number in range(4):
        assert sorted(np.concatenate(drawn)[10 * number : 10 * (number + 1)]) == list(range(100, 110))


def test_any_step_can_be_had_first() -> None:
    one, other = Sampler(np.arange(17), 5, seed=1), Sampler(np.arange(17), 5, seed=1)
    in_order = [one.batch(step) for step in range(30)]
    for step in (29, 3, 17, 0, 11):
        assert np.array_equal(other.batch(step), in_order[step])


def test_seeds_and_names_draw_independent_orders() -> None:
    orders = {
        tuple(Sampler(np.arange(50), 50, seed, name).batch(0))
        for seed in range(3)
        for name in ("", "digits", "strokes")
    }
    assert len(orders) == 9


def test_passes_differ() -> None:
    line = Sampler(np.arange(50), 50, seed=0)
    assert not np.array_equal(line.batch(0), line.batch(1))


def test_a_line_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Sampler(np.arange(0), 4, seed=0)


def batch_source(n: int, size: int, name: str) -> BatchSource:
    inputs = np.arange(n, dtype=np.uint8).reshape(n, 1)
    return BatchSource(inputs, Scaling((0.0,), (2.0,)), {name: np.arange(n)}, [Sampler(np.arange(n), size, 0, name)])


def test_rows_labels_and_computed_values_stay_together() -> None:
    one = batch_source(20, 6, "a")
    one.computed.append(lambda raw: {"seen": raw[:, 0].astype(np.int64)})
    inputs, y = one.batch(3)
    assert np.array_equal(inputs[:, 0] * 2, y["a"])
    assert np.array_equal(y["seen"], y["a"])


def test_several_data_sets_give_one_batch_each_and_the_longest_is_the_epoch() -> None:
    batch_sources = {"long": batch_source(40, 4, "a"), "short": batch_source(6, 4, "b")}
    assert batches.epoch_steps(batch_sources) == 10
    x, y = batches.batch(batch_sources, 9)
    assert {name: len(rows) for name, rows in x.items()} == {"long": 4, "short": 4}
    assert set(y) == {"a", "b"}
    seen = np.concatenate([batches.batch(batch_sources, step)[1]["b"] for step in range(9)])
    assert [int((seen == row).sum()) for row in range(6)] == [6] * 6  # the short one cycles


def test_two_lines_share_a_batch_side_by_side() -> None:
    one = batch_source(30, 4, "a")
    one.samplers = [Sampler(np.arange(10), 4, 0, "labelled"), Sampler(np.arange(10, 30), 4, 0, "free")]
    assert one.steps_per_epoch == 5
    _, y = one.batch(7)
    assert (y["a"][:4] < 10).all()
    assert (y["a"][4:] >= 10).all()


def test_the_rows_of_several_batches_are_read_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    most, plain = [], batch_source(100, 8, "a")

    class Sparing(RowSource):
        shape, dtype = plain.inputs.shape, plain.inputs.dtype

        def take(self, rows: np.ndarray) -> np.ndarray:
            most.append(len(rows))
            return np.asarray(plain.inputs[rows])

    spared = batch_source(100, 8, "a")
    spared.inputs = Sparing()
    monkeypatch.setattr(source, "BLOCK_VALUES", 20)
    (x, y), (x_plain, y_plain) = spared.several(3, 32), plain.several(3, 32)
    assert max(most) == 20
    assert np.array_equal(x, x_plain)
    assert np.array_equal(y["a"], y_plain["a"])
    assert np.array_equal(x, np.stack([plain.batch(step)[0] for step in range(3, 35)]))


# --- batches made ahead


def counted(rows: int = 40) -> tuple[list[int], Any]:
    """A source of pictures that notes which thread asked it."""
    asked: list[int] = []

    class Noted(RowSource):
        shape, dtype = (rows, 4, 4, 1), np.dtype(np.uint8)

        def take(self, numbers: np.ndarray) -> np.ndarray:
            asked.append(threading.get_ident())
            return np.asarray(np.broadcast_to(numbers.reshape(-1, 1, 1, 1), (len(numbers), 4, 4, 1)), np.uint8)

    return asked, Noted()


def test_batches_made_ahead_are_the_same_in_whatever_order_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(steps: Sequence[int]) -> list[np.ndarray]:
        asked, source = counted()
        augment = Augment([Noise(std=0.1)], 3, "set", Scaling((0.0,), (40.0,)))
        labels = {"y": np.arange(40)}
        made = BatchSource(source, Scaling((0.0,), (40.0,)), labels, [Sampler(np.arange(40), 8, 3)], augment=augment)
        parts = [made.batch(step) for step in steps]
        assert all((y["y"].shape, x.shape) == ((8,), (8, 4, 4, 1)) for x, y in parts)
        assert (len(set(asked)) > 1) == (batches.AHEAD_BYTES == 0)
        return [part for x, y in parts for part in (x, y["y"])]

    steps = [0, 1, 2, 0, 1, 2, 3, 7, 8, 30, 4]
    plain = drawn(steps)
    monkeypatch.setattr(batches, "AHEAD_BYTES", 0)
    assert all(map(np.array_equal, plain, drawn(steps)))


def test_a_row_that_cannot_be_read_ahead_is_missed_at_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "AHEAD_BYTES", 0)
    _, source = counted(20)
    sampler = Sampler(np.arange(24), 12, 0)
    monkeypatch.setattr(sampler, "batch", lambda step: np.arange(12) + 12 * step)
    made = BatchSource(source, Scaling(), {"y": np.arange(24)}, [sampler])
    first, _ = made.batch(0)
    assert len(first) == 12
    with pytest.raises(IndexError):
        made.batch(1)
