"""Uploads in the database and in the store: the same bytes once, in order, and not deletable under a job."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text

from app import artifacts, data, datasets, ids, intake
from app.data import builtins
from app.data.encode import encode_rows
from app.datasets import DatasetEntry
from app.db import transaction
from app.errors import Conflict, NotFound
from app.settings import settings
from app.spec.faults import Invalid
from app.spec.intake import UploadOptions
from app.spec.lookup import Missing
from app.tables import Dataset, Edge, Job, Model

pytestmark = pytest.mark.usefixtures("database")

CSV = b"size,colour,kind\n1,red,a\n2.5,blue,b\n3,red,\n"


@pytest.fixture(autouse=True)
def _empty_store(database: None) -> None:
    shutil.rmtree(settings().store, ignore_errors=True)


def upload(folder: Path, content: bytes = CSV, **options: object) -> tuple[DatasetEntry, bool]:
    raw = folder / ids.new("raw")
    raw.write_bytes(content)
    targets = options.pop("targets", [])
    return intake.add(raw, options=UploadOptions(targets=targets), **options)  # type: ignore[arg-type]


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def a_job(dataset: str, *, finished: bool) -> str:
    with transaction() as session:
        job = Job(
            id=ids.new("job"),
            kind="transfer",
            spec={},
            resolved_spec={},
            datasets=[{"ref": dataset, "id": dataset, "sha256": "0"}],
            state="queued",
            max_seconds=1,
            max_attempts=1,
        )
        session.add(job)
        session.flush()
        if finished:
            session.execute(
                text("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE id = :id"), {"id": job.id}
            )
        return job.id


def blobs() -> list[str]:
    folder = settings().store / "blob"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_upload_is_kept_and_a_trainer_can_read_it(tmp_path: Path) -> None:
    known, new = upload(tmp_path, name="things", filename="things.csv")
    assert new
    assert known.id.startswith("ds_")
    assert (known.name, known.format, known.builtin, known.bytes) == ("things", "csv", False, len(CSV))
    with transaction() as session:
        entry = datasets.entry(session, known.id)
        assert datasets.schema(session, known.id) == known.schema
    assert (entry["id"], entry["sha256"]) == (known.id, known.sha256)
    table = data.load(known.id, entry)
    assert table.inputs[:].tolist() == [[1, 1], [2.5, 0], [3, 1]]
    assert table.columns["kind"].tolist() == [0, 1, -1]
    assert table.schema == known.schema
    assert not list((settings().store / "tmp").iterdir())


def test_the_same_bytes_are_the_same_data_set(tmp_path: Path) -> None:
    first, new = upload(tmp_path, name="one")
    again, renewed = upload(tmp_path, name="two", format="csv")
    assert (new, renewed) == (True, False)
    assert again == first
    other, differs = upload(tmp_path, targets=["size", "kind"])
    assert differs
    assert other.id != first.id
    assert other.schema.target == "size"
    assert upload(tmp_path, targets=["size", "kind"]) == (other, False)


def test_twins_that_arrive_at_once_are_one_data_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: upload(tmp_path), range(3)))
    assert len({known.id for known, _ in answers}) == 1
    assert sorted(new for _, new in answers) == [False, False, True]


def test_bytes_that_a_twins_deletion_takes_away_in_between_are_kept_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = artifacts.keep_file, []

    def keep_and_lose_the_first(path: Path) -> artifacts.Stored:
        stored = real(path)
        calls.append(stored)
        if len(calls) == 1:
            artifacts.collect([stored.sha256])  # what a deletion that has just committed does
        return stored

    monkeypatch.setattr(artifacts, "keep_file", keep_and_lose_the_first)
    known, _ = upload(tmp_path)
    with transaction() as session:
        assert len(data.load(known.id, datasets.entry(session, known.id))) == 3
    assert len(calls) == 2


def test_nothing_is_stored_of_what_is_refused_and_every_fault_is_named(tmp_path: Path) -> None:
    bad = CSV.replace(b"2.5", b"inf")
    with pytest.raises(Invalid) as refused:
        upload(tmp_path, bad, name="../../etc", filename="a\x00b", targets=["kind"])
    assert [fault.pointer for fault in refused.value.faults] == ["/filename", "/name", "/file/column/size"]
    with pytest.raises(Invalid) as refused:
        upload(tmp_path, name="x" * 129)
    assert [fault.pointer for fault in refused.value.faults] == ["/name"]
    with transaction() as session:
        assert session.scalars(select(Dataset)).all() == []
    assert blobs() == []


@pytest.mark.parametrize("label", ["../up", "/etc/passwd", "c:\\x", "..", ".", "", " ", "a\nb", "a\u202eb", "n" * 129])
def test_a_label_that_looks_like_a_path_or_cannot_be_shown_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(Invalid) as refused:
        upload(tmp_path, b"", filename=label)
    assert [fault.pointer for fault in refused.value.faults] == ["/filename", "/file"]


def test_pages_hold_uploads_newest_first_then_the_built_in_ones(tmp_path: Path) -> None:
    made = [upload(tmp_path, CSV + b"%d,red,a\n" % n)[0].id for n in range(2)]
    expected = made[::-1] + list(builtins.BUILTINS)
    with transaction() as session:
        assert [known.id for known in datasets.page(session, limit=100)] == expected
        seen: list[str] = []
        while page := list(datasets.page(session, limit=2, before=seen[-1] if seen else None)):
            seen += [known.id for known in page]
        assert seen == expected


def test_built_ins_are_data_sets_like_any_other() -> None:
    with transaction() as session:
        digits = datasets.get(session, "digits")
        assert (digits.id, digits.builtin, digits.schema.rows) == ("digits", True, 1797)
        entry = datasets.entry(session, "digits")
        assert (entry["path"], entry["sha256"]) == (None, builtins.sha256("digits"))
        assert data.load("digits", entry) is builtins.load("digits")
        with pytest.raises(Conflict):
            datasets.delete(session, "digits")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with transaction() as session:
        with pytest.raises(Missing) as missing:
            datasets.schema(session, "digitz")
        assert str(missing.value.hint) == "did you mean 'digits'?"
        with pytest.raises(Missing):
            datasets.entry(session, "ds_0")
        with pytest.raises(NotFound, match="did you mean 'iris'"):
            datasets.get(session, "iriss")


def test_a_deleted_upload_is_gone_with_its_bytes(tmp_path: Path) -> None:
    known, _ = upload(tmp_path)
    other, _ = upload(tmp_path, CSV + b"4,red,b\n")
    assert len(blobs()) == 2
    with transaction() as session:
        datasets.delete(session, known.id)
    assert len(blobs()) == 1
    with transaction() as session:
        with pytest.raises(NotFound):
            datasets.get(session, known.id)
        with pytest.raises(NotFound):
            datasets.delete(session, known.id)
        assert Path(datasets.entry(session, other.id)["path"]).exists()
    assert upload(tmp_path)[1]


@pytest.mark.parametrize("finished", [False, True])
def test_a_data_set_is_not_deleted_under_a_job(tmp_path: Path, finished: bool) -> None:
    known, _ = upload(tmp_path)
    job = a_job(known.id, finished=finished)
    with transaction() as session, pytest.raises(Conflict, match=job) as refused:
        datasets.delete(session, known.id)
    assert refused.value.code == "dataset_in_use"
    with transaction() as session:
        session.execute(text("DELETE FROM jobs"))
    with transaction() as session:
        datasets.delete(session, known.id)


def test_a_data_set_is_not_deleted_under_a_model(tmp_path: Path) -> None:
    known, _ = upload(tmp_path)
    job = a_job("iris", finished=False)
    about = {"job_id": job, "attempt": 1, "role": "model", "name": "m", "version": 1}
    with transaction() as session:
        session.execute(
            text("UPDATE jobs SET state = 'running', attempt = 1, lease_until = now() WHERE id = :id"), {"id": job}
        )
        session.add(Model(id="mdl_1", **about, manifest={}, sha256="0", bytes=1))
        session.flush()
        session.add(Edge(model_id="mdl_1", relation="trained_on", target=known.id))
    with transaction() as session, pytest.raises(Conflict, match="mdl_1"):
        datasets.delete(session, known.id)


def test_a_data_set_that_a_submission_has_read_is_not_deleted_before_it_ends(tmp_path: Path) -> None:
    known, _ = upload(tmp_path)
    with transaction() as submitting:
        datasets.entry(submitting, known.id)
        with transaction() as deleting:
            deleting.execute(text("SET LOCAL lock_timeout = '200ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                datasets.delete(deleting, known.id)
            deleting.rollback()


def test_a_preview_is_what_predict_takes_with_the_labels_in_words(tmp_path: Path) -> None:
    known, _ = upload(tmp_path)
    with transaction() as session:
        rows = list(datasets.preview(session, known.id, 2))
        assert rows == [
            {"input": {"size": 1.0, "colour": "red"}, "kind": "a"},
            {"input": {"size": 2.5, "colour": "blue"}, "kind": "b"},
        ]
        assert list(datasets.preview(session, known.id))[2]["kind"] is None
        digits = list(datasets.preview(session, "digits", 3))
    assert [row["odd"] for row in digits] == ["even", "odd", "even"]
    shape = builtins.schema("digits").input
    assert np.array_equal(encode_rows([row["input"] for row in digits], shape), builtins.load("digits").inputs[:3])
    table = encode_rows([row["input"] for row in rows], known.schema.input)
    assert table.tolist() == [[1, 1], [2.5, 0]]


def test_a_preview_says_labels_vectors_and_missing_values(tmp_path: Path) -> None:
    known, _ = upload(
        tmp_path,
        npz(
            x=np.zeros((2, 3, 3)),
            tags=np.array([[1, 0], [1, 1]]),
            classes_tags=np.array(["cat", "dog"]),
            box=np.array([[0.5, 2], [np.nan, 1]]),
            weight=np.array([np.nan, 2.5]),
        ),
    )
    with transaction() as session:
        rows = list(datasets.preview(session, known.id))
    assert [{name: row[name] for name in ("tags", "box", "weight")} for row in rows] == [
        {"tags": ["cat"], "box": [0.5, 2.0], "weight": None},
        {"tags": ["cat", "dog"], "box": None, "weight": 2.5},
    ]


def test_labels_that_are_not_known_are_told_from_labels_that_are_not_set(tmp_path: Path) -> None:
    known, _ = upload(tmp_path, npz(x=np.zeros((2, 2)), tags=np.array([[np.nan, np.nan], [0, 0]])))
    with transaction() as session:
        assert [row["tags"] for row in list(datasets.preview(session, known.id))] == [None, []]


def test_a_preview_of_large_pictures_holds_fewer_of_them(tmp_path: Path) -> None:
    pictures = np.zeros((8, 600, 600), np.uint8)
    known, _ = upload(tmp_path, npz(x=pictures, y=np.arange(8) % 2))
    with transaction() as session:
        assert len(list(datasets.preview(session, known.id, 100))) == 2
    with pytest.raises(Invalid, match="a row has"):
        upload(tmp_path, npz(x=np.zeros((2, 2049, 2048), np.uint8), y=np.arange(2)))
