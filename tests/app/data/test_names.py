"""One definition of what may be a name, whatever it names."""

from __future__ import annotations

import re

import pytest

from app.data import names
from app.spec.base import JobSpec, fault_in_name
from app.spec.faults import Invalid, validate

UNSOUND = {
    "": "empty",
    "  ": "empty",
    "a" * 129: "longer than 128",
    "a\tb": "character 2 of the name is a control character",
    "a\x9bb": "character 2 of the name is a control character",
    "\u202eabc": "character 1 of the name is a format character",
    "ab\u200b": "character 3 of the name is a format character",
    "a\u2066b": "a format character",
    "a\u00adb": "a format character",
    "a\ud800": "half a character",
    "a\ue000": "a private character",
    "a\U0003fffe": "an unassigned character",
    "a\u2028b": "a line separator",
    "a\u00a0b": "a blank other than U+0020",
    "\u3164": "an invisible character",
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_name_that_cannot_be_printed_is_refused_for_whatever_it_names(name: str) -> None:
    reason = fault_in_name(name)
    assert reason is not None
    assert UNSOUND[name] in reason
    assert names.fault_in_name(name) == reason
    label = names.fault_in_label(name, "name")
    assert label is not None
    assert label.message == reason
    with pytest.raises(Invalid) as refused:
        validate(JobSpec, {"kind": "light", "name": name})
    assert [fault.pointer for fault in refused.value.faults] == ["/name"]


@pytest.mark.parametrize("name", ["a", "größe", "petal length (cm)", "日本語", "क्ष", "🙂", "e\u0301", "<b>@x #1"])
def test_what_people_write_is_a_name_as_it_comes(name: str) -> None:
    assert fault_in_name(name) is None
    assert validate(JobSpec, {"kind": "light", "name": name}).name == name


def test_the_published_pattern_allows_every_name() -> None:
    pattern = JobSpec.model_json_schema()["properties"]["name"]["anyOf"][0]["pattern"]
    assert re.fullmatch(pattern, "petal length (cm)")
    assert not [name for name in ("", " ", "a\tb", "a\x9bb") if re.fullmatch(pattern, name)]
