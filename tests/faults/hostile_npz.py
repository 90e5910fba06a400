"""Archives that are no data set, or lie about what they are. Each function makes one kind, by chance."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Lair:
    """Where the traps are: `canary` appears where code of a file has run, `secret` holds `word`, which no answer may hold."""

    canary: Path
    secret: Path
    word: str
    large: bool  # whether files may be as large as the plan says: hundreds of megabytes


@dataclass(frozen=True)
class Hostile:
    """An upload to `path`. `harmless`: it may also be taken, as data that do nothing."""

    content: bytes
    filename: str = "data.npz"
    format: str | None = None
    targets: str | None = None
    harmless: bool = False
    skip_broken: bool = False
    path: str = "/v1/datasets"


class Trap:
    """Pickled: a shell that touches the canary."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.canary}",)


Make = Callable[[random.Random, Lair], Hostile]


def sound(rows: int = 40) -> dict[str, Any]:
    chance = np.random.default_rng(0)
    return {"x": chance.integers(0, 255, (rows, 8, 8), dtype=np.uint8), "y": np.arange(rows) % 4}


def npz(compressed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(descr: str, shape: str, content: bytes = b"", version: bytes = b"\x01\x00", fortran: str = "False") -> bytes:
    """A member whose header says what it is told to say."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return raw_npy(header, content, version)


def raw_npy(header: bytes, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    length = struct.pack("<H", len(header)) if version == b"\x01\x00" else struct.pack("<I", len(header))
    return b"\x93NUMPY" + version + length + header + content


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0o600) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = method, mode << 16
            target.writestr(entry, content)
    return file.getvalue()


def with_x(member: bytes) -> bytes:
    return archive({"x.npy": member, "y.npy": _saved(np.arange(4))})


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _central(content: bytes, offset: int, form: str, value: int) -> bytes:
    """The archive with a field of its first directory entry changed."""
    at = content.index(b"PK\1\2") + offset
    packed = struct.pack(form, value)
    return content[:at] + packed + content[at + len(packed) :]


# --- archives --------------------------------------------------------------------------------------------------------


def bomb(chance: random.Random, lair: Lair) -> Hostile:
    shape = f"({chance.choice([64, 300] if lair.large else [16, 64])}, 1024, 1024)"
    zeros = eval_size(shape)
    return Hostile(with_x(npy("'|u1'", shape, bytes(zeros))))


def eval_size(shape: str) -> int:
    rows, height, width = (int(part) for part in shape.strip("()").split(","))
    return rows * height * width


def bomb_of_many(chance: random.Random, lair: Lair) -> Hostile:
    """Each member is just below the ratio that is looked at; together they are not."""
    member = npy("'|u1'", "(1000, 32, 32)", bytes(1_024_000))
    return Hostile(archive({f"x{number}.npy": member for number in range(chance.choice([20, 60]))}))


def zip_in_zip(chance: random.Random, lair: Lair) -> Hostile:
    return Hostile(archive({"x.npy": archive({"x.npy": bytes(10_000_000)})}))


def overlapping(chance: random.Random, lair: Lair) -> Hostile:
    """Many directory entries of one member's bytes."""
    content = archive({"x.npy": _saved(np.zeros((1000, 100)))})
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[start:end]
    entries = b"".join(entry.replace(b"x.npy", b"%c.npy" % (97 + number)) for number in range(20))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 20, 20, len(entries), start, 0)
    return Hostile(content[:start] + entries + tail)


def twice(chance: random.Random, lair: Lair) -> Hostile:
    content = archive({"x.npy": _saved(np.zeros((4, 3)))})
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[start:end]
    return Hostile(
        content[:start] + entry * 2 + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), start, 0)
    )


def lying_size(chance: random.Random, lair: Lair) -> Hostile:
    """The directory says another size than the member has: compressed, decoded, or where it begins."""
    field = chance.choice([20, 24, 42])
    return Hostile(_central(npz(**sound()), field, "<I", chance.choice([1, 1000, 2**31, 2**32 - 2])))


def lying_count(chance: random.Random, lair: Lair) -> Hostile:
    content = npz(**sound())
    at = content.index(b"PK\5\6") + 8
    count = struct.pack("<HH", *[chance.choice([0, 1, 3, 5000, 65_534, 65_535])] * 2)
    return Hostile(content[:at] + count + content[at + 4 :], harmless=True)


def zip64_lies(chance: random.Random, lair: Lair) -> Hostile:
    """Records of the 64-bit format that claim sizes and places that cannot be."""
    content = npz(**sound())
    at = content.index(b"PK\5\6")
    huge = chance.choice([0, 1, 2**40, 2**63 - 1, 2**64 - 1])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, huge, huge, huge, huge)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, chance.choice([at, huge % 2**63]), 1)
    end = b"PK\5\6" + b"\xff" * 16 + b"\0\0"
    return Hostile(content[:at] + record + locator + chance.choice([end, content[at:]]), harmless=True)


def odd_name(chance: random.Random, lair: Lair) -> Hostile:
    names = [
        "../x.npy",
        "/x.npy",
        str(lair.secret) + ".npy",
        "a/b.npy",
        "a\\b.npy",
        "C:\\x.npy",
        "x",
        "x.npy.exe",
        "☃.npy",
        "x" * 200 + ".npy",
        ".npy",
        "..npy",
        "x y.npy",
        "x.npy ",
        "$(touch canary).npy",
        "x;y.npy",
        "con.npy/",
        "__MACOSX/._x.npy",
    ]
    return Hostile(archive({"x.npy": _saved(np.zeros((4, 3))), chance.choice(names): _saved(np.arange(4))}))


def symlink(chance: random.Random, lair: Lair) -> Hostile:
    return Hostile(archive({chance.choice(["x.npy", "y.npy"]): str(lair.secret).encode()}, mode=0o120777))


def encrypted(chance: random.Random, lair: Lair) -> Hostile:
    return Hostile(_central(npz(**sound()), 8, "<H", chance.choice([0x1, 0x41, 0x2041])))


def odd_method(chance: random.Random, lair: Lair) -> Hostile:
    if chance.random() < 0.5:
        return Hostile(
            archive({"x.npy": _saved(np.zeros((400, 30)))}, chance.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        )
    return Hostile(_central(npz(**sound()), 10, "<H", chance.choice([1, 6, 9, 93, 99, 65_535])))


def many_members(chance: random.Random, lair: Lair) -> Hostile:
    count = chance.choice([65, 200, 70_000 if lair.large else 5000])
    return Hostile(archive({f"x{number}.npy": b"" for number in range(count)}, zipfile.ZIP_STORED))


def long_comment(chance: random.Random, lair: Lair) -> Hostile:
    """A second end of the archive, inside the comment of the first."""
    inner = npz(**sound())
    content = npz(False, x=np.zeros((4, 3)))
    return Hostile(content[:-2] + struct.pack("<H", min(65_535, len(inner))) + inner[:65_535], harmless=True)


def cut(chance: random.Random, lair: Lair) -> Hostile:
    content = npz(chance.random() < 0.5, **sound())
    return Hostile(content[: chance.randrange(1, len(content) - 1)])


def flipped(chance: random.Random, lair: Lair) -> Hostile:
    content = bytearray(npz(chance.random() < 0.5, **sound()))
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return Hostile(bytes(content), harmless=True)


def flipped_inside(chance: random.Random, lair: Lair) -> Hostile:
    """A header whose bits are flipped, under a checksum that fits."""
    member = bytearray(_saved(np.zeros((4, 3))))
    for _ in range(chance.choice([1, 2, 8])):
        member[chance.randrange(128)] ^= 1 << chance.randrange(8)
    return Hostile(with_x(bytes(member)), harmless=True)


def polyglot(chance: random.Random, lair: Lair) -> Hostile:
    """An archive behind the beginning of something else."""
    start = chance.choice(
        [
            b"#!/bin/sh\ntouch %s\nexit\n" % str(lair.canary).encode(),
            b"\x7fELF\2\1\1",
            b"%PDF-1.7\n",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"<html>",
            b"MZ\x90\0",
        ]
    )
    return Hostile(start + npz(**sound()), format=chance.choice([None, "npz", "csv"]), harmless=True)


def other_format(chance: random.Random, lair: Lair) -> Hostile:
    trap = pickle.dumps(Trap(lair.canary))
    start = chance.choice(
        [
            trap,
            b"\x89HDF\r\n\x1a\n" + bytes(2000),
            b"PAR1" + bytes(100),
            zlib.compress(b"a"),
            b"\x1f\x8b\x08" + bytes(40),
            _saved(np.zeros(4)),
            b"PK\5\6" + bytes(18),
            b"PK\3\4",
            bytes(5000),
            chance.randbytes(3000),
        ]
    )
    return Hostile(start, format=chance.choice([None, None, "npz", "csv"]))


# --- members ---------------------------------------------------------------------------------------------------------


def huge_claim(chance: random.Random, lair: Lair) -> Hostile:
    """A header of 128 bytes that asks for hundreds of gigabytes."""
    shape = chance.choice(
        [
            "(100000000000,)",
            "(100000, 1000, 1000)",
            "(2147483648, 2)",
            "(4, 9223372036854775807)",
            "(4, 4611686018427387904, 4)",
            "(4, 18446744073709551617)",
            f"(4, {'9' * 300})",
        ]
    )
    return Hostile(with_x(npy("'<f4'", shape)))


def odd_shape(chance: random.Random, lair: Lair) -> Hostile:
    shape = chance.choice(
        [
            "(-4, 3)",
            "(4, -3)",
            "(-2, -6)",
            "(0, 3)",
            "(4, 0)",
            "()",
            "(4,)",
            "(True, 3)",
            "(4.0, 3)",
            "('4', 3)",
            "(None,)",
            "[4, 3]",
            "4",
            "(1,1,1,1,1,12)",
            "((4, 3),)",
            "(4, 3",
            "(" * 90 + ")" * 90,
        ]
    )
    return Hostile(with_x(npy("'<f4'", shape, bytes(48))))


def odd_type(chance: random.Random, lair: Lair) -> Hostile:
    descr = chance.choice(
        [
            "'|O'",
            "'<c8'",
            "'<f16'",
            "'<M8[s]'",
            "'|V8'",
            "'|S4'",
            "'<U0'",
            "[('a', '<f4'), ('b', '|O')]",
            "[('a', '<f4')]",
            "('<f4', (1000000000,))",
            "'<f4,<f4'",
            "'<x9'",
            "None",
            "7",
            "'<f99999999999'",
            "{'names': ['a'], 'formats': ['O']}",
        ]
    )
    return Hostile(with_x(npy(descr, "(4, 3)", bytes(192))))


def code_in_header(chance: random.Random, lair: Lair) -> Hostile:
    """numpy reads a header as a Python literal: code in it must stay text."""
    shell = f"__import__('os').system('touch {lair.canary}')"
    header = chance.choice(
        [
            shell,
            f"{{'descr': {shell}, 'fortran_order': False, 'shape': (4, 3)}}",
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shell}, 3)}}",
            "[" * 5000,
            "{" * 900,
            "9" * 8000,
            "'a' * 10**10",
            "{'descr': '<f4'}",
            "{1: 2}",
            "",
            "\x00",
            "((),) * 99999999",
            "-" * 9000 + "1",
        ]
    )
    version = chance.choice([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"])
    return Hostile(with_x(raw_npy(header.encode(), bytes(48), version)))


def long_header(chance: random.Random, lair: Lair) -> Hostile:
    member = b"\x93NUMPY\x02\x00" + struct.pack("<I", chance.choice([0, 2**20, 2**32 - 1])) + b" " * 2**20
    return Hostile(with_x(member))


def objects(chance: random.Random, lair: Lair) -> Hostile:
    """An array of objects, which numpy would unpickle."""
    trap = np.empty(4, object)
    trap[:] = Trap(lair.canary)
    return Hostile(npz(**{**sound(4), chance.choice(["x", "y", "classes_y"]): trap}))


def another_order(chance: random.Random, lair: Lair) -> Hostile:
    """Big-endian, in Fortran's order, of half precision: unusual, and data all the same."""
    x = sound()["x"]
    kinds = [
        x.astype(">f8"),
        np.asfortranarray(x),
        x.astype(np.float16),
        x.astype(">u2"),
        x.astype(np.uint64),
        x.astype(bool),
        x[:, ::2],
    ]
    return Hostile(npz(x=chance.choice(kinds), y=np.arange(40) % 4), harmless=True)


def not_finite(chance: random.Random, lair: Lair) -> Hostile:
    x = np.random.default_rng(1).random((40, 5))
    x[chance.randrange(40), chance.randrange(5)] = chance.choice([np.nan, np.inf, -np.inf, 1e300])
    return Hostile(npz(x=x, y=np.arange(40) % 4))


def huge_rows(chance: random.Random, lair: Lair) -> Hostile:
    """Two pictures of millions of pixels: little as a file, and gigabytes as the JSON of a preview."""
    side = chance.choice([2100, 3000])
    return Hostile(npz(False, x=np.zeros((2, side, side), np.uint8), y=np.arange(2)))


def odd_columns(chance: random.Random, lair: Lair) -> Hostile:
    rows = 40
    odd: dict[str, Any] = chance.choice(
        [
            {"y": np.arange(39)},
            {"y": np.zeros((40, 2, 2))},
            {"y": np.full(40, np.inf)},
            {"y": np.full(40, np.nan)},
            {"y": np.zeros(40, int)},
            {"x": np.arange(40)},
            {"images": np.zeros((40, 3))},
            {"classes_y": np.array(["a"])},
            {"classes_z": np.array(["a", "b"])},
            {"classes_y": np.arange(4)},
            {"y": np.array([str(n) * 200 for n in range(40)])},
            {"y": np.array([chr(n + 1) for n in range(40)])},
            {"feature_names": np.array(["a"] * 64)},
            {"x": np.array([["a"] * 3] * 40)},
            {"y": np.full(40, 7), "classes_y": np.array(["a", "b"])},
            {"classes_y": np.array(["a", "a", "b", "c"])},
            {"x": np.zeros((40, 5000), np.uint8)},
        ]
    )
    return Hostile(npz(**{**sound(rows), **odd}))


def no_characters(chance: random.Random, lair: Lair) -> Hostile:
    """Text of code points that no character has."""
    text = np.full((40, 4), chance.choice([0x110000, 0xFFFFFFFF, 0xD800]), np.uint32).view("<U4").reshape(40)
    member = raw_npy(b"{'descr': '<U4', 'fortran_order': False, 'shape': (40,), }", text.tobytes())
    return Hostile(archive({"x.npy": _saved(sound()["x"]), "y.npy": member}))


def many_classes(chance: random.Random, lair: Lair) -> Hostile:
    count = 1_000_000 if lair.large else 50_000
    return Hostile(
        npz(x=np.zeros((count, 1), np.float32), y=np.arange(count).astype("U7"))
    )  # as numbers they are numbers


def words_for_spreadsheets(chance: random.Random, lair: Lair) -> Hostile:
    """Class names that a spreadsheet would run, and markup: text to us."""
    names = ["=cmd|' /C calc'!A0", "@SUM(1)", "<script>alert(1)</script>", "+1+1"]
    return Hostile(npz(**sound(), classes_y=np.array(names)), harmless=True)


ALL: list[Make] = [
    bomb,
    bomb_of_many,
    zip_in_zip,
    overlapping,
    twice,
    lying_size,
    lying_count,
    zip64_lies,
    odd_name,
    symlink,
    encrypted,
    odd_method,
    many_members,
    long_comment,
    cut,
    flipped,
    flipped_inside,
    polyglot,
    other_format,
    huge_claim,
    odd_shape,
    odd_type,
    code_in_header,
    long_header,
    objects,
    another_order,
    not_finite,
    huge_rows,
    odd_columns,
    no_characters,
    many_classes,
    words_for_spreadsheets,
]
