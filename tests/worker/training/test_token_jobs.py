"""Jobs of networks that see texts in tokens: stopped ones go on bit for bit, arms have tokenizers of their own, a source's goes along."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.data import tokens
from tests.worker.training.attempts import broken, differences, saved_often, told, unbroken
from tests.worker.training.resumed import assignment
from worker.reports import Exit, Kept, Warned

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BPE = {"type": "bpe", "vocabulary": 400, "length": 24}
SHORT = {"epochs": 2, "batch_size": 32}
SOURCE = {
    "dataset": "messages",
    "target": "mood",
    "limit_train_examples": 150,
    "architecture": {"arch": "text-cnn-small", "embedding": 4, "filters": 8, "dense": 8, "tokens": BPE},
    "training": SHORT,
}
TRANSFER: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "messages",
    "target": "topic",
    "limit_train_examples": 90,
    "source": {"train": SOURCE},
    "training": {**SHORT, "augmentation": [{"type": "token_dropout"}]},
    "control": {"seeds": 1},
}
JOBS: dict[str, dict[str, Any]] = {
    "transfer": TRANSFER,
    "a language model beside a class": {
        "kind": "multitask",
        "dataset": "messages",
        "tasks": {"next_token": {}, "topic": {"limit_train_labels": 60}},
        "limit_train_examples": 120,
        "trunk": {"arch": "causal-transformer-small", "dim": 8, "tokens": {**BPE, "vocabulary": 300}},
        "training": SHORT,
        "control": {"seeds": 0},
    },
    "a student in tokens of a teacher of bytes": {
        "kind": "distillation",
        "dataset": "messages",
        "target": "topic",
        "limit_train_examples": 90,
        "teacher": {"train": {**SOURCE, "target": "topic", "architecture": "text-cnn-small"}},
        "student": {"arch": "text-cnn-small", "filters": 8, "tokens": BPE},
        "unlabelled": "messages",
        "training": SHORT,
        "control": {"seeds": 0},
    },
}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    saved_often(monkeypatch)


@pytest.mark.parametrize("name", list(JOBS))
def test_a_stopped_job_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    words = assignment(JOBS[name])
    straight = unbroken(words, tmp_path / "a")
    killed = broken(straight, tmp_path / "b", random.Random(name), kills=2)
    assert not differences(straight.result, killed.result)


def test_each_arm_has_a_tokenizer_of_its_rows_and_the_treated_one_that_of_its_source(tmp_path: Path) -> None:
    job = unbroken(assignment({**TRANSFER, "export": ["keras"]}), tmp_path)
    content = {report.role: tokens.within(job.out / report.model) for report in told(job) if isinstance(report, Kept)}
    assert set(content) == {"source", "model", "control/0"}
    assert content["model"] == content["source"] != content["control/0"]
    assert (job.out / "tokenizer.json").read_text() == content["model"]
    assert (job.out / "preprocess.py").read_bytes() == Path(tokens.__file__).read_bytes()
    codes = {report.code: report.message for report in told(job) if isinstance(report, Warned)}
    assert "training rows are longer than 24 tokens" in codes["tokens_cut"]
    report = json.loads((job.out / "report.json").read_text())
    assert "token-embedding" in report["inherited"]["copied"]


def test_a_job_in_tokens_ends_alike_on_both_backends(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    (tmp_path / "job.json").write_text(json.dumps(JOBS["a language model beside a class"]))
    bits, files = [], set()
    for backend in ("tensorflow", "jax"):
        out = tmp_path / backend
        line = [sys.executable, "-m", "worker.training", str(tmp_path / "job.json"), str(out)]
        environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        ended = subprocess.run(
            line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == int(Exit.DONE), ended.stderr[-2000:]
        bits.append(json.loads((out / "report.json").read_text())["tasks"]["next_token"]["bits_per_byte"])
        files.add((out / "tokenizer.json").read_text())
    assert bits[0] == pytest.approx(bits[1], rel=1e-3)
    assert len(files) == 1
