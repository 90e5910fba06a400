"""The map of a trunk, and the node of a shared graph that a head on it reads."""

from __future__ import annotations

import pytest

from app.spec import architectures
from app.spec.faults import Invalid, validate
from app.spec.registry import modules
from worker.training import sharing
from worker.training.networks import trunk

PICTURE, TEXT = (32, 32, 3), (64,)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "shape", "places"),
    [
        ("resnet-8", PICTURE, (8, 8)),
        ("wrn-10-1", PICTURE, (8, 8)),
        ("cnn", PICTURE, (4, 4)),
        ("vit-tiny", PICTURE, (64,)),
        ("text-encoder", TEXT, (16,)),
    ],
)
def test_the_map_is_what_the_first_pooling_is_given(
    name: str, shape: tuple[int, ...], places: tuple[int, ...] | None
) -> None:
    trace = trunk.trace(architectures.resolve(name), shape)
    assert trace.map is not None
    following = [layer for layer in trace.layers if layer.after == [trace.map]]
    assert [layer.kind.startswith(("Global", "Flatten")) for layer in following] == [True]
    if places is not None:
        assert trace.shapes[trace.map][:-1] == places


def test_dense_layers_stand_behind_the_map_of_some() -> None:
    assert trunk.trace(architectures.resolve("resnet-8"), PICTURE).behind_map == []
    assert trunk.trace(architectures.resolve("cnn"), PICTURE).behind_map == ["dense1"]
    assert trunk.trace(architectures.resolve("mlp"), (7,)).map is None


def shared(name: str, architecture: str) -> sharing.Graph:
    spec = validate(modules("sharing")[name].Spec, {"name": name})
    return sharing.graph(spec, trunk.trace(architectures.resolve(architecture), PICTURE), ["kind", "where"], ["where"])


def test_one_trunk_gives_a_head_its_features_and_another_its_map() -> None:
    graph = shared("hard_sharing", "cnn")
    shapes = {node.name: node.shape for node in graph.nodes}
    assert len(shapes[graph.features["kind"]]) == 1
    assert shapes[graph.features["where"]][:-1] == (4, 4)
    assert not graph.one_trunk


@pytest.mark.parametrize("name", ["cross_stitch", "mmoe", "cgc"])
def test_trunks_that_are_mixed_as_features_have_no_map(name: str) -> None:
    with pytest.raises(Invalid, match="one map for its task"):
        shared(name, "resnet-8")
