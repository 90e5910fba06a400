from __future__ import annotations

import time

import numpy as np
import pytest

from app.data import builtins
from app.data.encode import encode_rows
from app.spec.data import Feature, InputSchema
from app.spec.faults import Invalid

TABLE = InputSchema(
    kind="table",
    shape=[3],
    features=[Feature(column="age"), Feature(column="job", equals="cook"), Feature(column="job", equals="smith")],
)
PICTURE = InputSchema(kind="image", shape=[2, 3, 1], scale=255.0)


def found(rows: list[object], shape: InputSchema) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        encode_rows(rows, shape)
    return {fault.pointer: fault.message for fault in refused.value.faults}


def test_pictures_are_taken_with_and_without_their_channel() -> None:
    digits = builtins.load("digits")
    some = digits.inputs[:5]
    for rows in (some.tolist(), some[..., 0].tolist()):
        encoded = encode_rows(rows, digits.schema.input)
        assert encoded.dtype == np.float32
        assert np.array_equal(encoded, some)


def test_tables_are_taken_as_vectors_and_as_objects() -> None:
    rows: list[object] = [[30, 1, 0], {"age": 41.5, "job": "smith"}]
    assert encode_rows(rows, TABLE).tolist() == [[30, 1, 0], [41.5, 0, 1]]


def test_colour_needs_all_its_channels() -> None:
    colour = InputSchema(kind="image", shape=[1, 2, 3], scale=255.0)
    assert encode_rows([[[[1, 2, 3], [4, 5, 6]]]], colour).shape == (1, 1, 2, 3)
    assert list(found([[[1, 2]]], colour)) == ["/0/0/0", "/0/0/1"]


def test_rows_of_words_take_no_time_for_each_word_that_they_do_not_hold() -> None:
    columns = {f"c{column}": [f"w{word}" for word in range(1000)] for column in range(4)}
    features = [Feature(column=column, equals=word) for column, words in columns.items() for word in words]
    shape = InputSchema(kind="table", shape=[4000], features=features)
    rows: list[object] = [dict.fromkeys(columns, f"w{row * 7 % 1000}") for row in range(1024)]
    before = time.thread_time()
    encoded = encode_rows(rows, shape)
    assert time.thread_time() - before < 0.25  # it takes 0.01, and with a look at every word 1.2
    assert np.array_equal(np.flatnonzero(encoded[3]), [21, 1021, 2021, 3021])
    assert (encoded.sum(axis=1) == 4).all()


def test_a_large_body_of_pictures_takes_no_step_of_python_for_each_number() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 28, 28))
    rows = pixels.tolist()
    before = time.thread_time()
    encoded = encode_rows(rows, InputSchema(kind="image", shape=[28, 28, 1], scale=255.0))
    assert time.thread_time() - before < 0.5  # it takes 0.07, and with a step for each number 1.0
    assert np.array_equal(encoded[..., 0], pixels)


@pytest.mark.parametrize("wrong", [True, None, "1", [1], {}, 1e39, -1e39, float("nan"), float("inf"), 10**400])
def test_one_number_that_is_none_is_found_among_good_ones(wrong: object) -> None:
    assert list(found([[1, 2.5, 3], [1, 2.5, wrong]], TABLE)) == ["/1/2"]


def test_every_fault_is_named_at_its_place() -> None:
    good = [[0, 1, 2], [3, 4, 5]]
    rows: list[object] = [
        good,
        [[0, 1], [3, 4, 5]],
        [[0, True, "x"], [None, float("nan"), -1]],
        "picture",
        [good, good, good],
    ]
    assert set(found(rows, PICTURE)) == {
        "/1/0",
        "/2/0/1",
        "/2/0/2",
        "/2/1/0",
        "/2/1/1",
        "/2/1/2",
        "/3",
        "/4",
    }


def test_every_fault_of_a_table_is_named_at_its_place() -> None:
    rows: list[object] = [
        {"agee": 1, "job": "cook"},
        {"age": "1", "job": "smit"},
        {"age": 1, "job": 2},
        [1, 2],
        [1, 10**400, 0],
        7,
        None,
    ]
    assert set(found(rows, TABLE)) == {
        "/0/agee",
        "/0/age",
        "/1/age",
        "/1/job",
        "/2/job",
        "/3",
        "/4/1",
        "/5",
        "/6",
    }


def test_pixels_beyond_their_range_are_refused_but_floats_are_free() -> None:
    assert found([[[0, 1, 256], [0, 0, 0]]], PICTURE) == {"/0/0/2": "expected a pixel of 0 to 255"}
    free = InputSchema(kind="image", shape=[1, 2, 1], scale=1.0)
    assert encode_rows([[[-3.5, 2]]], free).reshape(-1).tolist() == [-3.5, 2]


def test_faults_are_at_most_a_hundred_however_much_is_wrong() -> None:
    rows: list[object] = [[["x"] * 3] * 2] * 1000
    assert len(found(rows, PICTURE)) == 100


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    assert set(found([deep], TABLE)) == {"/0"}
