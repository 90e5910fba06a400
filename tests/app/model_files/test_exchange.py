"""A network in the form that anybody can write: what it says of itself, and what is refused in it."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest

from app.data import builtins, wordpiece
from app.model_files import exchange, inspect, upload
from app.model_files.adopt import adopt
from app.model_files.exchange import Said
from app.spec.data import InputSchema
from app.spec.faults import Invalid
from app.spec.imports import ImportOptions
from tests.app.model_files.graphs import chain

GRAPH = chain(
    ("conv", "Conv2D", {"filters": 4, "kernel_size": 3, "use_bias": False}),
    ("norm", "BatchNormalization", {}),
    ("pool", "GlobalAveragePooling2D", {}),
    ("out", "Dense", {"units": 2, "activation": "softmax"}),
    shape=(8, 8, 3),
).model_dump(include={"given", "layers", "calls", "features"})
SAID = Said(classes=["a", "b"], scale="0..255", licence="CC0-1.0", source="made up", notes=["a note"])


def arrays() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        "conv": [rng.normal(size=(3, 3, 3, 4)).astype(np.float32)],
        "norm": [rng.uniform(1, 2, 4).astype(np.float32) for _ in range(4)],
        "out": [rng.normal(size=(4, 2)).astype(np.float32), np.zeros(2, np.float32)],
    }


def write(path: Path, **changes: Any) -> Path:
    words: dict[str, Any] = {"graph": GRAPH, "outputs": [("out", "out")], "arrays": arrays(), "said": SAID}
    exchange.write(path, **(words | changes))
    return path


def by_hand(path: Path, text: object, members: dict[str, bytes] | None = None, **extra: bytes) -> Path:
    """As somebody writes it with json, numpy and zipfile."""
    packed = BytesIO()
    if members is None:
        np.savez(packed, **{f"{layer}/{n}": array for layer, own in arrays().items() for n, array in enumerate(own)})
    else:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("graph.json", text if isinstance(text, str) else json.dumps(text))
        archive.writestr("arrays.npz", packed.getvalue())
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


def members() -> dict[str, bytes]:
    def npy(array: np.ndarray) -> bytes:
        file = BytesIO()
        np.save(file, array)
        return file.getvalue()

    return {f"{layer}/{n}.npy": npy(array) for layer, own in arrays().items() for n, array in enumerate(own)}


TEXT = {"graph": GRAPH, "outputs": [["out", {"tensor": "out"}]]}


def refused(path: Path) -> list[tuple[str, str]]:
    with path.open("rb") as source, TemporaryFile() as scratch, inspect.Arrays(BytesIO()) as arrays:
        with pytest.raises(Invalid) as invalid:
            inspect.READERS["keras"](inspect.Task(source, arrays, scratch))
        return [(fault.pointer, fault.message) for fault in invalid.value.faults]


@pytest.mark.parametrize("how", ["by us", "by hand"])
def test_what_was_written_is_read(how: str, tmp_path: Path) -> None:
    path, out = tmp_path / "x.zip", tmp_path / "out.npz"
    if how == "by us":
        write(path)
    else:
        by_hand(path, {**TEXT, **SAID.model_dump()})
    model = upload.read_model(path, out)
    assert model.outputs == [("out", {"tensor": "out"})]
    assert (model.said, model.notes) == (SAID, ["a note"])
    assert list(model.graph["layers"]) == ["conv", "norm", "pool", "out"]
    with np.load(out) as stored:
        for layer, own in arrays().items():
            for number, array in enumerate(own):
                np.testing.assert_array_equal(stored[f"{layer}/{number}"], array, strict=True)


IDS = chain(("embedding", "Embedding", {"input_dim": 5, "output_dim": 3}), shape=(6,), integers=True)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ä"]
SEEN = {"type": "wordpiece", "length": 6, "lowercase": False}


def of_texts(path: Path, vocabulary: list[str] = WORDS, **said: Any) -> Path:
    graph = IDS.model_dump(include={"given", "layers", "calls", "features"})
    texts = exchange.Texts(exchange.WordPieceSaid(**{**SEEN, **said}), vocabulary)
    own = {"embedding": [np.ones((5, 3), np.float32)]}
    exchange.write(path, graph, [("out", "embedding")], own, Said(classes="none"), texts)
    return path


def test_a_vocabulary_makes_the_tokenizer_and_the_graph_names_it(tmp_path: Path) -> None:
    model = upload.read_model(of_texts(tmp_path / "x.zip"), tmp_path / "out.npz")
    graph, tokenizer = model.judged()
    assert tokenizer == wordpiece.tokenizer(WORDS, lowercase=False)
    assert graph.tokens is not None
    assert graph.tokens.sha256 == hashlib.sha256(tokenizer.encode()).hexdigest()
    assert (graph.kind, graph.tokens.vocabulary, graph.tokens.length) == ("text", 5, 6)
    (adopted,) = adopt(graph, model.outputs, ImportOptions(classes="none", length=40), None).candidates
    assert adopted.input == InputSchema(kind="text", shape=[40], tokens=graph.tokens)
    pictures = builtins.load("digits").schema
    with pytest.raises(Invalid, match="the network takes texts, the data set has image inputs"):
        adopt(graph, model.outputs, ImportOptions(classes="none"), pictures)
    with pytest.raises(Invalid, match="the network takes texts") as refused_fields:
        adopt(graph, model.outputs, ImportOptions(classes="none", rate=8000, columns=["a"]), None)
    assert [fault.pointer for fault in refused_fields.value.faults] == ["/rate", "/columns"]


def test_what_is_wrong_with_a_vocabulary_is_said(tmp_path: Path) -> None:
    def told(*arguments: Any, **said: Any) -> list[tuple[str, str]]:
        model = upload.read_model(of_texts(tmp_path / "x.zip", *arguments, **said), tmp_path / "out.npz")
        with pytest.raises(Invalid) as invalid:
            adopt(model.judged()[0], model.outputs, ImportOptions(classes="none"), None)
        return [(fault.pointer, fault.message) for fault in invalid.value.faults]

    assert told(WORDS[1:])[0][0] == "/file/vocabulary.txt"
    assert told([*WORDS, "b"]) == [("/file", "the vocabulary has 6 tokens, the network knows 5")]
    assert told(length=7) == [
        ("/file/tokens", "tokens go with kind text, and one input of shape [7] with integers: true")
    ]
    words = b"\n".join(word.encode() for word in WORDS)
    beside = {"vocabulary.txt": words}
    (fault,) = refused(by_hand(tmp_path / "a", TEXT, **beside))
    assert fault == ("/graph.json/tokens", "there is a vocabulary.txt, and nothing says how it is used")
    (fault,) = refused(by_hand(tmp_path / "b", {**TEXT, "tokens": SEEN}))
    assert fault == ("/graph.json/tokens", "there is no vocabulary.txt beside graph.json")
    (fault,) = refused(by_hand(tmp_path / "c", {**TEXT, "tokens": SEEN}, **{"vocabulary.txt": b"\xff"}))
    assert fault == ("/vocabulary.txt", "expected UTF-8")
    named = {"type": "wordpiece", "length": 6, "vocabulary": 5, "sha256": "0" * 64}
    graph = {**IDS.model_dump(include={"given", "layers", "calls", "features"}), "kind": "text", "tokens": named}
    found = refused(by_hand(tmp_path / "d", {**TEXT, "graph": graph, "outputs": [["o", {"tensor": "embedding"}]]}))
    assert found[0] == ("/graph.json/graph/tokens", "only a kept model can say which file its tokens are of")


def test_one_network_is_one_file(tmp_path: Path) -> None:
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_the_senders_word_counts_where_both_say_something() -> None:
    sent = ImportOptions(scale="0..1", target="kind")
    assert SAID.under(sent) == ImportOptions(scale="0..1", target="kind", classes=["a", "b"])
    assert Said().under(sent) == sent


def test_floats_of_other_widths_become_float32_and_columns_stay_columns(tmp_path: Path) -> None:
    ours = arrays()
    ours["conv"] = [np.asfortranarray(ours["conv"][0].astype(np.float64))]
    ours["out"][1] = ours["out"][1].astype(np.float16)
    out = tmp_path / "out.npz"
    upload.read_model(write(tmp_path / "x.zip", arrays=ours), out)
    with np.load(out) as stored:
        assert {stored[name].dtype.name for name in stored.files} == {"float32"}
        np.testing.assert_array_equal(stored["conv/0"], arrays()["conv"][0])


def changed(place: str, value: object) -> dict[str, Any]:
    text = json.loads(json.dumps(TEXT))
    *path, last = place.split("/")
    inner = text
    for key in path:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[int(last) if isinstance(inner, list) else last] = value
    return text


@pytest.mark.parametrize(
    ("place", "value", "pointer"),
    [
        ("graph/layers/conv/kind", "Lambda", "/graph/layers/conv/kind"),
        ("graph/layers/conv/kind", "os.system", "/graph/layers/conv/kind"),
        ("graph/layers/conv/config/activation", "keras.config.enable_unsafe_deserialization", "/graph/layers/conv/config/activation"),
        ("graph/layers/conv/config/module", "os", "/graph/layers/conv/config/module"),
        ("graph/calls/0/args", [{"tensor": "nothing"}], "/graph/calls/0/args/0/tensor"),
        ("outputs/0/1/tensor", "nothing", "/outputs/0/1/tensor"),
        ("outputs", [], "/outputs"),
        ("scale", "0..7", "/scale"),
        ("code", "print(1)", "/code"),
        ("licence", 7, "/licence"),
    ],
)  # fmt: skip
def test_a_fault_in_the_text_is_named_with_its_place(place: str, value: object, pointer: str, tmp_path: Path) -> None:
    assert refused(by_hand(tmp_path / "x.zip", changed(place, value)))[0][0] == "/graph.json" + pointer


def test_arrays_are_what_their_layers_ask_for_all_faults_at_once(tmp_path: Path) -> None:
    ours = arrays()
    ours["conv"][0] = ours["conv"][0][:2]
    ours["out"][0] = ours["out"][0].T
    messages = [message for _, message in refused(write(tmp_path / "x.zip", arrays=ours))]
    assert [message.partition(" has")[0] for message in messages] == ["the array conv/0", "the array out/0"]
    del ours["norm"]
    ours["more"] = [np.zeros(3)]
    messages = [message for _, message in refused(write(tmp_path / "x.zip", arrays=ours))]
    assert [message.partition(",")[0] for message in messages] == [
        *(f"there is no array norm/{number}" for number in range(4)),
        "an array that no layer asks for",
    ]


def _object() -> bytes:
    file = BytesIO()
    np.save(file, np.array([{}], object), allow_pickle=True)
    return file.getvalue()


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"\0" * 16


@pytest.mark.parametrize(
    "content",
    [
        _object,
        *(partial(_header, shape) for shape in ("(4, 10**9)", "(4, 1000000000)", "(4, -1)")),
        bytes,
        partial(pickle.dumps, 1),
    ],
)
def test_an_array_that_lies_or_holds_objects_is_refused(content: Callable[[], bytes], tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zip", TEXT, {**members(), "out/1.npy": content()})
    ((pointer, _),) = refused(path)
    assert pointer == "/arrays.npz"


def test_what_unpacks_to_much_more_than_was_sent_is_refused(tmp_path: Path) -> None:
    wide = {
        **TEXT,
        "graph": {**GRAPH, "layers": {**GRAPH["layers"], "out": {"kind": "Dense", "config": {"units": 2**22}}}},
    }
    zeros = BytesIO()
    np.save(zeros, np.zeros((4, 2**22), np.float32))
    path = by_hand(tmp_path / "x.zip", wide, {**members(), "out/0.npy": zeros.getvalue()})
    assert path.stat().st_size < 2**18
    assert refused(path)


def test_the_child_says_the_same(tmp_path: Path) -> None:
    path, out = by_hand(tmp_path / "x.zip", changed("graph/layers/conv/kind", "Lambda")), tmp_path / "out.npz"
    with pytest.raises(Invalid, match=r"/file/graph\.json/graph/layers/conv/kind"):
        upload.read_model(path, out)
    assert not out.exists()


def test_other_members_are_refused(tmp_path: Path) -> None:
    assert refused(by_hand(tmp_path / "x.zip", TEXT, **{"config.json": b"{}"}))
    assert refused(by_hand(tmp_path / "x.zip", TEXT, **{"run.py": b""}))
    assert refused(by_hand(tmp_path / "x.zip", TEXT, **{"../graph.json": b""}))
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("graph.json", json.dumps(TEXT))
    assert refused(tmp_path / "y.zip") == [("", "there is no arrays.npz")]
