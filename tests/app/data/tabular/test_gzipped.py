from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest

from app.data.upload_limits import MIB, UploadLimits
from tests.app.data.tabular.reading import faults, lines, parquet, parse

CSV = b"a,y\n" + b"".join(b"%d.5,%d\n" % (n * n % 997, n % 2) for n in range(500))
WHOLE = gzip.compress(CSV)


def test_each_format_is_read_compressed_as_it_is_plain() -> None:
    rows = lines(*({"a": n + 0.5, "y": n % 2} for n in range(50)))
    columns = parquet({"a": np.arange(50) + 0.5, "y": np.arange(50) % 2})
    for content, kind in ((CSV, "csv"), (rows, "jsonl"), (columns, "parquet")):
        plain, packed = (parse(raw, format=kind) for raw in (content, gzip.compress(content)))
        assert plain.schema == packed.schema
        assert np.array_equal(plain.hashes, packed.hashes)


def test_members_one_after_another_are_one_file() -> None:
    half = len(CSV) // 2
    table = parse(gzip.compress(CSV[:half]) + gzip.compress(CSV[half:]) + bytes(100))
    assert np.array_equal(table.hashes, parse(CSV).hashes)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x1f\x8b", id="two bytes"),
        pytest.param(WHOLE[:10], id="head alone"),
        pytest.param(WHOLE[:-1], id="a byte short"),
        pytest.param(WHOLE[: len(WHOLE) // 2], id="half"),
        pytest.param(WHOLE + b"x", id="more behind it"),
        pytest.param(WHOLE + WHOLE[:20], id="half a second member"),
        pytest.param(WHOLE + b"PK\3\4", id="an archive behind it"),
        pytest.param(b"\x1f\x8b\x07" + WHOLE[3:], id="another method"),
        pytest.param(b"\x1f\x8b" + bytes(100), id="zeros"),
        pytest.param(WHOLE[:3] + b"\xff" + WHOLE[4:], id="all flags"),
        pytest.param(WHOLE[:-8] + bytes(4) + WHOLE[-4:], id="another checksum"),
        pytest.param(WHOLE[:-4] + bytes(4), id="another length"),
        pytest.param(WHOLE[:40] + bytes(10) + WHOLE[50:], id="a hole"),
        pytest.param(b"\x1f\x8b" + zlib.compress(CSV), id="zlib"),
        pytest.param(b"\x1f\x8b" + np.random.default_rng(0).bytes(500), id="noise"),
    ],
)
def test_a_damaged_archive_is_refused(content: bytes) -> None:
    (fault,) = faults(content)
    assert (fault.pointer, "damaged" in fault.message) == ("/file", True)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_bomb_is_refused_before_it_is_unpacked(format: str) -> None:
    (fault,) = faults(gzip.compress(b"1" * 20 * MIB, 9), format=format)
    assert "compressed more than 200 to 1" in fault.message


@pytest.mark.parametrize("says", ["more than 1048576 bytes"])
def test_more_than_may_be_decoded_is_refused(says: str) -> None:
    noise = np.random.default_rng(0).bytes(2 * MIB).hex().encode()
    (fault,) = faults(gzip.compress(b"a,y\n" + noise), limits=UploadLimits(decoded_bytes=MIB))
    assert says in fault.message


def test_what_is_in_the_archive_is_held_to_the_rules_of_its_format() -> None:
    assert "1 columns" in faults(gzip.compress(b"y\n1\n"))[0].message
    assert "0 columns" in faults(gzip.compress(b""))[0].message
    assert faults(gzip.compress(gzip.compress(CSV)))
