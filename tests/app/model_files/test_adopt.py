"""What a user's network is fed, and how its pixels, ids and columns are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.data import builtins
from app.model_files._names import Names
from app.model_files.adopt import adopt
from app.spec.architectures.keras_graph import Spec
from app.spec.faults import Invalid
from app.spec.imports import SCALES, ImportOptions
from tests.app.model_files.graphs import chain, forked

OUT = ("out", "Dense", {"units": 3, "activation": "softmax"})
ABC = ["a", "b", "c"]


def pictures(channels: int = 3, side: int = 16) -> Spec:
    conv = ("conv", "Conv2D", {"filters": 4, "kernel_size": [3, 3], "activation": "relu"})
    return chain(conv, ("pool", "GlobalAveragePooling2D", {}), OUT, shape=(side, side, channels))


@pytest.mark.parametrize(
    ("scale", "config"),
    [
        ("0..255", {"scale": 255.0, "offset": 0.0}),
        ("0..1", None),
        ("-1..1", {"scale": 2.0, "offset": -1.0}),
        ("imagenet", {"scale": [1 / 0.229, 1 / 0.224, 1 / 0.225], "offset": [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]}),
    ],
)  # fmt: skip
def test_pixels_of_one_become_what_the_first_layer_expects(scale: str, config: dict[str, object] | None) -> None:
    options = ImportOptions(classes=ABC, scale=scale)  # type: ignore[arg-type]
    reading = adopt(pictures(), [("out", {"tensor": "out"})], options, None)
    (adopted,) = reading.candidates
    trunk = adopted.architecture
    assert isinstance(trunk, Spec)
    first = trunk.layers[trunk.calls[0].layer]
    if config is None:
        assert first.kind == "Conv2D"
    else:
        assert (first.kind, first.config) == ("Rescaling", config)
        assert trunk.calls[1].args == [{"tensor": trunk.calls[0].name}]
    assert (adopted.input.kind, adopted.input.shape, adopted.input.scale) == ("image", [16, 16, 3], 255.0)
    assert adopted.input.decode is not None
    assert any("stretched" in note for note in reading.notes)


def test_a_scale_is_asked_for_or_tried_on_labelled_pictures() -> None:
    outputs = [("out", {"tensor": "out"})]
    with pytest.raises(Invalid) as refused:
        adopt(pictures(), outputs, ImportOptions(classes=ABC), None)
    (fault,) = refused.value.faults
    assert fault.pointer == "/scale"
    assert "-F dataset=ID" in str(fault.hint)
    ten = chain(
        ("conv", "Conv2D", {"filters": 4, "kernel_size": [3, 3]}),
        ("pool", "GlobalAveragePooling2D", {}),
        ("out", "Dense", {"units": 10, "activation": "softmax"}),
        shape=(12, 12, 1),
    )
    digits = builtins.load("digits").schema
    reading = adopt(ten, outputs, ImportOptions(), digits)
    assert [one.scale for one in reading.candidates] == [scale for scale in SCALES if scale != "imagenet"]
    (head,) = reading.candidates[0].heads
    assert (head.task, head.manifest.classes) == ("digit", digits.columns["digit"].classes)
    assert reading.candidates[0].input == digits.input
    assert reading.candidates[0].canvas == [12, 12, 1]  # it sees the data set's 28×28 resized


def test_rows_of_numbers_are_columns_and_ids_stay_within_an_embedding() -> None:
    graph = chain(
        ("embed", "Embedding", {"input_dim": 50, "output_dim": 4}),
        ("flat", "Flatten", {}),
        OUT,
        shape=(6,),
        integers=True,
    )
    reading = adopt(graph, [("out", {"tensor": "out"})], ImportOptions(classes=ABC), None)
    (adopted,) = reading.candidates
    assert isinstance(adopted.architecture, Spec)
    assert adopted.architecture.given[0].largest == 49
    assert [feature.column for feature in adopted.input.features] == [f"x{number}" for number in range(6)]
    assert any("from 0 to 49" in note for note in reading.notes)
    with pytest.raises(Invalid) as refused:
        adopt(graph, [("out", {"tensor": "out"})], ImportOptions(classes=ABC, columns=["a"], scale="0..1"), None)
    assert {fault.pointer for fault in refused.value.faults} == {"/columns", "/scale"}


def test_a_data_set_of_other_rows_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        adopt(
            pictures(),
            [("out", {"tensor": "out"})],
            ImportOptions(classes=ABC, scale="0..1"),
            builtins.load("iris").schema,
        )
    (fault,) = refused.value.faults
    assert fault.pointer == "/dataset"
    assert "16, 16, 3" in fault.message


def test_a_rate_makes_samples_sound() -> None:
    for shape in ((1600,), (1600, 1)):
        graph = chain(("cut", "Reshape", {"target_shape": [1600]}), OUT, shape=shape)
        options = ImportOptions(classes=ABC, rate=16_000)
        (adopted,) = adopt(graph, [("out", {"tensor": "out"})], options, None).candidates
        assert (adopted.input.kind, adopted.input.shape, adopted.input.rate) == ("audio", [1600, 1], 16_000)
        assert (adopted.input.scale, adopted.scale) == (32_768.0, None)


def test_a_rate_goes_with_samples_and_with_the_data_sets_rate() -> None:
    with pytest.raises(Invalid) as invalid:
        adopt(pictures(), [("out", {"tensor": "out"})], ImportOptions(classes=ABC, rate=16_000), None)
    assert "/rate" in [fault.pointer for fault in invalid.value.faults]
    tones = builtins.load("tones").schema
    assert tones.input.rate not in (None, 16_000)
    graph = chain(("cut", "Reshape", {"target_shape": [tones.input.shape[0]]}), OUT, shape=tuple(tones.input.shape))
    with pytest.raises(Invalid, match="the network hears 16000"):
        adopt(graph, [("out", {"tensor": "out"})], ImportOptions(rate=16_000), tones)


def test_a_task_has_no_name_of_a_layer_and_no_layer_one_of_ours() -> None:
    graph = chain(("class", "Dense", {"units": 4}), ("class_2_logits", "Dense", {"units": 4}), OUT, shape=(6,))
    (adopted,) = adopt(graph, [("dense", {"tensor": "out"})], ImportOptions(classes=ABC), None).candidates
    assert [head.task for head in adopted.heads] == ["class_3"]
    with pytest.raises(ValidationError, match="not a graph"):
        chain(("preprocessing", "Dense", {"units": 4}), OUT, shape=(6,))
    assert Names().new("preprocessing", "layer") == "own-preprocessing"


def test_heads_of_several_outputs_have_layers_of_their_own() -> None:
    """Outputs whose names would make two layers of one name, and one whose name is that of a layer around the network."""
    graph = forked(
        chain(("wide", "Dense", {"units": 4}), shape=(6,)), *(((name, "Dense", {"units": 1}),) for name in "abc")
    )
    outputs = [("a", {"tensor": "a"}), ("a_logits", {"tensor": "b"}), ("preprocessing", {"tensor": "c"})]
    (adopted,) = adopt(graph, outputs, ImportOptions(), None).candidates
    assert [head.task for head in adopted.heads] == ["a", "a_logits_2", "own-preprocessing"]
