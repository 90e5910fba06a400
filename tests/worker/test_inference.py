"""The inference program as a process on a Unix socket: what it answers, what it refuses to load."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests import plain_keras

MAKE_MODEL = """
import sys, keras, numpy as np
inputs = keras.Input((3,))
model = keras.Model(inputs, {"y": keras.layers.Dense(2, name="y")(inputs)})
model.save(sys.argv[1])
rows = np.arange(1800, dtype="float32").reshape(600, 3) / 100
print(model.predict(rows, verbose=0)["y"].tolist())
"""


@pytest.fixture(scope="module")
def store(run_dir: Path) -> Path:
    folder = run_dir / "inference" / "store"
    (folder / "model").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[httpx.Client]:
    address = store.parent / "inference.sock"
    log = (store.parent / "log").open("wb")
    environment = {**os.environ, "BEQUEST_DATA": str(store.parent), "BEQUEST_LOG_FORMAT": "json"}
    for name in ("DATABASE_URL", "BROKER_URL"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.inference", "--bind", f"unix://{address}"],
        env=environment,
        stdout=log,
        stderr=log,
    )
    until = time.monotonic() + 60
    while not listens(address):
        assert time.monotonic() < until, (store.parent / "log").read_text()
        time.sleep(0.05)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(address)), base_url="http://inference", timeout=60) as made:
        yield made
    process.terminate()
    assert process.wait(20) is not None
    log.close()


def listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(address)) == 0


def predict(client: httpx.Client, path: Path | str, rows: Any) -> httpx.Response:
    return client.post("/predict", params={"model": str(path)}, content=saved(np.array(rows, np.float32)))


def saved(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_only_its_user_may_connect(client: httpx.Client, store: Path) -> None:
    assert client.get("/healthz").status_code == 200
    assert stat.S_IMODE((store.parent / "inference.sock").stat().st_mode) == 0o600


def test_it_loads_nothing_but_models_of_the_store(client: httpx.Client, store: Path) -> None:
    outside = store.parent / "outside.keras"
    outside.write_bytes(b"PK")
    (store / "model" / "link.keras").symlink_to(outside)
    (store / "model" / "weights.h5").write_bytes(b"")
    cases = {
        "there is no such model file": store / "model" / "missing.keras",
        "only .keras files in the store are loaded": outside,
    }
    for detail, path in cases.items():
        answer = predict(client, path, [[1, 2, 3]])
        assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    for path in (
        store / "model" / "link.keras",
        store / "model" / ".." / ".." / "outside.keras",
        store / "model" / "weights.h5",
    ):
        assert predict(client, path, [[1, 2, 3]]).json() == {"detail": "only .keras files in the store are loaded"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[[1, 2, 3]]",
        pickle.dumps([[1.0, 2.0, 3.0]]),
        saved(np.array([[1, None, 3]])),  # numpy would unpickle it
        saved(np.ones((1, 3), np.float64)),
        saved(np.ones(3, np.float32)),
        saved(np.ones((0, 3), np.float32)),
        saved(np.ones((1025, 3), np.float32)),
        saved(np.ones((2, 3), np.float32))[:-1],
    ],
)
def test_a_body_that_is_not_rows_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/predict", params={"model": "any.keras"}, content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("expected ")


@pytest.mark.slow
def test_it_answers_as_the_model_does_and_notices_a_changed_file(client: httpx.Client, store: Path) -> None:
    path = store / "model" / "dense.keras"
    rows = [[(3 * row + column) / 100 for column in range(3)] for row in range(600)]
    for _ in range(2):
        expected = json.loads(plain_keras.run(MAKE_MODEL, store, path).splitlines()[-1])
        answer = predict(client, path, rows)
        assert answer.status_code == 200, answer.text
        for found, wanted in zip(answer.json()["predictions"]["y"], expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)
    refusal = predict(client, path, [[1, 2]])
    assert (refusal.status_code, refusal.json()) == (400, {"detail": "expected rows of shape (3,)"})
    assert client.get("/healthz").json()["keras"]


MAKE_STEEP = """
import sys, keras
inputs = keras.Input((3,))
for path, offset in zip(sys.argv[1:], (0.0, float("nan"))):
    keras.Model(inputs, {"y": keras.layers.Rescaling(1000.0, offset)(inputs)}).save(path)
"""


@pytest.mark.slow
def test_rows_that_overflow_are_named_unless_the_model_answers_nobody(client: httpx.Client, store: Path) -> None:
    steep, broken = (str(store / "model" / f"{name}.keras") for name in ("steep", "broken"))
    plain_keras.run(MAKE_STEEP, store, steep, broken)
    rows = [[1, 2, 3], [3.4e38, 0, 0], [0, 0, 0], [0, -1e38, 0]] + [[1, 2, 3]] * 300 + [[3.4e38] * 3]
    answer = predict(client, steep, rows)
    assert (answer.status_code, answer.json()["rows"]) == (422, [1, 3, 304])
    assert predict(client, steep, rows[:1]).json() == {"predictions": {"y": [[1000, 2000, 3000]]}, "sizes": []}
    assert predict(client, broken, rows).json() == {"detail": "the model's answer is not finite"}


@pytest.mark.slow
def test_many_clients_at_once_are_each_answered_for_their_own_rows(client: httpx.Client, store: Path) -> None:
    dense, steep, broken = (store / "model" / f"{name}.keras" for name in ("dense12", "steep12", "broken12"))
    known = json.loads(plain_keras.run(MAKE_MODEL, store, dense).splitlines()[-1])
    plain_keras.run(MAKE_STEEP, store, steep, broken)

    def ask(number: int) -> str:
        first, count = 7 * number % 300, (1, 2, 5, 300)[number // 3 % 4]
        rows = [[(3 * row + column) / 100 for column in range(3)] for row in range(first, first + count)]
        if number % 6 == 1:
            refusal = predict(client, steep, [*rows, [3.4e38, 0, 0]])
            assert (refusal.status_code, refusal.json()["rows"]) == (422, [count])
            return "overflows"
        path, wanted = (steep, 1000 * np.array(rows)) if number % 2 else (dense, known[first : first + count])
        answer = predict(client, path, rows)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["predictions"]["y"], wanted, rtol=1e-5, atol=1e-5)
        return "answered"

    with ThreadPoolExecutor(12) as threads:
        outcomes = list(threads.map(ask, range(120)))
    assert (outcomes.count("overflows"), outcomes.count("answered")) == (20, 100)


MAKE_PICTURES = """
import json, sys, numpy as np
from pathlib import Path
from tests.worker.training.small import DIGIT, PICTURE, network
from worker.training.kept import export
from worker.training.methods import _sources
from worker.training.networks import build
seen = network([DIGIT], 0, {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True}, PICTURE)
made = _sources.resized(seen, PICTURE.model_copy(update={"shape": [5, 7, 3]}))
path = Path(sys.argv[1])
export.write(made, path)
rows = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3))
logits = build.keras_layers(made).forward.predict_on_batch(made.scaling(rows))["digit"]
answers = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
print(json.dumps([rows.tolist(), answers.tolist()]))
"""


@pytest.mark.slow
def test_rows_are_pictures_as_the_model_is_fed_them_whatever_size_its_layers_see(
    client: httpx.Client, store: Path
) -> None:
    path = store / "model" / "resized.keras"
    rows, expected = json.loads(plain_keras.run(MAKE_PICTURES, plain_keras.ROOT, path).splitlines()[-1])
    answer = predict(client, path, rows)
    assert answer.status_code == 200, answer.text
    for found, wanted in zip(answer.json()["predictions"]["digit"], expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert predict(client, path, [[[[0]] * 12] * 12]).json() == {"detail": "expected rows of shape (5, 7, 3)"}


def test_it_says_what_is_known_of_a_network(client: httpx.Client) -> None:
    answer = client.post("/trace", json={"architecture": {"arch": "mlp", "units": [4, 2]}, "shape": [5]})
    assert answer.status_code == 200, answer.text
    trace = answer.json()
    assert [(one["name"], one["shape"], one["parameters"]) for one in trace["layers"]] == [
        ("dense1", [4], 24),
        ("dense2", [2], 10),
    ]
    deep = client.post("/trace", json={"architecture": {"arch": "cnn"}, "shape": [8, 8, 1]})
    assert (deep.status_code, "too deep" in deep.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"architecture": {"arch": "nothing"}, "shape": [5]}', b'{"architecture": {"arch": "mlp"}, "shape": [0]}',
     b'{"architecture": {"arch": "mlp"}, "shape": 5}', b'{"architecture": {"arch": "mlp", "units": [-1]}, "shape": [5]}'],
)  # fmt: skip
def test_what_is_no_network_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/trace", content=body)
    assert answer.status_code == 400
    assert "expected" in answer.json()["detail"]
