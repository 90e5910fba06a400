"""Bodies are read strictly, and every fault is named by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.bodies import LONGEST_KEY, MAX_DEPTH, parse
from app.errors import Problem


def test_what_json_can_say_is_read_as_it_is() -> None:
    body = parse(
        '{"a": [1, -2.5e3, true, null, "ü\\u00e9\\ud83d\\ude00"], "b/~": {}, "big": 18446744073709551615}'.encode()
    )
    assert body.faults == []
    assert body.value == {"a": [1, -2500.0, True, None, "üé😀"], "b/~": {}, "big": 2**64 - 1}


@pytest.mark.parametrize(
    ("text", "pointer", "code"),
    [
        ('{"a": {"b": [0, NaN]}}', "/a/b/1", "number"),
        ('{"a": Infinity}', "/a", "number"),
        ('{"a": -Infinity}', "/a", "number"),
        ('{"a": 1e999}', "/a", "number"),
        ('{"a": -1e999}', "/a", "number"),
        ('{"a": 18446744073709551616}', "/a", "number"),
        ('{"a": -9223372036854775809}', "/a", "number"),
        ('{"a": 1' + "0" * 5000 + "}", "/a", "number"),
        ('{"a": "\\ud800"}', "/a", "text"),
        ('{"a": "x\\u0000y"}', "/a", "text"),
        ('{"x~/y": "\\udfff"}', "/x~0~1y", "text"),
        ('{"a": {"\\ud800": 1}}', "/a", "text"),
        ('{"a": {"\\u0000": 1}}', "/a", "text"),
        ('{"a": {"b": 1, "b": 2}}', "/a/b", "duplicate_key"),
        ('{"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "/a" + "/0" * (MAX_DEPTH - 1), "too_deep"),
    ],
)
def test_what_json_lets_through_is_a_fault_with_a_pointer(text: str, pointer: str, code: str) -> None:
    body = parse(text.encode())
    assert [(fault.pointer, fault.code) for fault in body.faults] == [(pointer, code)]
    assert body.faults[0].hint


def test_every_fault_is_found_and_the_rest_kept() -> None:
    body = parse(b'{"a": NaN, "b": "\\u0000", "c": 1, "c": 1e999, "d": 4}')
    assert {fault.pointer for fault in body.faults} == {"/a", "/b", "/c"}
    assert body.value["d"] == 4


def test_a_key_that_no_name_could_be_is_refused_without_being_repeated() -> None:
    """A hundred faults below it would repeat it a hundred times."""
    body = parse(json.dumps({"a": {"k" * (LONGEST_KEY + 1): {}, "k" * LONGEST_KEY: 1}}).encode())
    assert [(fault.pointer, fault.code) for fault in body.faults] == [("/a", "text")]
    assert f"longer than {LONGEST_KEY} characters" in body.faults[0].message
    assert body.value == {"a": {"k" * LONGEST_KEY: 1}}


def test_of_many_faults_a_hundred_are_kept() -> None:
    body = parse(b'{"a": [' + b"NaN, " * 10_000 + b"1]}")
    assert [fault.pointer for fault in body.faults] == [f"/a/{number}" for number in range(100)]
    assert body.value == {"a": [*[None] * 10_000, 1]}


def test_nesting_up_to_the_limit_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse(("[" * depth + "]" * depth).encode()).faults == []


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"  ", id="blanks"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1,}', id="trailing comma"),
        pytest.param(b"nul", id="bare word"),
        pytest.param(b'{"a": 01}', id="leading zero"),
        pytest.param(b'{"a": "\n"}', id="raw newline in a string"),
        pytest.param(b"\xff{}", id="no UTF-8"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b"[" * 100_000, id="100,000 brackets"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b"[" + b"[]," * 1_000_000 + b"[]]", id="a million empty lists"),
    ],
)
def test_what_is_not_json_is_one_problem_without_its_text(raw: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse(raw)
    assert (caught.value.status, caught.value.code) == (400, "malformed_body")
    assert len(caught.value.errors) == 1


finite = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
documents = st.recursive(
    finite | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(documents, st.booleans())
def test_sound_json_comes_back_as_it_was(document: Any, ascii_only: bool) -> None:
    body = parse(json.dumps(document, ensure_ascii=ascii_only).encode())
    assert body.faults == []
    assert body.value == document


@given(
    st.binary(max_size=200)
    | st.text(st.sampled_from('{}[]":,0123456789.eE+-truefalsn\\u \n'), max_size=60).map(str.encode)
)
def test_whatever_comes_is_a_value_or_a_problem(raw: bytes) -> None:
    try:
        value, code = parse(raw).value, "malformed_body"
    except Problem as problem:
        value, code = None, problem.code
    assert code == "malformed_body"
    json.dumps(value, allow_nan=False).encode()
