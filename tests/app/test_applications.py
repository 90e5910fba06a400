"""The applications' bodies; `./dev examples` runs them all, and test_every_name.py a few steps of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import applications, cli, examples, methods, showing
from tests.app.builtin_lookup import BuiltIns

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", applications.bodies())
def test_a_body_can_be_submitted_as_it_is(name: str) -> None:
    body = json.loads((ROOT / "examples" / "jobs" / f"{name}.json").read_text())
    spec = methods.check(body, BuiltIns())
    assert len(body["name"]) > 20
    assert spec.control.seeds >= 3


def test_a_hurried_body_differs_in_its_seeds_alone() -> None:
    for body in applications.bodies().values():
        hurried = examples._in_a_hurry(body)
        assert hurried["control"] == {**body["control"], "seeds": 1}
        assert {**hurried, "control": body["control"]} == body


def test_only_those_that_are_named_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(examples, "_show", lambda _client, bodies, _console: asked.append(list(bodies)) or True)
    monkeypatch.setattr(showing, "run", lambda _command, _keep, shown: 0 if shown(None, None) else 1)
    assert CliRunner().invoke(cli.main, ["examples", "domain-shift"]).exit_code == 0
    assert CliRunner().invoke(cli.main, ["examples"]).exit_code == 0
    assert asked == [["domain-shift"], list(applications.bodies())]
    refused = CliRunner().invoke(cli.main, ["examples", "domain-shft"])
    assert refused.exit_code == 2
    assert "domain-shft" in refused.output
