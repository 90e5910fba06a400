"""JSON lines, Parquet and gzip that are no table, or lie about what they hold. One function a kind, by chance."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.hostile_csv import ROWS
from tests.faults.hostile_npz import Hostile, Lair, Make

LINES = [{"length": n % 7 + 0.5, "colour": "red" if n % 2 else "blue", "species": "ab"[n % 3 > 0]} for n in range(60)]


def lines(rows: list[Any]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def sound() -> bytes:
    return parquet({name: [row[name] for row in LINES] for name in LINES[0]}, compression="none")


def packed(content: bytes, chance: random.Random) -> bytes:
    """Sometimes compressed: the same must come of it."""
    return gzip.compress(content, 1) if chance.random() < 0.3 else content


def odd_line(chance: random.Random, lair: Lair) -> Hostile:
    odd = chance.choice(
        ["[]", "1", "null", "{", "}", '{"a": NaN}', '{"a": 1e}', "\x00", "[" * 200_000, '{"a":' * 50_000, "1" * 10_000]
    )
    rows = lines(LINES).split(b"\n")
    rows.insert(chance.randrange(len(rows)), odd.encode())
    return Hostile(packed(b"\n".join(rows), chance), "data.jsonl", "jsonl")


def odd_value(chance: random.Random, lair: Lair) -> Hostile:
    value = chance.choice([{"a": 1}, [1], [[]], [None], "x", True, {"__class__": "os.system"}, 10**400, "\ud800"])
    rows = [*LINES[:30], {**LINES[30], "length": value}, *LINES[31:]]
    return Hostile(packed(lines(rows), chance), "data.jsonl", "jsonl")


def many_keys(chance: random.Random, lair: Lair) -> Hostile:
    """A new key in each line: columns of gaps."""
    count = 200_000 if lair.large else 20_000
    return Hostile(packed(lines([{f"k{n}": 1, "y": n % 2} for n in range(count)]), chance), "data.jsonl")


def repeated_keys(chance: random.Random, lair: Lair) -> Hostile:
    content = b'{"a": 1, "a": 2, "y": "u"}\n{"a": 1.5, "y": "v"}\n' * 30
    return Hostile(content, "data.jsonl", harmless=True)


def long_line(chance: random.Random, lair: Lair) -> Hostile:
    size = 200_000_000 if lair.large else 8_000_000
    return Hostile(b'{"a": "' + b"x" * size + b'"}\n', "data.jsonl")


def flipped_parquet(chance: random.Random, lair: Lair) -> Hostile:
    content = bytearray(sound())
    for _ in range(chance.choice([1, 4, 64])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return Hostile(packed(bytes(content), chance), "data.parquet", "parquet", harmless=True)


def cut_parquet(chance: random.Random, lair: Lair) -> Hostile:
    content = sound()
    return Hostile(packed(content[: chance.randrange(4, len(content) - 1)], chance), "data.parquet")


def footer_length(chance: random.Random, lair: Lair) -> Hostile:
    length = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, len(sound())])
    return Hostile(sound()[:-8] + length.to_bytes(4, "little") + b"PAR1", "data.parquet")


def nested_parquet(chance: random.Random, lair: Lair) -> Hostile:
    odd = chance.choice([{"a": 1}, [[1]], [{"a": "x"}], b"x"])
    return Hostile(parquet({"a": [odd] * 30, "y": ["u", "v"] * 15}), "data.parquet")


def constant_parquet(chance: random.Random, lair: Lair) -> Hostile:
    """A few bytes that stand for millions of rows, or for one long text in each of them."""
    rows = 6_000_000 if lair.large else 1_000_000
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 100_000]))
    column = chance.choice([pa.array([1.0] * rows), long, pa.nulls(rows)])
    return Hostile(parquet({"a": column, "y": pa.array([0, 1] * (rows // 2))}), "data.parquet", harmless=True)


def gzip_bomb(chance: random.Random, lair: Lair) -> Hostile:
    size = 1_000_000_000 if lair.large else 100_000_000
    member = zlib.compressobj(9, wbits=31)
    content = b"".join(member.compress(b"1,2\n" * 250_000) for _ in range(size // 1_000_000)) + member.flush()
    return Hostile(content, "data.csv.gz", chance.choice([None, "csv", "jsonl", "parquet"]))


def gzip_in_gzip(chance: random.Random, lair: Lair) -> Hostile:
    content = ROWS.encode()
    for _ in range(chance.choice([2, 20])):
        content = gzip.compress(content)
    return Hostile(content, "data.csv.gz", chance.choice([None, "csv"]))


def damaged_gzip(chance: random.Random, lair: Lair) -> Hostile:
    content = bytearray(gzip.compress(chance.choice([ROWS.encode(), lines(LINES), sound()])))
    kind = chance.choice(["cut", "flipped", "behind"])
    if kind == "cut":
        del content[chance.randrange(2, len(content) - 1) :]
    elif kind == "flipped":
        content[chance.randrange(2, len(content))] ^= 1 << chance.randrange(8)
    else:
        content += bytes(chance.choices(range(1, 256), k=chance.choice([1, 100])))
    return Hostile(bytes(content), "data.gz", harmless=kind == "flipped")  # a header has bits that mean nothing


ALL: list[Make] = [
    odd_line, odd_value, many_keys, repeated_keys, long_line, flipped_parquet, cut_parquet, footer_length, nested_parquet,
    constant_parquet, gzip_bomb, gzip_in_gzip, damaged_gzip,
]  # fmt: skip
