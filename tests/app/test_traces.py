"""How the API knows networks without Keras: asked for once, kept by architecture, input and version, refused with a reason else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app import inference, traces
from app.db import transaction
from app.errors import Unavailable
from app.settings import settings
from app.spec import architectures
from app.spec.trace import Trace, TracedLayer, key
from app.tables import Traced
from tests.app.api.conftest import api_process
from tests.inference import inference_program
from tests.traces import traced

MLP = {"arch": "mlp", "units": [7]}
BODY: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "wine",
    "source": {"train": {"dataset": "wine", "architecture": MLP, "training": {"steps": 2}}},
    "training": {"steps": 2},
}


@pytest.fixture
def alone(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a service: nothing is traced in this process, and nothing is at hand."""
    monkeypatch.setattr(traces, "here", None)
    monkeypatch.setattr(inference, "_given_up_until", 0.0)
    traces.forget()
    yield
    traces.forget()


def rows() -> list[Traced]:
    with transaction() as session:
        return list(session.scalars(select(Traced)))


def small() -> Trace:
    more: dict[str, Any] = {"parameters": 98, "kernel": True, "adaptable": True, "shape": [7]}
    return Trace(
        input=[13], layers=[TracedLayer(name="dense1", kind="Dense", after=["input"], drawn_as="dense1", **more)]
    )


def test_what_is_at_hand_or_in_the_database_asks_nobody(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(inference, "trace", lambda *given: asked.append(given) or small())
    mlp = architectures.resolve(MLP)
    with transaction() as session, pytest.raises(traces.Untraced) as missing:
        traces.find(session, mlp, [13])
    assert (missing.value.architecture, missing.value.shape) == (architectures.as_data(mlp), [13])
    traces.make(missing.value)
    (row,) = rows()
    assert (row.key, row.keras) == (key(architectures.as_data(mlp), [13]), traces.keras_version())
    for forget in (False, True):
        if forget:
            traces.forget()
        with transaction() as session:
            assert traces.find(session, mlp, [13]) == small()
    assert len(asked) == 1
    with transaction() as session, pytest.raises(traces.Untraced):
        traces.find(session, mlp, [14])


def test_another_version_of_keras_looks_again(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "trace", lambda *_: small())
    traces.make(traces.Untraced(architectures.as_data(architectures.resolve(MLP)), [13]))
    traces.forget()
    monkeypatch.setattr(traces, "keras_version", lambda: "99.0")
    with transaction() as session, pytest.raises(traces.Untraced):
        traces.find(session, architectures.resolve(MLP), [13])
    monkeypatch.setattr(traces, "keras_version", lambda: None)  # an API without Keras takes what there is
    with transaction() as session:
        assert traces.find(session, architectures.resolve(MLP), [13]) == small()


def test_what_arithmetic_refuses_is_asked_of_nobody(alone: None) -> None:
    with transaction() as session, pytest.raises(ValueError, match="too deep"):
        traces.find(session, architectures.resolve("cnn"), [8, 8, 1])


def test_a_refusal_is_heard_once_and_kept_at_hand(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Trace:
        raise ValueError("the layer x gives [None]")

    monkeypatch.setattr(inference, "trace", refuse)
    traces.make(traces.Untraced(architectures.as_data(architectures.resolve(MLP)), [13]))
    with transaction() as session, pytest.raises(ValueError, match="the layer x"):
        traces.find(session, architectures.resolve(MLP), [13])
    assert rows() == []


def test_the_database_keeps_the_newest_alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "trace", lambda *_: small())
    monkeypatch.setattr(traces, "MOST", 3)
    for units in range(1, 6):
        traces.make(traces.Untraced({"arch": "mlp", "units": [units]}, [13]))
    kept = {row.key for row in rows()}
    assert kept == {key({"arch": "mlp", "units": [units]}, [13]) for units in (3, 4, 5)}


def test_a_program_that_starts_is_waited_for_and_one_that_is_gone_not_by_everyone_in_turn(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "inference_url", "http://127.0.0.1:9")
    monkeypatch.setattr(inference, "_START_SECONDS", 1.0)
    inference._connected.cache_clear()
    took = []
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="never looked at"):
            inference.trace(architectures.as_data(architectures.resolve(MLP)), [13])
        took.append(time.monotonic() - began)
    assert took[0] >= 1.0
    assert took[1] < 0.5
    inference._connected.cache_clear()


@pytest.mark.slow
def test_a_service_asks_its_program_once_and_goes_on_without_it(alone: None, run_dir: Path) -> None:
    """Over HTTP, an API that has no Keras: 202 with the program, also while it starts; then without it what is known, and 503."""
    folder = run_dir / "traces"
    address = f"unix://{folder / 'inference.sock'}"
    with api_process(INFERENCE_URL=address) as (port, _):
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=200, trust_env=False
        )  # beyond its own limits
        answers: list[httpx.Response] = []
        early = threading.Thread(target=lambda: answers.append(client.post("/v1/jobs/validate", json=BODY)))
        early.start()
        time.sleep(0.5)
        with inference_program(folder):
            early.join(200)
            assert answers[0].status_code == 200, answers[0].text
            resolved = answers[0].json()["resolved_spec"]
            wine = traced(architectures.resolve(MLP), [13])
            assert resolved["traces"] == {key(architectures.as_data(architectures.resolve(MLP)), [13]): wine.digest}
            (row,) = rows()
            assert Trace.model_validate(row.trace) == wine
            too_large = {
                **BODY,
                "source": {"train": {**BODY["source"]["train"], "architecture": {"arch": "mlp", "units": [8192] * 16}}},
            }
            refused = client.post("/v1/jobs", json=too_large)
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "model_too_large")
        assert client.post("/v1/jobs", json=BODY).status_code == 202
        other = {
            **BODY,
            "source": {"train": {**BODY["source"]["train"], "architecture": {"arch": "mlp", "units": [9]}}},
        }
        gone = client.post("/v1/jobs", json=other)
        assert (gone.status_code, gone.json()["code"]) == (503, "inference_unavailable")
        assert "python -m worker.inference" in gone.json()["detail"]
        assert int(gone.headers["retry-after"]) > 0
        assert client.get("/v1/jobs").json()["data"][0]["kind"] == "transfer"
        client.close()
