"""The child that reads an upload: its walls, its deadline, and what comes back."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.data import builtins, prepared
from app.data.upload_limits import MIB, UploadLimits
from app.data.uploads import format_of, inspect_upload
from app.spec.faults import Invalid
from app.spec.intake import UploadOptions
from tests.app.data.tabular.reading import parquet
from tests.small_disk import fill, free, small_disk

ROOT = Path(__file__).parents[3]


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "raw"
    path.write_bytes(content)
    return path


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_an_npz_becomes_a_prepared_file(tmp_path: Path) -> None:
    digits = builtins.load("digits")
    raw = file_of(tmp_path, npz(x=digits.inputs, digit=digits.columns["digit"]))
    schema, _ = inspect_upload(raw, None, tmp_path / "out.npz")
    table = prepared.read(tmp_path / "out.npz")
    assert schema == table.schema
    assert np.array_equal(table.inputs[:], digits.inputs)
    assert np.array_equal(table.hashes, digits.hashes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "raw"]


def test_a_csv_becomes_a_prepared_file(tmp_path: Path) -> None:
    lines = ["größe,wort,y", *(f"{n},w{n % 7},{n % 3}" for n in range(50_000))]
    raw = file_of(tmp_path, "\n".join(lines).encode())
    schema, _ = inspect_upload(raw, None, tmp_path / "out.npz", UploadOptions(targets=["y", "größe:number"]))
    assert (schema.rows, schema.input.shape, list(schema.columns)) == (50_000, [1], ["y", "größe"])
    assert prepared.read(tmp_path / "out.npz").columns["größe"][-1] == 49_999


def test_faults_come_back_whole_and_nothing_is_left(tmp_path: Path) -> None:
    raw = file_of(tmp_path, b"a,b,y\ninf,1,0\n1,1e39,1\n")
    with pytest.raises(Invalid) as refused:
        inspect_upload(raw, "csv", tmp_path / "out.npz")
    assert [fault.pointer for fault in refused.value.faults] == ["/file/column/a", "/file/column/b"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_child_out_of_memory_is_a_fault(tmp_path: Path) -> None:
    text = b"a,y\n" + (b"1," + b"w" * 400 + b"\n") * 200_000
    with pytest.raises(Invalid) as refused:
        inspect_upload(
            file_of(tmp_path, text),
            None,
            tmp_path / "out",
            limits=UploadLimits(decoded_bytes=4 * MIB, spare_bytes=-8 * MIB),
        )
    assert [fault.pointer for fault in refused.value.faults] == ["/file"]
    assert "memory" in refused.value.faults[0].message


def test_a_child_out_of_time_is_killed(tmp_path: Path) -> None:
    raw = file_of(tmp_path, npz(x=np.zeros((3, 2))))
    start = time.perf_counter()
    with pytest.raises(Invalid) as refused:
        inspect_upload(raw, None, tmp_path / "out", limits=UploadLimits(wall_seconds=0.05))
    assert time.perf_counter() - start < 20
    assert refused.value.faults[0].message == "reading it took longer than an upload may take"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x93NUMPY\x01\x00", "single array"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x1f\x8bxxxxxxxxxxx", "gzip"),
        (gzip.compress(npz(x=np.zeros(2))), "archive within"),
        (b"a\0b", "neither"),
        ("a,b\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        format_of(file_of(tmp_path, content), None)


def test_the_first_bytes_say_which_format_a_table_has(tmp_path: Path) -> None:
    for content, expected in (
        (b"a,y\n1,2\n", "csv"),
        (b"\xef\xbb\xbf[a],y\n1,2\n", "csv"),
        (b'\xef\xbb\xbf {"a": 1}\n', "jsonl"),
        (b'[\n {"a": 1}]\n', "jsonl"),
        (b"PAR1....", "parquet"),
    ):
        assert format_of(file_of(tmp_path, content), None) == expected
        assert format_of(file_of(tmp_path, gzip.compress(content)), None) == expected


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_table_of_each_format_becomes_the_same_prepared_file(tmp_path: Path, format: str) -> None:
    columns = {"age": [30.5, None, 7.25], "city": ["Bonn", "Köln", None], "when": ["2026-11-27", None, "2026-11-28"]}
    columns["y"] = ["u", "v", "u"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    content = {
        "csv": "\n".join(
            [",".join(columns), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        ),
        "jsonl": "\n".join(map(json.dumps, rows)),
    }
    raw = content[format].encode() if format in content else parquet(columns)
    schema, _ = inspect_upload(file_of(tmp_path, gzip.compress(raw)), None, tmp_path / "out.npz")
    assert [feature.column for feature in schema.input.features] == ["age", "city", *["when"] * 7]
    table = prepared.read(tmp_path / "out.npz")
    assert np.array_equal(table.inputs[:][:, :2], np.float32([[30.5, 0], [np.nan, 1], [7.25, np.nan]]), equal_nan=True)
    narrow, _ = inspect_upload(file_of(tmp_path, raw), format, tmp_path / "out.npz", UploadOptions(inputs=["city"]))
    assert [feature.column for feature in narrow.input.features] == ["city"]
    assert narrow.rows == 3


@pytest.mark.slow
def test_three_million_rows_of_parquet_go_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 3_000_000
    columns = {f"x{k}": rng.normal(size=n) for k in range(3)}
    raw = parquet(columns | {"city": rng.choice([f"c{k}" for k in range(40)], n), "y": rng.integers(0, 3, n)})
    begun = time.perf_counter()
    schema, _ = inspect_upload(file_of(tmp_path, raw), None, tmp_path / "out.npz")
    assert (schema.rows, schema.input.shape) == (n, [4])
    assert time.perf_counter() - begun < 60  # it takes 3 seconds


def test_a_format_is_believed_only_if_it_is_known(tmp_path: Path) -> None:
    raw = file_of(tmp_path, b"a,y\n1,2\n")
    assert format_of(raw, "npz") == "npz"
    with pytest.raises(Invalid) as refused:
        inspect_upload(raw, "npz", tmp_path / "out")
    assert refused.value.faults[0].message == "not an npz: no zip archive ends here"
    with pytest.raises(Invalid) as refused:
        format_of(raw, "xlsx")
    assert refused.value.faults[0].pointer == "/format"


WALLS = """
import json, os, resource, socket, sys
from app.data import sandbox
walls = sandbox.confine(memory_bytes=64 * 2**20, cpu_seconds=5, file_bytes=1000)
tried = {}
def attempt(name, action):
    try:
        action()
    except (OSError, MemoryError) as error:
        tried[name] = type(error).__name__
    else:
        tried[name] = None
attempt("memory", lambda: bytearray(80 * 2**20))
attempt("fork", os.fork)
attempt("file", lambda: os.write(os.open(sys.argv[1], os.O_WRONLY), b"x" * 2000) == 2000 or os.write(3, b""))
attempt("connect", lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[2]))))
attempt("many files", lambda: [os.dup(0) for _ in range(100)])
print(json.dumps([walls, tried, os.geteuid(), resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_CPU)]))
"""


def test_the_walls_stand(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    out.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = subprocess.run(
            [sys.executable, "-c", WALLS, str(out), str(server.getsockname()[1])],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    protections, tried, user, core, cpu = json.loads(said.stdout)
    assert {"memory", "cpu", "files", "core", "privileges", "processes"} <= set(protections)
    assert tried["memory"] == "MemoryError"
    assert tried["many files"] == "OSError"
    assert out.stat().st_size <= 1000
    assert (core, cpu) == ([0, 0], [5, 6])
    assert user != 0
    if "network" in protections:
        assert tried["connect"] is not None
    if os.geteuid() == 0:
        assert "user" in protections
        assert tried["fork"] == "BlockingIOError"


def test_a_child_that_burns_its_time_ends() -> None:
    program = "from app.data import sandbox\nsandbox.confine(memory_bytes=2**26, cpu_seconds=1, file_bytes=0)\nwhile True: pass"
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", program], timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert ended.returncode < 0
    assert time.perf_counter() - start < 30


def test_the_child_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://canary")
    seen = tmp_path / "seen"
    real = subprocess.Popen

    def spy(*args: object, **options: dict[str, str]) -> object:
        seen.write_text(str(options["env"]))
        return real(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", spy)
    inspect_upload(file_of(tmp_path, npz(x=np.zeros((3, 2)))), None, tmp_path / "out")
    assert "canary" not in seen.read_text()
    assert "DATABASE_URL" not in seen.read_text()


@pytest.mark.parametrize("kept", [0, 4096, 8192, 12_288, 16_384, 65_536])
def test_a_full_disk_is_no_fault_of_the_file(tmp_path: Path, kept: int) -> None:
    raw = file_of(tmp_path, b"a,b,y\n" + b"1,2,x\n3,4,y\n" * 4000)
    with small_disk(tmp_path / "disk", 2) as disk:
        fill(disk, kept)
        with pytest.raises(OSError, match="No space left"):
            inspect_upload(raw, "csv", disk / "out.npz")
        free(disk)
        assert list(disk.iterdir()) == []
        assert inspect_upload(raw, "csv", disk / "out.npz")[0].rows == 8000
