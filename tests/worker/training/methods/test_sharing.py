"""The words of a sharing, wherever they stand: defaults, faults with their places, limits, and what cannot be inherited. No Keras."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from app.spec import architectures
from app.spec.base import plain
from app.spec.registry import modules
from app.spec.trace import Trace, TracedLayer
from tests.traces import traced
from tests.worker.training.methods.resolving import MODEL, Lookup, faults, resolve
from worker.training import sharing

JOB: dict[str, Any] = {
    "kind": "multitask",
    "dataset": "digits",
    "tasks": {"digit": {}, "odd": {}, "at_least_5": {}},
    "trunk": {"arch": "cnn", "filters": [4, 8], "dense": 16},
}


def drawn(words: dict[str, Any], trunk: Any = JOB["trunk"], shape: Any = (28, 28, 1)) -> sharing.Graph:
    spec = modules("sharing")[words["name"]].Spec(**words)
    return sharing.graph(spec, traced(architectures.resolve(trunk), shape), ["digit", "odd", "at_least_5"])


@pytest.mark.parametrize("name", sorted(modules("sharing")))
def test_each_example_resolves_and_a_resolved_spec_resolves_to_itself(name: str) -> None:
    example = modules("sharing")[name].EXAMPLE
    once = plain(resolve({**JOB, "sharing": example}))
    assert once["sharing"].items() >= example.items()
    assert plain(resolve(once)) == once
    assert resolve({**JOB, "sharing": name}).sharing.name == name


def test_numbers_of_a_sharing_may_stand_beside_it() -> None:
    spec = resolve({**JOB, "sharing": "cgc", "experts": 3, "experts_per_task": 2})
    assert plain(spec.sharing) == {"name": "cgc", "experts": 3, "experts_per_task": 2}
    assert (spec.experts, spec.experts_per_task) == (None, None)
    assert resolve({**JOB, "sharing": {"name": "mmoe", "experts": 3}, "experts": 3}).sharing.experts == 3
    assert plain(resolve(JOB).sharing) == {"name": "hard_sharing"}


@pytest.mark.parametrize(
    ("words", "at", "says"),
    [
        ({"sharing": "mmo"}, "/sharing", "did you mean 'mmoe'?"),
        ({"sharing": {"name": "mmo"}}, "/sharing/name", "did you mean 'mmoe'?"),
        ({"sharing": {"experts": 2}}, "/sharing/name", "expected the name"),
        ({"sharing": {"name": "mmoe", "expert": 2}}, "/sharing/expert", "unknown field"),
        ({"sharing": "mmoe", "experts": 99}, "/experts", "32"),
        ({"sharing": {"name": "mmoe", "experts": 0}}, "/sharing/experts", "1"),
        ({"sharing": {"name": "mmoe", "experts": 2}, "experts": 3}, "/experts", "`sharing` says 2"),
        ({"sharing": "mmoe", "experts_per_task": 2}, "/experts_per_task", "unknown field"),
        ({"experts": 2}, "/experts", "unknown field"),
        ({"sharing": "cgc", "experts": 0, "experts_per_task": 0}, "/experts", "at least one"),
        ({"sharing": {"name": "ple", "levels": 4}}, "/sharing/levels", "at most 3"),
        ({"sharing": "ple", "dataset": "wine", "tasks": {"class": {}}, "trunk": {"arch": "mlp", "units": [8]}}, "/sharing", "at most 1"),
        ({"sharing": "cross_stitch", "tasks": {"digit": {}}}, "/sharing", "hard_sharing"),
        ({"sharing": "cgc", "experts": 0, "weighting": "pcgrad"}, "/weighting", "share nothing"),
        ({"sharing": "cgc", "experts": 0, "weighting": {"name": "mgda"}}, "/weighting/name", "share nothing"),
        ({"sharing": "mmoe", "experts": 32, "trunk": {"arch": "cnn", "filters": [64, 128], "dense": 1024}}, "/trunk", "more than"),
        ({"sharing": "ple", "experts": 32, "trunk": {"arch": "cnn", "filters": [4, 4, 4], "batch_norm": True, "dense": 4},
          "experts_per_task": 8, "tasks": {f"t{n}": {"column": "odd"} for n in range(20)}}, "/sharing", "layers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_where_it_was_written(words: dict[str, Any], at: str, says: str) -> None:
    found = faults({**JOB, **words})
    assert set(found) == {at}
    assert says in found[at]


def test_all_that_is_wrong_is_named_at_once() -> None:
    found = faults({**JOB, "sharing": "mmoe", "experts": 99, "weighting": "equall", "trunk": "cnnn"})
    assert set(found) == {"/experts", "/weighting", "/trunk"}


def test_parameters_of_experts_gates_and_stitches_are_counted() -> None:
    trunk = traced(architectures.resolve(JOB["trunk"]), (28, 28, 1)).parameters
    gate = prod((28, 28, 1))
    assert drawn({"name": "hard_sharing"}).parameters == trunk
    assert drawn({"name": "mmoe", "experts": 3}).parameters == 3 * trunk + 3 * 3 * gate
    assert drawn({"name": "mmoe", "experts": 1}).parameters == trunk
    assert drawn({"name": "cgc", "experts": 2, "experts_per_task": 1}).parameters == 5 * trunk + 3 * 3 * gate
    # After conv1 with its pooling, conv2 and dense1: one α for each tower, channel and task.
    assert drawn({"name": "cross_stitch"}).parameters == 3 * trunk + 3 * 3 * (4 + 8 + 16)
    assert drawn({"name": "cross_stitch", "per": "layer"}).parameters == 3 * trunk + 3 * 3 * 3
    # The second level's gates stand on what the first one's gave, 11×11×8 numbers after conv1, pool1 and conv2.
    ple = drawn({"name": "ple", "levels": 2})
    assert ple.parameters == 4 * trunk + (3 * 2 + 4) * gate + 3 * 2 * (11 * 11 * 8)


def test_no_layer_of_a_sharing_takes_a_name_that_a_task_may_have() -> None:
    names = ["experts", "expert1", "stitch1", "level2", "shared", "shared_by_all", "gate", "all"]
    for name in modules("sharing"):
        assert set(resolve({**JOB, "sharing": name, "tasks": {one: {"column": "odd"} for one in names}}).tasks) == set(
            names
        )


def test_a_tower_or_expert_may_end_in_maps() -> None:
    """Heads are given flat numbers in any case."""

    more: dict[str, Any] = {"parameters": 20, "kernel": True, "adaptable": True}
    conv = TracedLayer(name="conv1", kind="Conv2D", shape=[10, 10, 2], after=["input"], drawn_as="conv1", **more)
    more = {"parameters": 0, "kernel": False, "adaptable": False}
    model_cache = TracedLayer(
        name="pool1", kind="MaxPooling2D", shape=[5, 5, 2], after=["conv1"], drawn_as="pool1", **more
    )
    maps = Trace(input=[12, 12, 1], layers=[conv, model_cache])
    for name, module in modules("sharing").items():
        words = module.Spec(**({"levels": 1} if name == "ple" else {}))
        graph = sharing.graph(words, maps, ["a", "b"])
        shapes = {node.name: node.shape for node in graph.nodes}
        assert {shapes[node] for node in graph.features.values()} == {(50,)}


def test_a_model_of_experts_is_no_source_and_no_student_but_a_teacher() -> None:
    lookup = Lookup(sharing={"name": "mmoe", "experts": 2})
    transfer = {"kind": "transfer", "dataset": "digits", "source": MODEL}
    assert "mmoe" in faults(transfer, lookup)["/source"]
    distillation = {"kind": "distillation", "dataset": "digits", "teacher": MODEL}
    assert resolve({**distillation, "student": "cnn-small"}, lookup).objectives[0].type == "logits"
    assert set(faults({**distillation, "student": MODEL}, lookup)) == {"/student"}
    assert "/student_init" in faults({**distillation, "student": "cnn-small", "student_init": "from_teacher"}, lookup)
    assert "mmoe" in faults({**distillation, "objectives": [{"type": "attention"}]}, lookup)["/objectives/0/type"]


def test_a_model_that_shares_in_an_unknown_way_is_refused() -> None:
    body = {"kind": "distillation", "dataset": "digits", "teacher": MODEL}
    assert "not known here" in faults(body, Lookup(sharing={"name": "from_a_plugin"}))["/teachers/0"]


def test_a_student_of_experts_learns_from_logits_and_not_from_layers() -> None:
    taught = {**JOB, "tasks": {"digit": {"teacher": MODEL}, "odd": {}}, "trunk": "cnn-small", "sharing": "mmoe"}
    assert resolve(taught).tasks["digit"].objectives[0].type == "logits"
    found = faults({**taught, "objectives": [{"type": "attention"}]})
    assert "mmoe" in found["/objectives/0/type"]
