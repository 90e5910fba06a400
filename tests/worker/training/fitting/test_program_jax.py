"""On JAX too, many steps in one call have the bits of a call for each step, however they are cut, in every process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import plain_keras
from tests.worker.training.fitting.many_steps_jax import CASES, CUTS, FAILING, ONE_BY_ONE, STEPS

pytestmark = [pytest.mark.slow, plain_keras.needs_jax]

PROGRAM = """
from tests.worker.training.fitting import many_steps_jax
many_steps_jax.main()
"""


def told(act: str, folder: Path) -> dict[str, Any]:
    printed = plain_keras.run(PROGRAM, plain_keras.ROOT, act, folder, backend="jax", seconds=600)
    return json.loads(printed.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jax")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return told("begin", folder)


@pytest.mark.parametrize("name", CASES)
def test_steps_in_one_call_have_the_bits_of_a_call_for_each(found: dict[str, Any], name: str) -> None:
    case = found[name]
    for logs in case["logs"]:
        np.testing.assert_equal(logs, case["logs"][0])
    assert case["digests"] == [case["digests"][0]] * len(CUTS)
    losses = [logs["loss"] for logs in case["logs"][0]]
    assert len(losses) == STEPS
    assert len(set(losses)) > STEPS / 2
    assert case["absent"] == (name in ("uncertainty", "rlw")), "a task is absent from some batch"


@pytest.mark.parametrize("name", CASES)
def test_a_network_and_its_device_have_one_executable(found: dict[str, Any], name: str) -> None:
    assert found[name]["driver"] == ("host" if name == "cnn" else "while")
    assert found[name]["executables"] == {"host": [1, 0], "while": [0, 1]}[found[name]["driver"]]


@pytest.mark.parametrize("name", CASES)
def test_a_call_ends_behind_the_step_whose_loss_is_not_finite(found: dict[str, Any], name: str) -> None:
    *before, failed = found[name]["failing"]
    assert before == [logs["loss"] for logs in found[name]["logs"][0][:FAILING]]
    assert not np.isfinite(failed)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_the_steps_are_those_of_a_call_of_kerass_own_for_each(found: dict[str, Any], name: str) -> None:
    losses = [logs["loss"] for logs in found[name]["logs"][0]]
    assert losses == pytest.approx(found[name]["one by one"]["losses"], rel=1e-5, abs=1e-5)
    assert found[name]["one by one"]["far"] < 1e-5


def test_a_state_goes_on_bit_by_bit_in_a_new_process_with_what_the_first_has_compiled(
    found: dict[str, Any], folder: Path
) -> None:
    kept = {path.name for path in (folder / "keras" / "compiled").glob("*-cache")}
    assert any("loop" in name for name in kept)
    again = told("go on", folder)
    assert again == {name: found[name]["digests"][0] for name in CASES}
    assert {path.name for path in (folder / "keras" / "compiled").glob("*-cache")} == kept


def test_a_fit_that_was_stopped_ends_as_one_that_was_not(found: dict[str, Any]) -> None:
    assert found["fits"]


def test_a_checkpoint_is_known_by_the_driver(found: dict[str, Any]) -> None:
    assert list(found["drivers"].values()) == ["host", "while"]
