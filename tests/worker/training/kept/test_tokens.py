"""A model of texts in tokens: what is kept, exported and inherited of it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app import data
from app.data import messages, tokens
from app.data.inputs import text
from app.spec import architectures
from app.spec.data import InputSchema, Tokenizer, Tokens
from app.spec.models import HeadSpec, Manifest
from tests import plain_keras
from tests.worker.training import small
from tests.worker.training.kept.installed import INSTALLED
from worker.training.data import inputs
from worker.training.kept import export, formats, golden
from worker.training.networks import build
from worker.training.networks.inheritance import inherit
from worker.training.networks.initial import initial
from worker.training.networks.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TEXTS = list(messages.make(120)[0])
ROWS = text.rows(TEXTS, 96)
TOKENS = Tokens(vocabulary=320, length=36)
TEXT = InputSchema(kind="text", shape=[96])
ALONE = "import sys; assert not [name for name in sys.modules if name.split('.')[0] in ('app', 'worker')]"
JAX = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False, safe_mode=True)
assert keras.backend.backend() == "jax"
np.save(sys.argv[3], model.predict_on_batch(np.load(sys.argv[2]))["digit"])
"""


def network(
    architecture: str = "text-cnn-small", seed: int = 0, rows: np.ndarray | None = None, asked: Tokens | None = TOKENS
) -> Network:
    spec = architectures.resolve({"arch": architecture, **({"tokens": asked.model_dump()} if asked else {})})
    seen = spec.seen(TEXT)
    scaling = inputs.training("text").fit(seen, [(ROWS, np.arange(120) if rows is None else rows)])
    made = Network(spec, seen, {"digit": small.DIGIT}, {"digit": HeadSpec()}, scaling, {})
    made.weights = initial(build.keras_layers(made), seed)
    return made


def kept(whole: Network, path: Path) -> Manifest:
    sha256 = export.write(whole, path)
    about = export.manifest(whole, "model", sha256, file=path.name, rows_file=None, dataset={}, training={})
    return Manifest.model_validate_json(about.model_dump_json())


def probabilities(whole: Network, rows: np.ndarray) -> np.ndarray:
    logits = build.keras_layers(whole).forward.predict_on_batch(whole.scaling(rows))["digit"]
    raised = np.exp(np.asarray(logits, np.float64))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("architecture", ["text-cnn-small", "text-encoder-small", "causal-transformer-small"])
def test_it_takes_ids_and_brings_its_tokenizer(architecture: str, tmp_path: Path) -> None:
    whole = network(architecture)
    manifest = kept(whole, tmp_path / "model.keras")
    assert isinstance(manifest.input.tokens, Tokenizer)
    assert (manifest.input.shape, manifest.input.tokens.length) == ([96], 36)
    assert export.write_beside(whole, tmp_path) == ["preprocess.py", "tokenizer.json"]
    content = (tmp_path / "tokenizer.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest.input.tokens.sha256
    assert tokens.within(tmp_path / "model.keras") == content.decode()
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert model.input_shape == (None, 36)
    ids = tokens.ids(TEXTS, tokens.opened(content.decode()), bytes=96, length=36)
    expected = probabilities(whole, ROWS)
    assert np.abs(model.predict_on_batch(ids)["digit"] - expected).max() <= 1e-6
    export.check(tmp_path / "model.keras", whole, ROWS, {"digit": expected})
    again = export.read(tmp_path / "model.keras", manifest)
    assert again.scaling == whole.scaling
    assert again.trace == whole.trace
    assert small.same(again.weights, whole.weights)
    assert np.abs(probabilities(again, ROWS) - expected).max() == 0
    config = json.loads(zipfile.ZipFile(tmp_path / "model.keras").read("config.json"))
    assert {layer["module"].partition(".")[0] for layer in config["config"]["layers"]} == {"keras"}


def test_the_lines_of_the_manifest_answer_to_texts_on_their_own(tmp_path: Path) -> None:
    whole = network()
    manifest = kept(whole, tmp_path / "model.keras")
    export.write_beside(whole, tmp_path)
    lines = manifest.loading.replace('["so it begins"]', json.dumps(TEXTS[:3]))
    assert "bytes=96, length=36" in lines
    program = f"{lines}\nimport json\nprint('ANSWERS', json.dumps(answers['digit'].tolist()))\n{ALONE}"
    found = json.loads(plain_keras.run(program, tmp_path).rpartition("ANSWERS ")[2])
    assert np.abs(np.array(found) - probabilities(whole, ROWS[:3])).max() <= 1e-5


def test_a_network_that_sees_bytes_is_kept_as_before(tmp_path: Path) -> None:
    whole = network(asked=None)
    manifest = kept(whole, tmp_path / "model.keras")
    assert tokens.within(tmp_path / "model.keras") is None
    assert export.write_beside(whole, tmp_path) == []
    assert "tokens" not in manifest.model_dump()["input"]
    assert "tokens" not in manifest.architecture
    assert "byte-embedding" in manifest.layers
    assert whole.weights["byte-embedding"][0].shape == (256, 16)


@pytest.mark.slow
def test_every_exported_format_takes_ids_and_answers_alike(tmp_path: Path) -> None:
    told = formats.write(network(), INSTALLED, ROWS[:32], tmp_path)  # type: ignore[arg-type]
    assert set(told) == set(INSTALLED)
    assert max(about["largest_difference"] for about in told.values()) <= 1e-5


@pytest.mark.slow
@plain_keras.needs_jax
def test_it_answers_alike_on_jax(tmp_path: Path) -> None:
    whole = network("text-encoder-small")
    kept(whole, tmp_path / "model.keras")
    np.save(tmp_path / "rows.npy", whole.scaling.given(ROWS))
    plain_keras.run(JAX, tmp_path, "model.keras", "rows.npy", "answers.npy", backend="jax")
    assert np.abs(np.load(tmp_path / "answers.npy") - probabilities(whole, ROWS)).max() <= 1e-5


def test_ids_above_a_half_numbers_reach_are_not_rounded() -> None:
    """In mixed_float16 a float input would be; ids are whole numbers up to 65,535."""
    spec = architectures.resolve(
        {"arch": "text-cnn-small", "tokens": {"type": "bpe", "vocabulary": 6000, "length": 20}}
    )
    made = Network(
        spec,
        spec.seen(TEXT),
        {"digit": small.DIGIT},
        {"digit": HeadSpec()},
        inputs.scaling_of(None, spec.seen(TEXT), "{}"),
        {},
        "mixed_float16",
    )
    layers = build.keras_layers(made)
    embedding = layers.layers["token-embedding"]
    ids = np.array([[4097, 4098, 4099]], np.float32)
    rows = np.asarray(embedding(ids))
    assert not np.array_equal(rows[0, 0], rows[0, 1])
    assert not np.array_equal(rows[0, 1], rows[0, 2])


def test_a_copied_embedding_brings_its_tokenizer(tmp_path: Path) -> None:
    source, fresh = network(seed=1, rows=np.arange(60)), network(seed=2, rows=np.arange(60, 120))
    assert source.scaling != fresh.scaling
    passed = inherit(fresh, source)
    assert "token-embedding" in passed.copied
    assert passed.network.scaling == source.scaling
    assert fresh.scaling != source.scaling
    manifest = kept(passed.network, tmp_path / "model.keras")
    assert export.read(tmp_path / "model.keras", manifest).scaling == source.scaling


@pytest.mark.parametrize("other", [Tokens(vocabulary=300, length=36), None])
def test_without_it_a_network_goes_on_with_its_own(other: Tokens | None) -> None:
    source, fresh = network(seed=1, rows=np.arange(60), asked=other), network(seed=2)
    passed = inherit(fresh, source)
    assert "token-embedding" not in passed.copied
    assert "conv1" in passed.copied
    assert passed.network.scaling == fresh.scaling


def test_another_length_keeps_the_merges_and_its_own_length() -> None:
    source = network(seed=1, rows=np.arange(60))
    fresh = network(seed=2, asked=TOKENS.model_copy(update={"length": 20}))
    scaling = inherit(fresh, source).network.scaling
    assert source.scaling.tokenizer is not None
    assert scaling.tokenizer == replace(source.scaling.tokenizer, length=20)


def refused(body: dict[str, Any]) -> list[str]:
    from app.spec.faults import Invalid

    with pytest.raises(Invalid) as found:
        architectures.resolve(body, "/trunk")
    return [fault.pointer for fault in found.value.faults]


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"type": "bpe", "vocabulary": 257}, "/trunk/tokens/vocabulary"),
        ({"type": "bpe", "vocabulary": 65_537}, "/trunk/tokens/vocabulary"),
        ({"type": "bpe", "vocabulary": "2000"}, "/trunk/tokens/vocabulary"),
        ({"type": "bpe", "vocabulary": True}, "/trunk/tokens/vocabulary"),
        ({"type": "bpe", "length": 0}, "/trunk/tokens/length"),
        ({"type": "bpe", "length": 4097}, "/trunk/tokens/length"),
        ({"type": "bpe", "length": 64.5}, "/trunk/tokens/length"),
        ({"type": "wordpiece"}, "/trunk/tokens/type"),
        ({"type": "bpe", "sha256": "0" * 64}, "/trunk/tokens/sha256"),
        ({"type": "bpe", "lenght": 64}, "/trunk/tokens/lenght"),
        ("bpe", "/trunk/tokens"),
        ([], "/trunk/tokens"),
    ],
)
def test_faults_of_tokens_are_named(given: Any, pointer: str) -> None:
    assert refused({"arch": "text-cnn", "tokens": given}) == [pointer]


def test_networks_of_other_inputs_have_no_tokens() -> None:
    assert refused({"arch": "mlp", "tokens": {"type": "bpe"}}) == ["/trunk/tokens"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"arch": "text-cnn", "tokens": {"type": "bpe", "length": 8}}, "needs texts of 9 tokens or more, these have 8"),
        (
            {"arch": "text-encoder", "tokens": {"type": "bpe", "length": 50}},
            "stride of 4 does not divide texts of 50 tokens",
        ),
        (
            {"arch": "causal-transformer", "tokens": {"type": "bpe", "length": 2000}},
            "see them in tokens of a smaller `length`",
        ),
    ],
)
def test_lengths_that_a_network_cannot_see_are_refused_by_arithmetic(body: dict[str, Any], words: str) -> None:
    spec = architectures.resolve(body)
    with pytest.raises(ValueError, match=words):
        architectures.trunk_shape(spec, [spec.seen(TEXT).tokens.length])  # type: ignore[union-attr]


def test_golden_rows_are_stored_texts_so_that_another_tokenizer_is_noticed_too(tmp_path: Path) -> None:
    whole = network()
    made = golden.make(whole, lambda network, rows: {"digit": probabilities(network, rows)})
    assert made.rows.shape[1:] == (96,)
    export.write(whole, tmp_path / "model.keras", made)
    assert tokens.within(tmp_path / "model.keras") is not None
    again = golden.read(tmp_path / "model.keras")
    assert again is not None
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert golden.differences(again, lambda rows: model(whole.scaling.given(rows), training=False)) == []
    other = network(rows=np.arange(30)).scaling
    assert golden.differences(again, lambda rows: model(other.given(rows), training=False))
    export.check(tmp_path / "model.keras", whole, ROWS, {"digit": probabilities(whole, ROWS)})
    told = formats.write(whole, INSTALLED[:1], ROWS[:4], tmp_path, golden=made)  # type: ignore[arg-type]
    assert set(told) == set(INSTALLED[:1])


def test_a_network_beside_others_sees_bytes() -> None:
    input_ = data.load("parcels").schema.input
    (note,) = (name for name, part in input_.parts.items() if part.kind == "text")
    part = {"arch": "text-cnn-small", "tokens": {"type": "bpe"}}
    spec = architectures.resolve({"arch": "late-fusion-small", "parts": {note: part}})
    with pytest.raises(ValueError, match="only a text alone can be seen in tokens"):
        spec.fitted(tuple(input_.shape), input_)
