"""Files within an archive that are not what their names say: pictures, texts, metadata. One function a kind, by chance."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.app.data.pictures import noise, saved, zipped
from tests.faults.hostile_archives import packed, pictures, texts
from tests.faults.hostile_npz import Hostile, Lair, Make, Trap
from tests.faults.hostile_tables import parquet

FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}


def with_files(files: dict[str, bytes], chance: random.Random) -> Hostile:
    """Beside sound pictures. Files that cannot be read are counted where the client says so, else the archive is refused."""
    return packed({**pictures(), **files}, chance)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_head(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def tiff(*tags: tuple[int, int, int, int], after: int = 0) -> bytes:
    """Tags as (tag, type, count, value), and where the next directory lies."""
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + struct.pack("<I", after) + bytes(64)


def pixel_bomb(chance: random.Random, lair: Lair) -> Hostile:
    """A header of a few bytes that asks for gigabytes of pixels, in every format."""
    side = chance.choice([60_000, 65_535])
    dib = struct.pack("<iiiHHIIiiII", 40, side, chance.choice([side, -side]), 1, 24, 0, 0, 0, 0, 0, 0)
    jpeg = saved(noise(0, 16, 16, 3), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    strips = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, side),
        (279, 4, 1, 2**31),
    ]
    webp = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + (16_382).to_bytes(3, "little") * 2
    name, content = chance.choice(
        [
            ("png", png(png_head(side, side), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b""))),
            ("png", png(png_head(2**31 - 1, 1), (b"IDAT", b""), (b"IEND", b""))),
            ("bmp", b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + dib + bytes(100)),
            (
                "gif",
                b"GIF89a"
                + struct.pack("<HHBBB", side, side, 0, 0, 0)
                + b","
                + struct.pack("<HHHHB", 0, 0, side, side, 0)
                + b"\2\2\x4c\1\0;",
            ),
            ("jpg", jpeg[:at] + struct.pack(">HH", 65_500, 65_500) + jpeg[at + 4 :]),
            ("tif", tiff(*strips)),
            ("webp", b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp),
        ]
    )
    return with_files({f"cats/bomb.{name}": content}, chance)


def just_below(chance: random.Random, lair: Lair) -> Hostile:
    """Pictures of nearly as many pixels as are read, all of one colour: little as files, and each takes its time."""
    content = saved(
        Image.new(chance.choice(["L", "RGB", "RGBA", "I;16", "P", "1"]), (7000, 7000)), "PNG", compress_level=1
    )
    return with_files({f"cats/{n}.png": content for n in range(100, 160 if lair.large else 103)}, chance)


def many_frames(chance: random.Random, lair: Lair) -> Hostile:
    """Thousands of frames; the first one counts."""
    frames = [Image.new("P", (4, 4), n % 255) for n in range(3000 if lair.large else 300)]
    name = chance.choice(["GIF", "PNG", "WEBP", "TIFF"])
    file = io.BytesIO()
    frames[0].convert("RGB").save(
        file, name, save_all=True, append_images=[frame.convert("RGB") for frame in frames[1:]]
    )
    return with_files({f"cats/frames.{FORMATS[name]}": file.getvalue()}, chance)


def picture_metadata(chance: random.Random, lair: Lair) -> Hostile:
    """Texts, colour profiles and EXIF that swell, lie or never end."""
    size = (200 if lair.large else 20) << 20
    rest = [(b"IDAT", zlib.compress(bytes(4 * 13))), (b"IEND", b"")]
    swollen = zlib.compress(bytes(size), 9)
    odd = chance.choice(
        [
            (b"zTXt", b"a\0\0" + swollen),
            (b"iTXt", b"a\0\1\0\0\0" + swollen),
            (b"iCCP", b"a\0\0" + swollen),
            (b"tEXt", b"a\0" + b"x" * 5_000_000),
            (b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\x08\0\0\0\x08"),
            (b"eXIf", b"II*\0" + b"\xff" * 200),
            (b"gAMA", b""),
            (b"tRNS", bytes(7)),
            (b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            (b"PLTE", bytes(5000)),
        ]
    )
    return with_files({"cats/meta.png": png(png_head(4, 4), odd, *rest)}, chance)


def odd_tiff(chance: random.Random, lair: Lair) -> Hostile:
    """Directories in a ring, counts of four milliard, strips outside of the file, compressions in one another."""
    head = [
        (256, 4, 1, 8),
        (257, 4, 1, 8),
        (258, 3, 1, 8),
        (259, 3, 1, chance.choice([1, 2, 5, 6, 7, 8, 32773, 34712, 50000, 65535])),
        (262, 3, 1, 1),
    ]
    odd = chance.choice(
        [
            [(273, 4, 1, 2**32 - 1), (279, 4, 1, 64)],
            [(273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)],
            [(273, 4, 1, 8), (279, 4, 1, 2**32 - 1)],
            [(324, 4, 1, 8), (322, 4, 1, 2**31), (323, 4, 1, 2**31)],
            [(330, 4, 1, 8)],
            [(34665, 4, 1, 8)],
            [(258, 3, 2**30, 8)],
            [(338, 3, 9, 8)],
            [(277, 3, 1, 65_535), (273, 4, 1, 8)],
            [(320, 3, 2**31, 8)],
            [(700, 1, 2**32 - 1, 8)],
            [(339, 3, 1, 3), (258, 3, 1, 64)],
        ]
    )
    return with_files({"cats/odd.tif": tiff(*head, *odd, after=chance.choice([0, 8, 2**32 - 1]))}, chance)


def cut_picture(chance: random.Random, lair: Lair) -> Hostile:
    name, ending = chance.choice(list(FORMATS.items()))
    content = saved(noise(chance.randrange(9), 40, 30, 3), name)
    return with_files({f"cats/cut.{ending}": content[: chance.randrange(len(content))]}, chance)


def flipped_pictures(chance: random.Random, lair: Lair) -> Hostile:
    files = {}
    for number in range(40):
        name, ending = chance.choice(list(FORMATS.items()))
        pixels = noise(number, 24, 20, 3)
        options = (
            {"compression": chance.choice(["tiff_lzw", "tiff_deflate", "jpeg", "packbits", "raw"])}
            if name == "TIFF"
            else {}
        )
        content = bytearray(saved(pixels, name, **options))
        for _ in range(chance.choice([1, 2, 8, 32])):
            content[chance.randrange(min(len(content), chance.choice([60, len(content)])))] ^= 1 << chance.randrange(8)
        files[f"cats/{number}.{ending}"] = bytes(content)
    return with_files(files, chance)


def other_content(chance: random.Random, lair: Lair) -> Hostile:
    """A video, a page, a program, a script for another reader of pictures, an archive: under a picture's name."""
    shell = f"touch {lair.canary}"
    content = chance.choice(
        [
            b"\0\0\0\x20ftypmp42" + bytes(100),
            b"<html>404</html>",
            b"\x7fELF\2\1\1" + bytes(60),
            b"MZ" + bytes(90),
            b"%PDF-1.7",
            zipped(texts()),
            f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%{shell}) (r) file\n".encode(),
            f"push graphic-context\nimage over 0,0 0,0 'url(https://x\"|{shell}\")'\n".encode(),
            f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{lair.secret}"/></svg>'.encode(),
            f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{lair.secret}">]><x>&e;</x>'.encode(),
            f"#!/bin/sh\n{shell}\n".encode(),
            b"P6 60000 60000 255\n",
            b"icns" + bytes(100),
            b"\0\0\1\0" + bytes(60),
            b"8BPS" + bytes(100),
            b"SIMPLE  =",
            b"",
            b"\0",
        ]
    )
    return with_files({f"cats/odd.{chance.choice(list(FORMATS.values()))}": content}, chance)


def pickled(chance: random.Random, lair: Lair) -> Hostile:
    """A shell in a pickle, under every name that somebody might load."""
    trap = pickle.dumps(Trap(lair.canary), chance.choice([0, 2, 4]))
    objects = io.BytesIO()
    np.save(objects, np.array([Trap(lair.canary)], object), allow_pickle=True)
    name = chance.choice(
        [
            "cats/1.pkl",
            "cats/p.png",
            "metadata.csv",
            "metadata.parquet",
            "metadata.jsonl",
            "cats/x.npy",
            "cats/x.pt",
            "__main__.py",
        ]
    )
    return with_files({name: chance.choice([trap, objects.getvalue()])}, chance)


def odd_text(chance: random.Random, lair: Lair) -> Hostile:
    size = (60 if lair.large else 4) << 20
    odd = chance.choice(
        [
            b"\0" * 500,
            b"\xff\xfe" + "utf-16".encode("utf-16-le"),
            b"\xed\xa0\x80",
            b"\xef\xbb\xbf",
            b" \n" * 900,
            chance.randbytes(5000),
            b"x" * size,
            b"\r" * 10_000,
            "\u202e\u200b".encode() * 400,
            b"=cmd|' /C calc'!A0",
            b"<script>alert(1)</script>",
            b"%s%n" * 90,
        ]
    )
    return packed({**texts(), **{f"a/odd{n}.txt": odd + b"%d" % n for n in range(chance.choice([1, 4]))}}, chance)


def long_texts(chance: random.Random, lair: Lair) -> Hostile:
    """Each as long as a file may be, of a thousand times as many bytes as it takes: together they are refused, or cut."""
    count = 200 if lair.large else 8
    return Hostile(
        zipped({f"{'ab'[n % 2]}/{n}.txt": chance.randbytes(700) * 30_000 for n in range(count)}),
        "long.zip",
        harmless=True,
    )


def metadata_names(chance: random.Random, lair: Lair) -> Hostile:
    """Metadata that name files of the machine."""
    names = [
        str(lair.secret),
        "/etc/passwd",
        "../../secret",
        "../" * 20 + "etc/passwd",
        f"file://{lair.secret}",
        "http://127.0.0.1:8000/v1/jobs",
        "~/.ssh/id_rsa",
        "$HOME",
        "a/../../secret",
        "",
        ".",
        "x" * 5000,
        "a\0b",
        "-",
        "C:\\secret",
    ]
    files = list(texts())
    rows = [{"file_name": name, "y": "u" if number % 2 else "v"} for number, name in enumerate(files)]
    rows += [{"file_name": name, "y": "w"} for name in chance.sample(names, chance.choice([1, 6]))]
    return packed({**texts(), **_metadata(rows, chance)}, chance)


def _metadata(rows: list[dict[str, str]], chance: random.Random) -> dict[str, bytes]:
    form = chance.choice(["csv", "tsv", "jsonl", "parquet"])
    if form == "parquet":
        return {"metadata.parquet": parquet({name: [row[name] for row in rows] for name in rows[0]})}
    if form == "jsonl":
        return {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    mark = "," if form == "csv" else "\t"
    lines = [mark.join(rows[0]), *(mark.join(f'"{cell}"' for cell in row.values()) for row in rows)]
    return {f"metadata.{form}": "\n".join(lines).encode()}


def metadata_bomb(chance: random.Random, lair: Lair) -> Hostile:
    """Metadata that swell, nest, never end or name millions of rows."""
    rows = 2_000_000 if lair.large else 300_000
    name, content = chance.choice(
        [
            ("csv", b"file_name,y\n" + b"a/0.txt,u\n" * rows),
            ("csv", b"file_name," + b",".join(b"c%d" % n for n in range(100_000))),
            ("csv", b"file_name,y\n" + b"".join(b"%d.txt,u\n" % n for n in range(rows))),
            ("csv", b'file_name,y\n"' + b"x" * 20_000_000),
            ("jsonl", b"[" * 100_000),
            ("jsonl", b'{"file_name":' * 100_000),
            ("jsonl", b'{"file_name": "' + b"x" * 8_000_000 + b'"}'),
            ("jsonl", b'{"file_name": "a/0.txt", "file_name": "b/1.txt", "y": 1}\n' * 40),
            ("jsonl", b'{"file_name": {"a": 1}, "y": 1}\n' * 9),
            ("parquet", parquet({"file_name": pa.array(["a/0.txt"] * rows), "y": pa.nulls(rows)})),
            ("parquet", b"PAR1" + bytes(90) + b"PAR1"),
            ("parquet", parquet({"file_name": [["a/0.txt"]] * 8, "y": ["u", "v"] * 4})),
            ("parquet", parquet({"file_name": [1.5] * 8, "y": ["u", "v"] * 4})),
            ("csv", b"\x1f\x8b\x08" + bytes(50)),
            ("csv", b""),
            ("csv", b"file_name\n"),
            ("csv", b"file_name,file_name\na,b\n"),
            ("csv", b"\xff\xfe\0"),
        ]
    )
    return packed({**texts(), f"metadata.{name}": content}, chance)


def missing_files(chance: random.Random, lair: Lair) -> Hostile:
    """As many rows without a file as there are files without a row: to look for each among all would take for ever."""
    count = 100_000 if lair.large else 20_000
    rows = "file_name,y\n" + "".join(f"b/{n}.txt,{'uv'[n % 2]}\n" for n in range(count))
    return Hostile(
        zipped({**{f"a/{n}.txt": b"%d" % n for n in range(count)}, "metadata.csv": rows.encode()}, zipfile.ZIP_STORED),
        "missing.zip",
        "zip",
    )


def parquet_pages(chance: random.Random, lair: Lair) -> Hostile:
    """A Parquet file whose pages, or whose footer, lie about sizes and counts: each byte of a header made as large as it can be."""
    rows = 60
    content = bytearray(
        parquet(
            {"a": [float(n) for n in range(rows)], "b": ["red", "blue"] * 30, "y": ["u", "v"] * 30},
            compression=chance.choice(["none", "snappy", "gzip", "zstd"]),
            use_dictionary=chance.random() < 0.5,
        )
    )
    footer = int.from_bytes(content[-8:-4], "little")
    places = chance.choice([range(4, 40), range(len(content) - 8 - footer, len(content) - 8)])
    for _ in range(chance.choice([1, 2, 5])):
        content[chance.choice(places)] = chance.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF])
    return Hostile(bytes(content), "pages.parquet", "parquet", harmless=True)


ALL: list[Make] = [
    pixel_bomb, just_below, many_frames, picture_metadata, odd_tiff, cut_picture, flipped_pictures, other_content, pickled, odd_text,
    long_texts,
    metadata_names, metadata_bomb, missing_files, parquet_pages,
]  # fmt: skip
