"""Kept files and kept models.

Durable before they are named, found by every form of reference, not deletable under an heir.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app import artifacts, assignments, ids, jobs, methods, models
from app.data import builtins
from app.db import transaction
from app.errors import Conflict, NotFound
from app.settings import settings
from app.spec.imports import Origin
from app.spec.models import Manifest, TaskManifest
from app.states import JobState
from app.tables import Job

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _empty_store(database: None) -> None:
    shutil.rmtree(settings().store, ignore_errors=True)


MANIFEST = Manifest(
    role="model",
    architecture={"arch": "mlp"},
    input=builtins.schema("iris").input,
    tasks={"species": TaskManifest(type="multiclass", column="species", classes=["a", "b", "c"], units=3)},
    layers=["dense1"],
    parameters=10,
    sha256="0" * 64,
    versions={},
)


def a_job(name: str | None = None, state: str = "running", spec: dict[str, object] | None = None) -> Job:
    """A job in its first attempt, unless it is to be queued; only a running one can keep anything."""
    with transaction() as session:
        job = Job(
            id=ids.new("job"),
            kind="transfer",
            name=name,
            spec={},
            resolved_spec=spec or {},
            state="queued",
            max_seconds=1,
            max_attempts=1,
        )
        session.add(job)
        session.flush()
        if state == "running":
            session.execute(
                text("UPDATE jobs SET state = 'running', attempt = 1, lease_until = now() WHERE id = :id"),
                {"id": job.id},
            )
            session.refresh(job)
    return job


def succeed(*ended: Job) -> None:
    with transaction() as session:
        for job in ended:
            session.execute(
                text("UPDATE jobs SET state = 'succeeded', lease_until = NULL, finished_at = now() WHERE id = :id"),
                {"id": job.id},
            )


def kept(job: Job, path: Path, role: str = "model", edges: tuple[tuple[str, str], ...] = ()) -> str:
    path.write_bytes(f"{job.id} {role}".encode())
    with transaction() as session:
        row = jobs.get(session, job.id)
        return models.keep(session, row, row.attempt, role, artifacts.keep_file(path), None, MANIFEST, edges).id


def test_a_kept_file_lies_under_its_hash_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same" * 1_000_000)
    (tmp_path / "b").write_bytes(b"same" * 1_000_000)
    first, second = artifacts.keep_file(tmp_path / "a"), artifacts.keep_file(tmp_path / "b")
    assert first == second
    assert first.sha256 == hashlib.sha256(b"same" * 1_000_000).hexdigest()
    assert first.bytes == 4_000_000
    assert artifacts.blob(first.sha256).read_bytes() == (tmp_path / "a").read_bytes()
    assert list((settings().store / "tmp").iterdir()) == []


def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        artifacts.keep_file(tmp_path / "missing")
    assert list((settings().store / "tmp").iterdir()) == []


def test_racing_writers_of_one_content_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    with ThreadPoolExecutor(8) as pool:
        stored = set(pool.map(lambda _: artifacts.keep_file(tmp_path / "a"), range(16)))
        links = set(pool.map(lambda _: artifacts.model_file(next(iter(stored)).sha256), range(16)))
    assert len(stored) == len(links) == 1
    assert next(iter(links)).read_bytes() == b"x" * 3_000_000
    assert next(iter(links)).suffix == ".keras"


def test_a_model_is_found_by_every_form_of_reference(tmp_path: Path) -> None:
    job = a_job("flowers")
    source, own = kept(job, tmp_path / "s", "source"), kept(job, tmp_path / "m")
    newer = kept(a_job("flowers"), tmp_path / "n")
    with transaction() as session:
        for ref, expected in {
            own: own,
            f"job:{job.id}": own,
            f"job:{job.id}/best": own,
            f"job:{job.id}/source": source,
            "model:flowers": newer,
            "model:flowers@1": own,
            "model:flowers@2": newer,
            "model:flowers/source": source,
        }.items():
            assert models.get(session, ref).id == expected, ref
        for ref in (
            "mdl_0",
            "job:job_0",
            f"job:{job.id}/teacher",
            "model:flowers@3",
            "model:flowers@99999999999999",
            "model:weeds",
        ):
            with pytest.raises(NotFound):
                models.get(session, ref)


def test_a_role_that_is_kept_stays_as_it_is(tmp_path: Path) -> None:
    job = a_job()
    assert kept(job, tmp_path / "s", "source") == kept(job, tmp_path / "t", "source")


def test_edges_name_the_models_of_the_same_job(tmp_path: Path) -> None:
    job = a_job()
    source = kept(job, tmp_path / "s", "source", (("trained_on", "strokes"),))
    own = kept(job, tmp_path / "m", "model", (("initialized_from", "source"), ("trained_on", "digits")))
    with transaction() as session:
        assert {(edge.relation, edge.target) for edge in models.edges(session, [own])} == {
            ("initialized_from", source),
            ("trained_on", "digits"),
        }


def test_a_job_with_heirs_cannot_be_deleted(tmp_path: Path) -> None:
    parent, heir = a_job(), a_job()
    inherited = kept(parent, tmp_path / "p")
    model = kept(heir, tmp_path / "h", "model", (("distilled_from", inherited),))
    waiting = a_job(state="queued", spec={"source": f"job:{parent.id}/source", "tasks": {"a": {"teacher": None}}})
    with transaction() as session:
        assert models.dependents(session, parent.id) == sorted([model, waiting.id])
        assert models.dependents(session, heir.id) == []
    succeed(parent, heir)
    with pytest.raises(Conflict, match="Still needed by"), transaction() as session:
        jobs.delete(session, parent.id)
    with transaction() as session:
        jobs.cancel(session, waiting.id)
        jobs.delete(session, heir.id)
        jobs.delete(session, parent.id)
        assert list(models.page(session)) == []
    assert list((settings().store / "blob").glob("*")) == []


def test_bytes_that_another_job_keeps_too_outlive_a_deleted_one(tmp_path: Path) -> None:
    (tmp_path / "same").write_bytes(b"the same report")
    one, other = a_job(), a_job()
    stored = artifacts.keep_file(tmp_path / "same")
    for job in (one, other):
        with transaction() as session:
            artifacts.add(session, job.id, 1, "report.json", stored)
    succeed(one, other)
    for job, left in ((one, True), (other, False)):
        with transaction() as session:
            jobs.delete(session, job.id)
        assert artifacts.blob(stored.sha256).exists() is left


def test_old_bytes_that_no_row_names_go_and_all_others_stay(tmp_path: Path) -> None:
    job = a_job()
    own = kept(job, tmp_path / "m")
    stored = {}
    for name in ("named", "unnamed", "new"):
        (tmp_path / name).write_text(name)
        stored[name] = artifacts.keep_file(tmp_path / name)
    with transaction() as session:
        artifacts.add(session, job.id, 1, "named", stored["named"])
        model = models.get(session, own)
    for sha256 in (model.sha256, stored["named"].sha256, stored["unnamed"].sha256):
        os.utime(artifacts.blob(sha256), (time.time() - 90_000,) * 2)
    artifacts.collect_unnamed()
    there = {name: artifacts.blob(file.sha256).exists() for name, file in stored.items()}
    assert there == {"named": True, "unnamed": False, "new": True}
    assert artifacts.blob(model.sha256).exists()
    os.utime(artifacts.blob(stored["new"].sha256), (time.time() - 90_000,) * 2)
    artifacts.keep_file(tmp_path / "new")
    artifacts.collect_unnamed()
    assert artifacts.blob(stored["new"].sha256).exists(), "it was kept again just now"


def test_no_row_can_name_bytes_that_are_gone() -> None:
    with pytest.raises(FileNotFoundError), transaction() as session:
        artifacts.add(session, a_job().id, 1, "x", artifacts.Stored("0" * 64, 1))


def test_bytes_that_a_row_is_about_to_name_are_not_collected(tmp_path: Path) -> None:
    job = a_job()
    (tmp_path / "file").write_bytes(b"a report")
    stored = artifacts.keep_file(tmp_path / "file")
    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            artifacts.add(session, job.id, 1, "report.json", stored)
            collected = pool.submit(artifacts.collect, [stored.sha256])
            time.sleep(0.3)
            assert not collected.done()
        collected.result(10)
    assert artifacts.blob(stored.sha256).exists()


def test_versions_of_one_name_are_counted_in_turn(tmp_path: Path) -> None:
    first, second = a_job("flowers"), a_job("flowers")
    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            (tmp_path / "m").write_bytes(b"weights")
            stored = artifacts.keep_file(tmp_path / "m")
            models.keep(session, jobs.get(session, first.id), 1, "model", stored, None, MANIFEST, [])
            later = pool.submit(kept, second, tmp_path / "n")
            time.sleep(0.3)
            assert not later.done()
        later.result(10)
    with transaction() as session:
        assert models.get(session, "model:flowers@2").job_id == second.id


def test_an_artifact_of_a_later_attempt_replaces_an_earlier_one_s(tmp_path: Path) -> None:
    job = a_job()
    for attempt, content in ((1, b"old"), (2, b"new")):
        (tmp_path / "f").write_bytes(content)
        with transaction() as session:
            if attempt == 2:
                session.execute(text("UPDATE jobs SET state = 'queued', lease_until = NULL"))
                session.execute(text("UPDATE jobs SET state = 'running', lease_until = now(), attempt = 2"))
            artifacts.add(session, job.id, attempt, "report.json", artifacts.keep_file(tmp_path / "f"))
    with transaction() as session:
        found = artifacts.get(session, job.id, "report.json")
        assert artifacts.blob(found.sha256).read_bytes() == b"new"
        assert [artifact.name for artifact in artifacts.of_job(session, job.id)] == ["report.json"]
        with pytest.raises(NotFound, match=r"It has: report\.json"):
            artifacts.get(session, job.id, "model.keras")


def test_a_submitted_job_is_tied_to_the_model_that_its_reference_named_then(tmp_path: Path) -> None:
    first = kept(a_job("flowers"), tmp_path / "a")
    body = {
        "kind": "transfer",
        "name": "model:flowers",
        "dataset": "iris",
        "source": "model:flowers",
        "training": {"epochs": 1},
    }
    with transaction() as session:
        job = jobs.submit(session, body)
    kept(a_job("flowers"), tmp_path / "b")
    with transaction() as session:
        assert job.resolved_spec["source"] == first
        assert (job.spec["source"], job.resolved_spec["name"]) == ("model:flowers", "model:flowers")
        assert assignments.assignment(session, jobs.get(session, job.id))["models"][first]["id"] == first
        owner = jobs.get(session, models.get(session, first).job_id)
    succeed(owner)
    with pytest.raises(Conflict, match="Still needed by"), transaction() as session:
        jobs.delete(session, owner.id)


def heir_of(model_id: str) -> dict[str, object]:
    return {"kind": "transfer", "dataset": "iris", "source": model_id, "training": {"epochs": 1}}


def test_a_discard_spares_what_another_job_is_tied_to(tmp_path: Path) -> None:
    parent = a_job(state="queued")
    claim = jobs.claim("w")
    assert claim is not None
    source = kept(parent, tmp_path / "s", "source")
    with transaction() as session:
        heir = jobs.submit(session, heir_of(source)).id
        jobs.cancel(session, parent.id, discard=True)
    with transaction() as session:
        jobs.finish(session, claim, JobState.CANCELLED, reason="cancelled_by_client")
    with transaction() as session:
        assert jobs.get(session, parent.id).state == JobState.CANCELLED
        assert assignments.assignment(session, jobs.get(session, heir))["models"][source]["id"] == source


def test_a_delete_waits_for_a_submission_that_inherits_and_is_refused(tmp_path: Path) -> None:
    parent = a_job()
    model = kept(parent, tmp_path / "m")
    succeed(parent)

    def delete() -> None:
        with transaction() as session:
            jobs.delete(session, parent.id)

    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            jobs.submit(session, heir_of(model))
            deleted = pool.submit(delete)
            time.sleep(0.3)
            assert not deleted.done()
        with pytest.raises(Conflict, match="Still needed by"):
            deleted.result(10)


def test_a_submission_that_inherits_waits_for_a_delete_and_is_refused(tmp_path: Path) -> None:
    parent = a_job()
    model = kept(parent, tmp_path / "m")
    succeed(parent)

    def submit() -> None:
        with transaction() as session:
            jobs.submit(session, heir_of(model))

    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            jobs.delete(session, parent.id)
            submitted = pool.submit(submit)
            time.sleep(0.3)
            assert not submitted.done()
        with pytest.raises(Conflict, match="was deleted just now"):
            submitted.result(10)


def test_a_submission_is_refused_whose_model_goes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = a_job()
    model = kept(parent, tmp_path / "m")
    succeed(parent)

    def check(*given: Any) -> Any:
        spec = methods_check(*given)
        with transaction() as session:
            jobs.delete(session, parent.id)
        return spec

    methods_check = methods.check
    monkeypatch.setattr(methods, "check", check)
    with pytest.raises(Conflict, match=f"{model} was deleted just now"), transaction() as session:
        jobs.submit(session, heir_of(model))


def test_free_words_hold_nothing_back(tmp_path: Path) -> None:
    parent = a_job()
    kept(parent, tmp_path / "m")
    succeed(parent)
    a_job(state="queued", spec={"name": f"job:{parent.id}", "metadata": {"after": parent.id}})
    with transaction() as session:
        jobs.delete(session, parent.id)


def test_an_unfinished_model_goes_with_the_next_finished_stage(tmp_path: Path) -> None:
    job = a_job()
    kept(job, tmp_path / "u", "unfinished")
    source = kept(job, tmp_path / "s", "source")
    with transaction() as session:
        assert [model.id for model in models.of_job(session, job.id)] == [source]
        assert models.outcome(session, job.id) is None


@pytest.mark.parametrize("discard", [False, True])
def test_a_cancel_keeps_finished_stages_unless_they_are_discarded(discard: bool, tmp_path: Path) -> None:
    waiting = a_job(state="queued")
    claim = jobs.claim("w")
    assert claim is not None
    kept(waiting, tmp_path / "s", "source")
    (tmp_path / "log").write_text("log")
    with transaction() as session:
        for name in ("source.keras", "trainer.log"):
            artifacts.add(
                session,
                waiting.id,
                1,
                name,
                artifacts.keep_file(tmp_path / ("log" if name.endswith("log") else "s")),
            )
        jobs.cancel(session, waiting.id, discard=discard)
    with transaction() as session:
        jobs.finish(session, claim, JobState.CANCELLED, reason="cancelled_by_client")
    with transaction() as session:
        assert [model.role for model in models.of_job(session, waiting.id)] == ([] if discard else ["source"])
        names = [artifact.name for artifact in artifacts.of_job(session, waiting.id)]
        assert names == (["trainer.log"] if discard else ["source.keras", "trainer.log"])
    assert len(list((settings().store / "blob").iterdir())) == (1 if discard else 2)


def sent(path: Path, sha256: str = "1" * 64, **options: Any) -> tuple[str, bool]:
    path.write_bytes(b"a model that was sent")
    origin = Origin(file="mine.keras", sha256=sha256, bytes=1, options=options)
    with transaction() as session:
        model, new = models.add(
            session, "mine", artifacts.keep_file(path), MANIFEST.model_copy(update={"origin": origin})
        )
        return model.id, new


def test_of_equal_files_that_come_at_once_one_becomes_a_model(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: sent(tmp_path / str(number)), range(8)))
    assert len({model for model, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    other, new = sent(tmp_path / "x", scale="0..1")
    assert new
    with transaction() as session:
        assert {model.version for model in models.page(session, name="mine")} == {1, 2}
        assert models.get(session, "model:mine").id == other


def test_a_model_that_was_sent_goes_but_not_under_an_heir(tmp_path: Path) -> None:
    model, _ = sent(tmp_path / "x")
    heir = a_job(spec={"source": model})
    with transaction() as session, pytest.raises(Conflict, match=heir.id):
        models.delete(session, model)
    job = a_job()
    own = kept(job, tmp_path / "own")
    with transaction() as session, pytest.raises(Conflict, match="goes with it"):
        models.delete(session, own)
    succeed(heir)
    with transaction() as session:
        models.delete(session, model)
    with transaction() as session, pytest.raises(NotFound):
        models.delete(session, model)
    assert not artifacts.blob(hashlib.sha256(b"a model that was sent").hexdigest()).exists()
