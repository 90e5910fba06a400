from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from app.data import Split, Table, builtins, limit, limit_labels, limit_validation, split, split_faults
from app.data.splits import count_common
from app.data.table import among, describe, row_hashes
from app.spec.data import Feature, InputSchema, PerClass, Schema, SplitSpec
from app.spec.faults import Invalid
from tests.app.data.memory import most_allocated


def table_of(inputs: np.ndarray, **columns: tuple[np.ndarray, list[str] | None]) -> Table:
    shape = InputSchema(
        kind="table", shape=[inputs.shape[1]], features=[Feature(column=f"x{k}") for k in range(inputs.shape[1])]
    )
    described = {name: describe(name, values, classes) for name, (values, classes) in columns.items()}
    schema = Schema(rows=len(inputs), input=shape, columns=described, target=next(iter(columns)))
    return Table(inputs, {name: values for name, (values, _) in columns.items()}, row_hashes(inputs), schema)


def classes(*counts: int, missing: int = 0, seed: int = 0) -> Table:
    """Rows that are all different, so many of each class, in a random order."""
    codes = np.repeat(np.arange(-1, len(counts)), [missing, *counts]).astype(np.int32)
    codes = np.random.default_rng(seed).permutation(codes)
    inputs = np.arange(len(codes) * 2, dtype=np.float32).reshape(-1, 2)
    return table_of(inputs, kind=(codes, [f"c{code}" for code in range(len(counts))]))


def parts(drawn: Split) -> list[np.ndarray]:
    return [drawn.train, drawn.validation, drawn.test]


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "diabetes"])
@pytest.mark.parametrize("by", ["stratified", "random"])
def test_every_row_is_in_one_part_and_the_shares_are_kept(name: str, by: str) -> None:
    table = builtins.load(name)
    drawn = split(table, SplitSpec.model_validate({"by": by, "seed": 4}), [table.schema.target or ""])
    everything = np.concatenate(parts(drawn))
    assert np.array_equal(np.sort(everything), np.arange(len(table)))
    for rows, share in zip(parts(drawn), (0.7, 0.1, 0.2), strict=True):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert abs(len(rows) - share * len(table)) <= 2


def test_each_class_has_its_share_of_each_part_to_within_a_row() -> None:
    table = classes(500, 37, 12, 101, missing=23)
    drawn = split(table, SplitSpec(seed=1), ["kind"])
    codes = table.columns["kind"]
    for code, count in zip(range(-1, 4), (23, 500, 37, 12, 101), strict=True):
        for rows, share in zip(parts(drawn), (0.7, 0.1, 0.2), strict=True):
            assert abs((codes[rows] == code).sum() - share * count) <= 2, (code, share)


def test_a_split_is_drawn_by_its_seed_alone() -> None:
    table = builtins.load("digits")
    once, again, other = (split(table, SplitSpec(seed=seed), ["digit"]) for seed in (3, 3, 4))
    assert np.array_equal(once.test, again.test)
    assert not np.array_equal(once.test, other.test)


def copied(rows: int) -> Table:
    """Some inputs stand there several times, with another class or group."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 2 * rows, (rows, 1)).astype(np.float32)
    who = rng.integers(-1, rows, rows).astype(np.int32)
    return table_of(
        inputs,
        kind=(rng.integers(-1, 5, rows).astype(np.int32), list("abcde")),
        who=(who, [f"g{number}" for number in range(rows)]),
    )


@pytest.mark.parametrize(
    ("by", "expected"),
    [("stratified", "cb4b65432d9b698c"), ("random", "e2ca2bb5cf071fa6"), ("group", "46bf5e5ce0348d5f")],
)
def test_a_seed_s_split_is_the_same_in_every_release(by: str, expected: str) -> None:
    """A job that is resumed draws its split anew, and a kept model is compared on the same test rows."""
    column = "who" if by == "group" else None
    drawn = split(copied(900), SplitSpec.model_validate({"by": by, "column": column, "seed": 3}), ["kind"])
    assert hashlib.sha256(b"".join(rows.tobytes() for rows in parts(drawn))).hexdigest()[:16] == expected


def test_a_split_takes_a_bounded_number_of_bytes_a_row() -> None:
    """The API makes one for each submission, a trainer of millions of rows beside all else."""
    n = 300_000
    table = classes(n // 2, n - n // 2)
    assert most_allocated(lambda: split(table, SplitSpec(), ["kind"])) < 85 * n


@pytest.mark.parametrize("by", ["stratified", "random"])
def test_equal_inputs_stand_on_one_side(by: str) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((60, 3)).astype(np.float32)[rng.integers(0, 60, 400)]
    table = table_of(inputs, kind=(rng.integers(0, 2, 400).astype(np.int32), ["a", "b"]))
    for seed in range(5):
        drawn = split(table, SplitSpec.model_validate({"by": by, "seed": seed}), ["kind"])
        sides = [{row.tobytes() for row in inputs[rows]} for rows in parts(drawn)]
        assert sides[0].isdisjoint(sides[1] | sides[2])
        assert sides[1].isdisjoint(sides[2])
        assert not among(table.hashes[drawn.train], table.hashes[drawn.test]).any()


def test_rows_of_equal_value_stay_together_through_any_chain() -> None:
    rng = np.random.default_rng(1)
    group = rng.permutation(300).astype(np.int32) % 40
    group[:30] = -1  # no group: each on its own
    inputs = np.arange(600, dtype=np.float32).reshape(300, 2)
    first, second = (np.flatnonzero(group == number)[0] for number in (3, 7))
    inputs[first] = inputs[second]  # joins groups 3 and 7
    kind = rng.integers(0, 2, 300).astype(np.int32)
    table = table_of(inputs, kind=(kind, ["a", "b"]), who=(group, [f"g{number}" for number in range(40)]))
    drawn = split(table, SplitSpec(by="group", column="who", seed=2), ["kind"])
    part_of = np.empty(300, int)
    for number, rows in enumerate(parts(drawn)):
        part_of[rows] = number
    for number in range(40):
        assert len(set(part_of[group == number])) == 1
    assert set(part_of[group == 3]) == set(part_of[group == 7])
    assert len(set(part_of[:30])) == 3


def test_a_column_may_name_the_parts() -> None:
    names = ["test", "train", "validation"]
    part = (np.arange(90) % 3).astype(np.int32)
    inputs = np.arange(180, dtype=np.float32).reshape(90, 2)
    kind = (np.arange(90) // 3 % 2).astype(np.int32)
    table = table_of(inputs, kind=(kind, ["a", "b"]), part=(part, names))
    drawn = split(table, SplitSpec(by="column", column="part"), ["kind"])
    assert np.array_equal(drawn.test, np.flatnonzero(part == 0))
    assert np.array_equal(drawn.train, np.flatnonzero(part == 1))
    assert np.array_equal(drawn.validation, np.flatnonzero(part == 2))

    inputs[1] = inputs[0]
    torn = table_of(inputs, kind=(kind, ["a", "b"]), part=(part, names))
    with pytest.raises(Invalid, match="2 rows have an input that another part holds too"):
        split(torn, SplitSpec(by="column", column="part"), ["kind"])


def in_time(when: np.ndarray, inputs: np.ndarray | None = None) -> Table:
    rows = np.arange(2 * len(when), dtype=np.float32).reshape(-1, 2) if inputs is None else inputs
    kind = np.random.default_rng(2).integers(2, size=len(when)).astype(np.int32)
    return table_of(rows, kind=(kind, ["a", "b"]), when=(when.astype(np.float32), None))


BY_TIME = SplitSpec(by="time", column="when")


def test_by_time_the_latest_rows_test_and_those_before_them_validate() -> None:
    days = np.random.default_rng(2).permutation(np.repeat(np.arange(50), 4))
    drawn = split(in_time(days), BY_TIME, ["kind"])
    assert [len(rows) for rows in parts(drawn)] == [140, 20, 40]
    assert days[drawn.train].max() < days[drawn.validation].min()
    assert days[drawn.validation].max() < days[drawn.test].min()
    again = split(in_time(days), SplitSpec(by="time", column="when", seed=9), ["kind"])
    assert np.array_equal(drawn.test, again.test)


def test_by_time_equal_inputs_count_as_of_their_last_time() -> None:
    inputs = np.arange(200, dtype=np.float32).reshape(-1, 2)
    inputs[3] = inputs[99]
    assert {3, 99} <= set(split(in_time(np.arange(100), inputs), BY_TIME, ["kind"]).test.tolist())


def test_by_time_every_row_needs_a_number_and_not_all_the_same() -> None:
    when = np.arange(100.0)
    when[[5, 8]] = np.nan
    with pytest.raises(Invalid, match="2 rows have no value in 'when'"):
        split(in_time(when), BY_TIME, ["kind"])
    with pytest.raises(Invalid, match="no train row"):
        split(in_time(np.ones(100)), BY_TIME, ["kind"])
    (fault,) = split_faults(in_time(when).schema, SplitSpec(by="time", column="kind"), ["when"])
    assert (fault.pointer, "targets=kind:date" in str(fault.hint)) == ("/split/column", True)


def test_rows_without_any_label_belong_to_a_part_too() -> None:
    table = classes(100, 100, missing=100)
    drawn = split(table, SplitSpec(), ["kind"])
    unlabelled = np.flatnonzero(table.columns["kind"] == -1)
    assert [np.isin(rows, unlabelled).sum() for rows in parts(drawn)] == [70, 10, 20]


def test_a_rare_class_still_reaches_training_and_test() -> None:
    table = classes(1000, 2)
    for seed in range(10):
        drawn = split(table, SplitSpec(seed=seed), ["kind"])
        assert (table.columns["kind"][drawn.train] == 1).sum() == 1
        assert (table.columns["kind"][drawn.test] == 1).sum() == 1


def test_a_class_of_one_row_is_refused_by_name_before_any_row_is_read() -> None:
    table = classes(100, 1)
    faults = split_faults(table.schema, SplitSpec(), ["kind"])
    assert [(fault.pointer, fault.code) for fault in faults] == [("/split", "split_leaves_none")]
    assert "'c1'" in faults[0].message
    with pytest.raises(Invalid, match="'c1'"):
        split(table, SplitSpec(), ["kind"])


def test_a_task_without_labels_in_a_part_is_refused() -> None:
    table = classes(50, 50)
    number = np.full(100, np.nan, np.float32)
    number[split(table, SplitSpec(), ["kind"]).train[0]] = 1.0
    both = Table(
        table.inputs,
        table.columns | {"size": number},
        table.hashes,
        table.schema.model_copy(update={"columns": table.schema.columns | {"size": describe("size", number)}}),
    )
    with pytest.raises(Invalid) as refused:
        split(both, SplitSpec(), ["kind", "size"])
    assert [fault.message for fault in refused.value.faults] == [
        "no validation row has a value in 'size'",
        "no test row has a value in 'size'",
    ]


def test_every_fault_of_a_split_is_named_at_once() -> None:
    schema = builtins.schema("digits")
    faults = split_faults(schema, SplitSpec(by="group", column="digitt"), ["odd", "oddd"])
    assert [(fault.pointer, str(fault.hint)) for fault in faults] == [
        ("/split", "did you mean 'odd'?"),
        ("/split/column", "did you mean 'digit'?"),
    ]
    (fault,) = split_faults(schema, SplitSpec(by="column", column="odd"), ["digit"])
    assert "train, validation, test" in fault.message


def test_limits_are_nested_and_drawn_by_the_seed() -> None:
    table = builtins.load("digits")
    train = split(table, SplitSpec(), ["digit"]).train
    before: set[int] = set()
    for n in (1, 10, 50, 200, 1000, 5000):
        now = set(limit(table, train, n, "digit", seed=7).tolist())
        assert len(now) == min(n, len(train))
        assert before <= now <= set(train.tolist())
        before = now
    for smaller, larger in ((1, 5), (5, 20)):
        few, more = (limit(table, train, PerClass(per_class=n), "digit", seed=7) for n in (smaller, larger))
        assert set(few) <= set(more)
        assert np.bincount(table.columns["digit"][more]).tolist() == [larger] * 10
    assert not np.array_equal(limit(table, train, 50, "digit", seed=7), limit(table, train, 50, "digit", seed=8))
    assert np.array_equal(limit(table, train, 50, "digit", seed=7), limit(table, train[::-1], 50, "digit", seed=7))


def test_a_limited_draw_holds_the_classes_in_proportion() -> None:
    table = classes(600, 300, 100, missing=500)
    rows = np.arange(1500)
    for n in (10, 50, 100):
        counts = np.bincount(table.columns["kind"][limit(table, rows, n, "kind", seed=1)], minlength=3)
        assert np.abs(counts - n * np.array([0.6, 0.3, 0.1])).max() <= 1
    anything = limit(table, rows, 300, None, seed=1)
    assert (table.columns["kind"][anything] == -1).sum() > 50


def test_no_limit_is_every_row() -> None:
    table = builtins.load("iris")
    assert np.array_equal(limit(table, np.array([3, 1, 2]), None, "class", 0), [1, 2, 3])


def test_per_class_needs_classes() -> None:
    table = builtins.load("diabetes")
    with pytest.raises(Invalid, match="per_class needs a target of classes"):
        limit(table, np.arange(100), PerClass(per_class=5), "progression", 0)


def test_validation_is_cut_in_proportion() -> None:
    table = builtins.load("digits")
    drawn = split(table, SplitSpec(), ["digit"])
    limited = limit(table, drawn.train, 126, "digit", seed=0)
    validation = limit_validation(table, drawn, limited, 126, "digit", seed=0)
    assert len(validation) == round(len(drawn.validation) * 126 / len(drawn.train))
    assert set(validation) <= set(drawn.validation)

    few = PerClass(per_class=5)
    validation = limit_validation(table, drawn, limit(table, drawn.train, few, "digit", 0), few, "digit", seed=0)
    assert np.bincount(table.columns["digit"][validation]).tolist() == [1] * 10
    assert np.array_equal(limit_validation(table, drawn, drawn.train, None, "digit", 0), drawn.validation)


def test_limited_labels_are_nested_in_proportion_and_only_of_labelled_rows() -> None:
    table = classes(600, 300, missing=100)
    rows = np.random.default_rng(0).permutation(1000)[:700]
    values = table.columns["kind"]
    before = np.zeros(700, bool)
    for n in (1, 30, 90, 400):
        kept = limit_labels(rows, values, n, seed=3)
        assert kept.sum() == n
        assert (values[rows[kept]] >= 0).all()
        assert (kept | before == kept).all()
        before = kept
    assert np.array_equal(limit_labels(rows, values, None, 3), values[rows] >= 0)
    counts = np.bincount(values[rows[limit_labels(rows, values, 90, 3)]])
    assert abs(counts[0] - 60) <= 5


def test_one_seed_draws_examples_and_labels_independently() -> None:
    table = classes(500, 500)
    rows = np.arange(1000)
    examples = set(limit(table, rows, 300, "kind", seed=5))
    labels = set(np.flatnonzero(limit_labels(rows, table.columns["kind"], 300, seed=5)))
    assert 50 < len(examples & labels) < 130  # 90 expected


def test_common_rows_are_counted_from_a_models_file(tmp_path: Path) -> None:
    table = builtins.load("digits")
    one, other = (split(table, SplitSpec(seed=seed), ["digit"]) for seed in (0, 1))
    np.save(tmp_path / "rows.npy", table.hashes[one.train])
    assert count_common(table.hashes[one.test], tmp_path / "rows.npy") == 0
    assert count_common(table.hashes[other.test], tmp_path / "rows.npy") == len(np.intersect1d(one.train, other.test))
