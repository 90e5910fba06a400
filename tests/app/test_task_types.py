"""Task types as the API knows them: columns, outputs, equal heads, answers; and words that are the names of modules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from app.api import problems
from app.spec import tasks
from app.spec.data import Column, InputSchema
from app.spec.models import TaskManifest, TaskSpec
from app.spec.registered import Registered
from app.spec.registry import NotInstalled
from tests.app.columns import LABELS, NUMBER, THREE, TWO, VECTOR


@pytest.mark.parametrize(
    ("column", "natural", "accepted", "units"),
    [
        (TWO, "binary", {"binary", "embedding", "multiclass"}, 1),
        (THREE, "multiclass", {"embedding", "multiclass"}, 3),
        (NUMBER, "regression", {"regression"}, 1),
        (VECTOR, "regression", {"regression"}, 6),
        (LABELS, "multilabel", {"multilabel"}, 4),
    ],
)
def test_a_column_has_one_natural_type(column: Column, natural: str, accepted: set[str], units: int) -> None:
    assert tasks.natural(column) == natural
    assert {name for name in tasks.names() if tasks.of(name).natural(column)} == {natural}
    assert {name for name in tasks.names() if tasks.of(name).accepts(column)} == accepted
    assert tasks.of(natural).units(column) == units


def head(units: int, classes: list[str] | None, column: str = "c") -> Any:
    return SimpleNamespace(units=units, classes=classes, column=column)


def test_heads_of_classes_are_compared_by_their_names() -> None:
    for name in ("multiclass", "multilabel"):
        order = tasks.of(name).order
        assert order(head(3, ["a", "b", "c"]), head(3, ["c", "a", "b"], "d")) == [1, 2, 0]
        assert order(head(3, ["a", "b", "c"]), head(3, ["a", "b", "d"])) is None


def test_a_binary_head_means_its_second_class() -> None:
    order = tasks.of("binary").order
    assert order(head(1, ["no", "yes"]), head(1, ["no", "yes"], "d")) == [0]
    assert order(head(1, ["no", "yes"]), head(1, ["yes", "no"])) is None


def test_heads_of_numbers_are_compared_by_their_column() -> None:
    order = tasks.of("regression").order
    assert order(head(2, None), head(2, None)) == [0, 1]
    assert order(head(2, None), head(2, None, "d")) is None


def test_heads_of_identities_are_compared_by_their_column_and_have_as_many_numbers_as_asked_for() -> None:
    of = tasks.of("embedding")
    assert of.order(head(2, None), head(2, None)) == [0, 1]
    assert of.order(head(2, None), head(2, None, "d")) is None
    assert of.units(TWO) == of.units(THREE) == 64
    assert [name for name in tasks.names() if tasks.of_identities(name)] == ["embedding"]


@pytest.mark.parametrize(
    ("name", "output", "classes", "said"),
    [
        ("binary", [0.25], ["no", "yes"], {"label": "no", "probability": 0.75, "probabilities": {"no": 0.75, "yes": 0.25}}),
        ("multiclass", [0.25, 0.75], ["a", "b"], {"label": "b", "probability": 0.75, "probabilities": {"a": 0.25, "b": 0.75}}),
        ("multilabel", [0.5, 0.25], ["a", "b"], {"labels": ["a"], "probabilities": {"a": 0.5, "b": 0.25}}),
        ("embedding", [0.6, 0.8], [], {"vector": [0.6, 0.8]}),
        ("regression", [1.5], [], {"value": 1.5}),
        ("regression", [1.5, 2.5], [], {"value": [1.5, 2.5]}),
    ],
)  # fmt: skip
def test_an_answer_has_the_words_and_units_of_the_data(
    name: str, output: list[float], classes: list[str], said: dict[str, Any]
) -> None:
    assert tasks.of(name).prediction(output, classes) == said


def test_an_unknown_type_is_named_with_those_that_are_known() -> None:
    with pytest.raises(
        NotInstalled, match="'ordinal': known are binary, boxes, embedding, multiclass, multilabel, next_token"
    ):
        tasks.of("ordinal")


# --- words that modules bring


class Listed(BaseModel):
    word: Literal["a", "b", "c"] | None = None


class Found(BaseModel):
    word: Annotated[str, Registered(lambda: ["a", "b", "c"])] | None = None


@pytest.mark.parametrize("value", ["d", 3, ["a"], True])
def test_a_registered_word_is_refused_as_a_literal_is(value: object) -> None:
    found = []
    for shape in (Listed, Found):
        with pytest.raises(ValidationError) as refused:
            shape.model_validate({"word": value})
        found.append(refused.value.errors(include_url=False))
    assert found[0] == found[1]


def test_a_registered_word_has_the_schema_of_a_literal_in_both_directions() -> None:
    for mode in ("validation", "serialization"):
        ours, theirs = (shape.model_json_schema(mode=mode) for shape in (Found, Listed))  # type: ignore[arg-type]
        assert ours["properties"] == theirs["properties"]
    assert Found(word="b").model_dump_json() == '{"word":"b"}'


def test_what_was_stored_may_name_a_module_that_has_gone() -> None:
    assert TaskManifest(type="ordinal", column="c", units=2).type == "ordinal"
    assert InputSchema(kind="signal", shape=[4]).kind == "signal"
    with pytest.raises(ValidationError):
        TaskManifest(type=3, column="c", units=2)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        TaskSpec(type="ordinal")
    answer = problems.of(NotInstalled("there is no task type 'ordinal'"))
    assert (answer.status, answer.code) == (422, "not_available")
    assert answer.errors[0].hint == "install the plugin that brings it"


def test_the_types_of_a_task_are_the_modules_there_are() -> None:
    schema = TaskSpec.model_json_schema()["properties"]["type"]
    assert (
        schema["anyOf"][0]["enum"]
        == ["binary", "boxes", "embedding", "multiclass", "multilabel", "next_token", "regression", "tags"]
        == tasks.names()
    )
