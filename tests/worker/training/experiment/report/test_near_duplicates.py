"""What a report says of test rows that have a twin among the training rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import data as datasets
from app.data import near
from app.data.inputs import text
from app.data.table import row_hashes
from app.spec.data import SplitSpec
from app.spec.report.near_duplicates import NearDuplicates
from worker.training.data.rows import Data
from worker.training.experiment.report import near_duplicates as module
from worker.training.experiment.report.near_duplicates import near_duplicates, warning


def made(ref: str, inputs: np.ndarray | None = None, sha256: str | None = None) -> Data:
    table = datasets.load(ref)
    if inputs is not None:
        table = replace(table, inputs=inputs, hashes=row_hashes(inputs))
    return Data(ref, table, datasets.split(table, SplitSpec(by="random"), []), {}, sha256)


def entry(data: Data, cache: Path | None = None) -> NearDuplicates:
    """As the report has it, which its model describes."""
    found = near_duplicates(data, cache, lambda: None)
    assert found is not None
    return NearDuplicates.model_validate(found)


def with_twins(number: int) -> tuple[Data, np.ndarray, np.ndarray]:
    """Digits of which the first test rows are training rows, a little brighter."""
    inputs = datasets.load("digits").inputs[np.arange(1797)].copy()
    split = made("digits").split
    test, train = split.test[:number], split.train[-number:]
    inputs[test] = np.rint(inputs[train] * 0.8 + 20)
    return replace(made("digits", inputs), split=split), test, train


def test_planted_twins_are_counted_and_named_by_their_rows() -> None:
    data, test, train = with_twins(12)
    found = entry(data)
    assert (found.rows, found.test_rows, found.train_rows) == (12, len(data.split.test), len(data.split.train))
    assert found.share == pytest.approx(12 / found.test_rows)
    assert {(pair.test, pair.train) for pair in found.examples} <= set(zip(test.tolist(), train.tolist(), strict=True))
    assert len(found.examples) == 10
    assert entry(made("digits")).rows == 0


def test_a_reader_is_warned_where_they_are_more_than_one_in_a_hundred() -> None:
    data, test, train = with_twins(12)
    sentence = warning("digits", near_duplicates(data, None, lambda: None) or {})
    assert sentence is not None
    assert f"12 of {len(data.split.test)} test rows of digits" in sentence
    assert f"row {test[0]} does row {train[0]}" in sentence
    assert '"split": {"by": "group"' in sentence
    assert warning("digits", near_duplicates(with_twins(2)[0], None, lambda: None) or {}) is None


def test_a_validation_row_is_on_neither_side() -> None:
    data, _, train = with_twins(5)
    split = replace(data.split, train=np.setdiff1d(data.split.train, train), validation=np.sort(train))
    assert entry(replace(data, split=split)).rows == 0


def test_tables_and_a_part_without_rows_have_no_entry() -> None:
    assert near_duplicates(made("wine"), None, lambda: None) is None
    data = made("digits")
    none = replace(data.split, test=np.zeros(0, np.int64))
    assert near_duplicates(replace(data, split=none), None, lambda: None) is None


def test_of_a_large_data_set_evenly_spaced_rows_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 600)
    data = made("digits")
    found = entry(data)
    every = np.arange(600) * 1797 // 600
    assert found.test_rows == len(np.intersect1d(every, data.split.test)) < len(data.split.test)
    assert found.train_rows == len(np.intersect1d(every, data.split.train))


def test_what_took_long_is_kept_for_other_splits_of_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made("messages", sha256="ab" * 32)
    cache = tmp_path / "near"
    first = entry(data, cache)
    assert first.rows > 0
    assert not cache.exists(), "that was quick"
    monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
    entry(replace(data, sha256=None), cache)
    assert not cache.exists(), "a built-in data set has no sha256"
    entry(data, cache)
    (file,) = cache.iterdir()
    assert file.name == f"{'ab' * 32}-text-{near.VERSION}.npy"
    monkeypatch.setattr(text, "fingerprints", lambda *_: pytest.fail("it was kept"))
    assert entry(data, cache) == first
    other = replace(data, split=replace(data.split, test=data.split.validation))
    assert entry(other, cache).test_rows == len(data.split.validation)


def test_a_broken_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
    data = made("messages", sha256="cd" * 32)
    first = entry(data, tmp_path)
    (file,) = tmp_path.iterdir()
    for content in (b"", b"rubbish", file.read_bytes()[:-9]):
        file.write_bytes(content)
        assert entry(data, tmp_path) == first
    np.save(file, np.zeros((3, 128), np.uint16))
    assert entry(data, tmp_path) == first, "of other rows"
    (tmp_path / "no").write_bytes(b"")
    assert entry(data, tmp_path / "no") == first, "a cache that cannot be written"


def test_a_job_that_is_to_stop_stops() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        near_duplicates(made("messages"), None, stop)
