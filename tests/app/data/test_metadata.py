"""A metadata file within an archive: its columns are learnt, its rows name the files; folder names are then no labels."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data import decode
from app.spec.faults import Invalid
from tests.app.data.pictures import noise, saved, zipped
from tests.app.data.reading import taken

FILES = {f"shots/{'ab'[n % 2]}/{n}.png": saved(noise(n, 6, 6, 3)) for n in range(8)}
ROWS = [
    {
        "file_name": name,
        "species": "wren" if n % 3 else "robin",
        "weight": 10.5 + n,
        "seen": f"note {n} about this very bird",
    }
    for n, name in enumerate(sorted(FILES, reverse=True))
]


def as_csv() -> bytes:
    lines = [",".join(map(str, row.values())) for row in ROWS]
    return "\n".join([",".join(ROWS[0]), *lines]).encode()


def as_parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


METADATA = {
    "metadata.csv": as_csv(),
    "metadata.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "metadata.parquet": as_parquet(),
}


@pytest.mark.parametrize("name", METADATA)
def test_rows_come_in_the_metadatas_order_with_its_columns(tmp_path: Path, name: str) -> None:
    table, intake = taken(tmp_path, zipped(FILES | {name: METADATA[name]}), "zip", targets=["species"])
    assert (table.schema.target, table.schema.columns["species"].classes) == ("species", ["robin", "wren"])
    assert table.columns["species"].tolist() == [int(bool(n % 3)) for n in range(8)]
    assert table.columns["weight"].tolist() == [10.5 + n for n in range(8)]
    for number, row in enumerate(ROWS):
        pixels = decode.picture(FILES[row["file_name"]], size=(6, 6), mode="RGB", fit="exact")  # type: ignore[index]
        assert np.array_equal(table.inputs[number], pixels)
    readings = {reading.column: reading.read_as for reading in intake.columns}
    assert readings["weight"] == "number"
    assert "label" not in table.schema.columns


def test_within_one_folder_the_names_are_beside_the_metadata(tmp_path: Path) -> None:
    files = {f"data/{name}": content for name, content in (FILES | {"metadata.csv": METADATA["metadata.csv"]}).items()}
    table, intake = taken(tmp_path, zipped(files), "zip", targets=["species"])
    assert (len(table), intake.broken) == (8, [])


def test_what_is_on_one_side_alone_is_counted(tmp_path: Path) -> None:
    lines = (
        METADATA["metadata.csv"]
        + b"\nshots/gone.png,wren,3,no such file here\nshots/a/0.png,wren,3,the same once more\n"
    )
    files = FILES | {"metadata.csv": lines, "shots/more.png": saved(noise(99, 6, 6, 3))}
    with pytest.raises(Invalid, match="the archive lacks it"):
        taken(tmp_path, zipped(files), "zip", targets=["species"])
    table, intake = taken(tmp_path, zipped(files), "zip", targets=["species"], skip_broken=True)
    assert len(table) == 8
    broken = {counted.reason: counted.examples for counted in intake.broken}
    assert broken["the metadata names it, the archive lacks it"] == ["row 9: shots/gone.png"]
    assert broken["two rows of the metadata name it"] == ["row 10: shots/a/0.png"]
    assert [counted.examples for counted in intake.ignored] == [["shots/more.png"]]


def test_metadata_that_names_no_files_or_lacks_a_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no column file_name"):
        taken(tmp_path, zipped(FILES | {"metadata.csv": b"file,species\nshots/a/0.png,wren\n"}), "zip")
    with pytest.raises(Invalid, match="no such column"):
        taken(tmp_path, zipped(FILES | {"metadata.csv": METADATA["metadata.csv"]}), "zip", targets=["kind"])
    with pytest.raises(Invalid) as refused:
        taken(tmp_path, zipped(FILES | {"metadata.csv": b'file_name,a\n"x,1\n'}), "zip")
    assert refused.value.faults[0].pointer.startswith("/file")


def test_many_rows_without_a_file_beside_many_files_without_a_row_take_no_longer(tmp_path: Path) -> None:
    """Each of the rows was looked for among all the files: 20,000 of both took 13 s of the processor, and 100,000 more than there is."""
    count = 20_000
    rows = "file_name,y\n" + "".join(f"b/{n}.txt,{'uv'[n % 2]}\n" for n in range(count)) + "a/0.txt,u\na/1.txt,v\n"
    files = {f"a/{n}.txt": b"text %d" % n for n in range(count)} | {"metadata.csv": rows.encode()}
    began = time.process_time()
    _, intake = taken(tmp_path, zipped(files), "zip", skip_broken=True)
    assert (spent := time.process_time() - began) < 6, spent
    assert (intake.used, intake.broken[0].count, intake.ignored[0].count) == (2, count, count - 2)
