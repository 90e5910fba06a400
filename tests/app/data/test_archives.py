"""Malformed and hostile archives: refused or counted, with their place, and nothing is written where a name says."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.data.upload_limits import UploadLimits
from app.spec.faults import Invalid
from tests.app.data.pictures import class_folders, noise, saved, tarred, zipped
from tests.app.data.reading import taken

GOOD = class_folders(4)
ZIP, TAR = zipped(GOOD), tarred(GOOD)
PICTURE = GOOD["cats/1.png"]


def with_zip_member(change: Callable[[zipfile.ZipInfo], None], content: bytes = PICTURE) -> bytes:
    """`GOOD`, and a member whose header was changed."""
    file = io.BytesIO(ZIP)
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo("cats/odd.png")
        change(info)
        archive.writestr(info, content)
    return file.getvalue()


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """With bytes changed behind the last `signature`."""
    at = content.rindex(signature) + offset
    return content[:at] + value + content[at + len(value) :]


def tar_with(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in GOOD.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tar_size(size: int) -> bytes:
    """A tar whose second member says another size than it has, in GNU's way, which knows numbers below zero."""
    content = bytearray(tarred({"a/1.txt": b"one", "a/2.txt": b"two", "a/3.txt": b"three"}, "w"))
    content[1024 + 124 : 1024 + 136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    content[1024 + 148 : 1024 + 156] = b" " * 8
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(content[1024 : 1024 + 512])
    return bytes(content)


def headers_within_headers() -> bytes:
    """A long name, whose header is of a long name, whose header …"""
    header = tar_with(tar_entry("././@LongLink", tarfile.GNUTYPE_LONGNAME), b"a/1.txt\0")[-10240:]
    at = header.index(b"././@LongLink")
    return header[at : at + 1024] * 3000


BOMB = b"BM" + bytes(16) + struct.pack("<iiiHH", 40, 60000, 60000, 1, 24) + bytes(40)
CENTRAL = b"PK\1\2"
SMALL = UploadLimits(files=5, file_bytes=100_000, archive_bytes=1_000_000)

REFUSED = {
    "zip cut off": ("zip", ZIP[:-30], "no zip archive ends here"),
    "zip without its end": ("zip", ZIP[: len(ZIP) // 2], "no zip archive ends here"),
    "zip of zeros": ("zip", b"PK\3\4" + b"\0" * 200, "no zip archive ends here"),
    "zip of nothing": ("zip", b"PK\5\6" + b"\0" * 18, "empty"),
    "zip whose directory is noise": ("zip", patched(ZIP, CENTRAL, 0, b"\xff" * 30), "damaged"),
    "zip of too many": ("zip", zipped({f"{n}.png": b"" for n in range(6)}), "at most 5"),
    "zip of too many that says it has one": (
        "zip",
        patched(zipped({f"{n}.png": b"" for n in range(6)}), b"PK\5\6", 8, struct.pack("<HH", 1, 1)),
        "at most 5",
    ),
    "zip of zeros compressed": ("zip", zipped({"a/1.png": b"\0" * 900_000_0}), "compressed more than"),
    "zip that claims more than is kept": ("zip", patched(ZIP, CENTRAL, 24, struct.pack("<I", 2**31)), "bytes"),
    "zip whose members overlap": ("zip", patched(ZIP, CENTRAL, 20, struct.pack("<I", 2**30)), "more bytes than"),
    "tar cut off": ("tar", TAR[: len(TAR) // 2], "damaged"),
    "tar of noise": ("tar", bytes(range(256)) * 40, "damaged"),
    "tar that is empty": ("tar", tarred({}), "empty"),
    "tar whose checksum is wrong": ("tar", b"\xff" + tarred(GOOD, "w")[1:], "damaged"),
    "tar of too many": ("tar", tarred({f"{n}.png": b"" for n in range(7)}), "at most 5"),
    "tar that leads back": ("tar", tar_size(-512), "damaged"),
    "tar of more than there is": ("tar", tar_size(2**40), "damaged"),
    "tar of headers within headers": ("tar", headers_within_headers(), "damaged"),
    "gzip bomb": ("tar", gzip.compress(b"\0" * 3_000_000), "decompresses to more than"),
    "gzip of noise": ("tar", b"\x1f\x8b\x08\0" + bytes(range(200)), "damaged"),
    "gzip with a wrong sum": ("tar", TAR[:-8] + b"\0" * 8, "damaged"),
    "only folders": ("zip", zipped({"cats/": b"", "dogs/": b""}), "empty"),
    "only an archive": ("zip", zipped({"inner.zip": ZIP}), "an archive within"),
    "only links": ("tar", tar_with(tar_entry("a"))[:0] + tarred({"x.lnk": b""}), "no file in the archive"),
}

COUNTED = {
    "a link in a zip": ("zip", with_zip_member(link, b"/etc/passwd"), "a link"),
    "a symbolic link": ("tar", tar_with(tar_entry("cats/l.png", tarfile.SYMTYPE, "/etc/passwd")), "a link"),
    "a hard link": ("tar", tar_with(tar_entry("cats/l.png", tarfile.LNKTYPE, "cats/1.png")), "a link"),
    "a device": ("tar", tar_with(tar_entry("cats/null.png", tarfile.CHRTYPE)), "no plain file"),
    "a pipe": ("tar", tar_with(tar_entry("cats/pipe.png", tarfile.FIFOTYPE)), "no plain file"),
    "an encrypted file": ("zip", patched(ZIP, CENTRAL, 8, b"\1\0"), "encrypted"),
    "an odd compression": ("zip", patched(ZIP, CENTRAL, 10, b"\x63\0"), "compressed in a way"),
    "a wrong checksum": ("zip", patched(ZIP, CENTRAL, 16, b"\0\0\0\0"), "damaged"),
    "a size that lies": ("zip", patched(ZIP, CENTRAL, 24, struct.pack("<I", 10)), "damaged|archive says"),
    "bytes that lie elsewhere": ("zip", patched(ZIP, CENTRAL, 42, struct.pack("<I", 7)), "damaged"),
    "a file that is too long": ("zip", zipped(GOOD | {"cats/l.png": saved(noise(0, 200, 200, 3))}), "at most 100000"),
    "HTML named .jpg": ("zip", zipped(GOOD | {"cats/l.jpg": b"<html>404"}), "HTML"),
    "a video named .jpg": ("zip", zipped(GOOD | {"cats/l.jpg": b"\0\0\0\x20ftypmp42"}), "video"),
    "an empty file": ("zip", zipped(GOOD | {"cats/l.jpg": b""}), "empty"),
    "a zip that is a picture too": ("zip", zipped(GOOD | {"cats/l.png": ZIP}), "zip"),
    "a bomb of pixels": (
        "zip",
        zipped(GOOD | {"cats/l.bmp": BOMB}),
        "picture|pixels",
    ),
}


IGNORED = {
    "an absolute name": ("tar", tar_with(tar_entry("/cats/1.png"), PICTURE)),
    "a name that climbs": ("tar", tar_with(tar_entry("../../cats/1.png"), PICTURE)),
    "a Windows path that climbs": ("zip", zipped(GOOD | {"cats\\..\\1.png": PICTURE})),
    "a name with both slashes": ("zip", zipped(GOOD | {"cats/a\\1.png": PICTURE})),
    "a name with a control character": ("zip", zipped(GOOD | {"cats/a\nb.png": PICTURE})),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_archive_is_refused_in_words(tmp_path: Path, name: str) -> None:
    kind, content, says = REFUSED[name]
    with pytest.raises(Invalid, match=says) as refused:
        taken(tmp_path, content, kind, limits=SMALL)
    assert all(fault.pointer.startswith("/file") and fault.hint for fault in refused.value.faults)
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


@pytest.mark.parametrize("name", COUNTED)
def test_a_malformed_member_is_counted_and_the_rest_is_read(tmp_path: Path, name: str) -> None:
    kind, content, says = COUNTED[name]
    with pytest.raises(Invalid, match=says):
        taken(tmp_path, content, kind, limits=SMALL)
    table, intake = taken(tmp_path, content, kind, limits=SMALL, skip_broken=True)
    assert len(table) + sum(counted.count for counted in intake.broken) in (4, 5)
    assert len(intake.broken) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


@pytest.mark.parametrize("name", IGNORED)
def test_a_name_that_is_no_path_is_ignored_and_said(tmp_path: Path, name: str) -> None:
    kind, content = IGNORED[name]
    table, intake = taken(tmp_path, content, kind, limits=SMALL)
    assert (len(table), intake.broken) == (4, [])
    assert [(counted.reason, counted.count) for counted in intake.ignored] == [
        ("its name is no plain path within the archive", 1)
    ]


def test_folders_of_old_windows_tools_are_folders(tmp_path: Path) -> None:
    table, _ = taken(tmp_path, zipped({name.replace("/", "\\"): content for name, content in GOOD.items()}), "zip")
    assert table.schema.columns["label"].classes == ["cats", "dogs"]


def test_names_in_no_known_encoding_are_shown_as_far_as_they_can_be(tmp_path: Path) -> None:
    """tarfile makes halves of characters of them, which no JSON holds: the upload was answered with a 500, and so was each list with it."""
    content = tarred(GOOD | {"cats/QQQQ.xyz": b"odd"}, "w").replace(b"QQQQ", b"\xff\xfe\x1b\xe9")
    at = content.rindex(b"cats/\xff")
    head = bytearray(content[at : at + 512])
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    _, intake = taken(tmp_path, content[:at] + bytes(head) + content[at + 512 :], "tar")
    assert [example for counted in intake.ignored for example in counted.examples] == [
        "cats/\ufffd\ufffd\ufffd\ufffd.xyz"
    ]


def test_reasons_are_few_however_many_endings_there_are(tmp_path: Path) -> None:
    odd = {f"cats/{n}.e{n}": b"" for n in range(300)} | {"cats/x." + "y" * 5000: b""}
    _, intake = taken(tmp_path, zipped(GOOD | odd), "zip")
    assert sum(counted.count for counted in intake.ignored) == 301
    assert len(intake.ignored) == 51
    assert max(len(counted.reason) for counted in intake.ignored) <= 300
