"""Archives of files that lie, climb, overlap or swell. Each function makes one kind, by chance; `hostile_members` has what lies in them."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from functools import cache

from tests.app.data.pictures import class_folders, tarred, zipped
from tests.faults.hostile_npz import Hostile, Lair, Make, Trap, archive

END, CENTRAL, LOCAL = b"PK\5\6", b"PK\1\2", b"PK\3\4"


@cache
def pictures() -> dict[str, bytes]:
    return class_folders(8)


def texts() -> dict[str, bytes]:
    return {f"{'ab'[n % 2]}/{n}.txt": f"a sound text, number {n}".encode() for n in range(8)}


def base(chance: random.Random) -> dict[str, bytes]:
    return dict(chance.choice([pictures, texts])())


def packed(files: dict[str, bytes], chance: random.Random) -> Hostile:
    """As a zip or a tar. Whatever is in it, the sound files of it may be taken."""
    kind, skip = chance.choice(["zip", "tar", "tar.gz"]), chance.random() < 0.6
    if kind == "zip":
        return Hostile(zipped(files), "data.zip", chance.choice([None, "zip"]), harmless=True, skip_broken=skip)
    content = tarred(files, "w:gz" if kind == "tar.gz" else "w")
    return Hostile(content, f"data.{kind}", harmless=True, skip_broken=skip)


def zipped_with(name: str, content: bytes, change: dict[str, int], chance: random.Random) -> bytes:
    """Sound files, and a member whose header was changed."""
    file = io.BytesIO(zipped(base(chance)))
    with zipfile.ZipFile(file, "a") as target:
        info = zipfile.ZipInfo(name)
        for field, value in change.items():
            setattr(info, field, value)
        target.writestr(info, content)
    return file.getvalue()


def tar_entry(name: bytes | str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: bytes) -> bytes:
    """A member with any of its header's fields as they are given, under a checksum that fits. `mode`, `size`, `linkname`, `magic`."""
    raw = name if isinstance(name, bytes) else name.encode()
    head = bytearray(512)
    places = {"mode": (100, 8), "size": (124, 12), "linkname": (157, 100), "magic": (257, 8), "sparse": (386, 126)}
    given = {"mode": b"0000644\0", "size": b"%011o\0" % len(content), "magic": b"ustar\00000", **fields}
    head[: len(raw[:100])] = raw[:100]
    head[156:157] = kind
    for field, value in given.items():
        start, length = places[field]
        head[start : start + length] = value[:length].ljust(length, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


def tar_of(*entries: bytes, sound: dict[str, bytes] | None = None) -> bytes:
    there = [tar_entry(name, content=content) for name, content in (texts() if sound is None else sound).items()]
    return b"".join([*there, *entries, bytes(1024)])


def binary(number: int, length: int = 12) -> bytes:
    """A number in GNU's way, which may be negative or beyond all disks."""
    return (
        b"\xff" + number.to_bytes(length - 1, "big", signed=True)
        if number < 0
        else b"\x80" + number.to_bytes(length - 1, "big")
    )


def zeros(size: int) -> bytes:
    """So many zeros, compressed by deflate."""
    made = zlib.compressobj(9, wbits=-15)
    return b"".join([*(made.compress(bytes(2**20)) for _ in range(size >> 20)), made.flush()])


# --- bombs -----------------------------------------------------------------------------------------------------------


def bomb(chance: random.Random, lair: Lair) -> Hostile:
    """Zeros named as a picture or a text, a thousand to one."""
    size = chance.choice([30, 500, 3000] if lair.large else [8, 30]) << 20
    return Hostile(raw_zip({chance.choice(["a/1.png", "a/1.txt"]): (zeros(size), size, 8)}), "bomb.zip")


def raw_zip(members: dict[str, tuple[bytes, int, int]], entries: int = 1) -> bytes:
    """Members as {name: (compressed, the size that is claimed, method)}, each so many times in the directory."""
    body, directory, count = bytearray(), bytearray(), 0
    for name, (content, size, method) in members.items():
        raw = name.encode()
        about = struct.pack("<HHHHHIIIHH", 20, 0x800, method, 0, 0, 0, len(content), min(size, 2**32 - 2), len(raw), 0)
        for _ in range(entries):
            count += 1
            directory += CENTRAL + struct.pack("<H", 20) + about + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + raw
        body += LOCAL + about + raw + content
    end = struct.pack("<4sHHHHIIH", END, 0, 0, count % 65536, count % 65536, len(directory), len(body), 0)
    return bytes(body + directory + end)


def bomb_of_many(chance: random.Random, lair: Lair) -> Hostile:
    """Each member is small; together they are not."""
    size = 1 << 20
    return Hostile(raw_zip({f"a/{n}.txt": (zeros(size), size, 8) for n in range(chance.choice([20, 400]))}), "many.zip")


def nested(chance: random.Random, lair: Lair) -> Hostile:
    """Archives in archives, the innermost a bomb; sometimes beside sound files."""
    content = archive({"a/1.png": bytes(10_000_000)})
    for depth in range(chance.choice([2, 6])):
        content = archive({f"{depth}-{n}.zip": content for n in range(4)})
    beside = {} if chance.random() < 0.5 else base(chance)
    return Hostile(archive({**beside, "inner.zip": content}), "nested.zip", harmless=bool(beside))


def overlapping(chance: random.Random, lair: Lair) -> Hostile:
    """Many directory entries of the same bytes, which may also be said to be few."""
    content = raw_zip({"a/1.txt": (zeros(2**20), 2**20, 8)}, chance.choice([20, 2000]))
    if chance.random() < 0.5:
        start = content.index(CENTRAL)
        head, directory = content[:start], bytearray(content[start:])
        for at in range(0, len(directory) - 22, 46 + 7):
            directory[at + 20 : at + 24] = struct.pack("<I", 1)
        content = head + bytes(directory)
    return Hostile(content, "overlap.zip")


def quoted(chance: random.Random, lair: Lair) -> Hostile:
    """Each member's bytes hold the next member: the way of the best known bombs."""
    kernel, names = zeros(2**20), [f"a/{n}.txt".encode() for n in range(60)]
    body, places = b"", []
    for name in reversed(names):
        head = struct.pack("<4sHHHHHIIIHH", LOCAL, 20, 0, 8, 0, 0, 0, len(kernel), 2**20, len(name), 0) + name
        quote = b"" if not places else struct.pack("<BHH", 0, len(body) & 0xFFFF, ~len(body) & 0xFFFF)
        body = head + quote + body if places else head + kernel
        places = [0, *(place + len(head) + len(quote) for place in places)]
    entries = b"".join(
        struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            CENTRAL,
            20,
            20,
            0,
            8,
            0,
            0,
            0,
            len(body) - place,
            2**20,
            len(name),
            0,
            0,
            0,
            0,
            0,
            place,
        )
        + name
        for name, place in zip(names, places, strict=True)
    )
    end = struct.pack("<4sHHHHIIH", END, 0, 0, len(names), len(names), len(entries), len(body), 0)
    return Hostile(body + entries + end, "quoted.zip")


def gzip_bomb(chance: random.Random, lair: Lair) -> Hostile:
    """A tar of zeros compressed, in one member of gzip or in many."""
    size = (chance.choice([300, 2000]) if lair.large else 60) << 20
    head = tar_of()[:-1024] + tar_entry("a/0.txt", size=b"%011o\0" % size)
    if chance.random() < 0.5:
        content = gzip.compress(head) + gzip.compress(bytes(2**20)) * (size >> 20)
    else:
        made = zlib.compressobj(9, wbits=31)
        content = b"".join(
            [made.compress(head), *(made.compress(bytes(2**20)) for _ in range(size >> 20)), made.flush()]
        )
    return Hostile(content, "bomb.tgz", chance.choice([None, "tar"]))


# --- the directory ---------------------------------------------------------------------------------------------------


def many_members(chance: random.Random, lair: Lair) -> Hostile:
    """A million members; and directories of as many that say they are three, in either of their two records."""
    count = 1_000_000 if lair.large else 510_000
    entry = CENTRAL + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0)
    directory = b"".join(entry + b"a%08d" % number for number in range(count))
    said = chance.choice([count, 3])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, said, said, len(directory), 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(directory), 1)
    short = said if chance.random() < 0.5 and said == 3 else 65_535
    length = chance.choice([len(directory), 120])
    records = chance.choice([record + locator, b""])
    end = struct.pack("<4sHHHHIIH", END, 0, 0, short, short, length if records else len(directory), 0, 0)
    return Hostile(directory + records + end, "many.zip", "zip")


def many_in_tar(chance: random.Random, lair: Lair) -> Hostile:
    """Half a million members and more, of nothing; little as a file."""
    count = 520_000 if lair.large else 60_000
    heads = [tar_entry(f"{chance.getrandbits(60):x}/{number}.txt") for number in range(2000)]
    made = zlib.compressobj(1, wbits=31)
    content = b"".join(made.compress(b"".join(heads)) for _ in range(count // 2000)) + made.flush()
    return Hostile(content, "many.tgz", "tar")


def lying_size(chance: random.Random, lair: Lair) -> Hostile:
    """The directory says another size than a member has: compressed, decoded, or where it begins; or another name's length."""
    content = zipped(base(chance))
    at = content.index(CENTRAL) + chance.choice([20, 24, 42])
    lie = struct.pack("<I", chance.choice([0, 1, 1000, 2**26, 2**31, 2**32 - 2, 2**32 - 1]))
    if chance.random() < 0.2:
        at, lie = content.index(CENTRAL) + chance.choice([28, 30, 32]), b"\xff\xff"
    return Hostile(content[:at] + lie + content[at + len(lie) :], "lies.zip", "zip", harmless=True)


def lying_header(chance: random.Random, lair: Lair) -> Hostile:
    """The header before a member says otherwise than the directory."""
    content = bytearray(zipped(base(chance)))
    at = content.rindex(LOCAL) + chance.choice([6, 8, 14, 18, 22, 26, 28])
    content[at : at + 2] = chance.choice([b"\xff\xff", b"\0\0", b"\x01\0", b"\x63\0"])
    return Hostile(bytes(content), "lies.zip", "zip", harmless=True)


def lying_end(chance: random.Random, lair: Lair) -> Hostile:
    """The record at the end says another count, length or place of the directory; or there are two ends."""
    content = zipped(base(chance))
    at = content.index(END)
    if chance.random() < 0.2:
        return Hostile(content + content[at:], "ends.zip", harmless=True)
    field = chance.choice([8, 10, 12, 16, 20])
    lie = struct.pack("<I", chance.choice([0, 1, 7, 2**16 - 1, 2**31, 2**32 - 1]))[
        : 2 if field < 12 or field == 20 else 4
    ]
    return Hostile(content[: at + field] + lie + content[at + field + len(lie) :], "ends.zip", harmless=True)


def lying_zip64(chance: random.Random, lair: Lair) -> Hostile:
    content = zipped(base(chance))
    at = content.index(END)
    huge = chance.choice([0, 1, 2**40, 2**63 - 1, 2**64 - 1])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, huge, huge, huge, huge)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, chance.choice([at, huge % 2**63]), 1)
    end = chance.choice([END + b"\xff" * 16 + b"\0\0", content[at:]])
    return Hostile(content[:at] + record + locator + end, "64.zip", harmless=True)


def lying_tar(chance: random.Random, lair: Lair) -> Hostile:
    """Sizes below zero, which lead back to a member that was read before, and beyond all disks."""
    size = chance.choice(
        [binary(-1024), binary(-512 * 3), binary(2**40), binary(2**80), b"77777777777\0", b"zzz\0", b"-1\0"]
    )
    kind = chance.choice([b"0", b"x", b"g", b"L", b"K", b"5", b"S", b"7", b"Z"])
    content = tar_of(tar_entry("a/odd.txt", kind, b"x" * 700, size=size), tar_entry("a/last.txt", content=b"last"))
    return Hostile(gzip.compress(content) if chance.random() < 0.3 else content, "lies.tar", "tar", harmless=True)


def pax(chance: random.Random, lair: Lair) -> Hostile:
    """Extended headers: with sizes and names that lie, of megabytes, thousands behind each other."""

    def record(key: str, value: str | bytes) -> bytes:
        body = key.encode() + b"=" + (value if isinstance(value, bytes) else value.encode()) + b"\n"
        length = len(body) + 3
        while len(b"%d " % length) + len(body) != length:
            length = len(b"%d " % length) + len(body)
        return b"%d " % length + body

    odd = chance.choice(
        [
            record("size", "-1024"), record("size", str(2**60)), record("size", "x"), record("path", "../../" + str(lair.secret)),
            record("path", "a/" + "x" * 1_000_000 + ".txt"), record("path", b"a/\xff\xfe.txt"), record("path", "a/b\0c.txt"),
            record("linkpath", str(lair.secret)), record("hdrcharset", "BINARY") + record("path", b"a/\xe9.txt"),
            record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", str(2**50)),
            record("GNU.sparse.map", "0," * 100_000), record("GNU.sparse.numblocks", "99999999"), b"99999999999999999999 a=b\n",
            b"0 a=b\n", b"-5 path=a\n", b"7 path\n", b"\xff" * 3000, record("comment", "x" * 3_000_000), b"",
        ]
    )  # fmt: skip
    kind = chance.choice([b"x", b"g"])
    heads = tar_entry("h", kind, odd) * chance.choice([1, 1, 3, 5000 if len(odd) < 9000 else 2])
    return Hostile(
        gzip.compress(tar_of(heads, tar_entry("a/odd.txt", content=b"odd")), 1), "pax.tgz", "tar", harmless=True
    )


def chained_names(chance: random.Random, lair: Lair) -> Hostile:
    """GNU's headers for long names, one behind another: each is read within the one before."""
    chain = tar_entry("././@LongLink", chance.choice([b"L", b"K"]), b"a/long.txt\0") * chance.choice([2, 900, 20_000])
    return Hostile(
        gzip.compress(tar_of(chain, tar_entry("a/x.txt", content=b"x")), 1), "chain.tgz", "tar", harmless=True
    )


# --- names and links -------------------------------------------------------------------------------------------------


def zip_link(chance: random.Random, lair: Lair) -> Hostile:
    name = chance.choice(["a/link.txt", "metadata.csv", "a/link.png", "a"])
    kind = chance.choice([0o120777, 0o020666, 0o010666, 0o060666, 0o140777, 0o170000])
    target = chance.choice([str(lair.secret), "/etc/passwd", "/proc/self/environ", "../" * 20 + "etc/passwd"])
    content = zipped_with(name, target.encode(), {"external_attr": kind << 16, "create_system": 3}, chance)
    return Hostile(content, "link.zip", harmless=True)


def tar_link(chance: random.Random, lair: Lair) -> Hostile:
    """Links to a secret, to themselves, in a ring, to a folder that a later member then writes through; and devices."""
    kind = chance.choice(
        [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z", b"\0"]
    )
    name = chance.choice(["a/link.txt", "metadata.csv", "b"])
    target = chance.choice([str(lair.secret), "/etc/passwd", name, "a/0.txt", "/tmp", "../" * 30 + "etc/passwd", ""])
    link = tar_entry(name, kind, linkname=target.encode())
    through = tar_entry(f"{name}/x.txt", content=b"written through a link")
    content = tar_of(
        link,
        through,
        tar_entry("ring1.txt", b"1", linkname=b"ring2.txt"),
        tar_entry("ring2.txt", b"1", linkname=b"ring1.txt"),
    )
    return Hostile(content, "link.tar", harmless=True)


def sparse(chance: random.Random, lair: Lair) -> Hostile:
    """GNU's sparse files: terabytes of holes, and maps that never end."""
    size = chance.choice([binary(2**42), binary(2**80), b"%011o\0" % 2**30])
    holes = b"".join(chance.choice([binary(2**50), b"00000000000\0", binary(-5)]) for _ in range(8))
    head = tar_entry("a/holes.txt", b"S", bytes(512), sparse=holes + chance.choice([b"\1", b"\0"]) + size)
    return Hostile(tar_of(head), "sparse.tar", harmless=True)


def odd_name(chance: random.Random, lair: Lair) -> Hostile:
    name = chance.choice(
        [
            "/etc/passwd", "../../../../tmp/x.txt", str(lair.canary), str(lair.canary) + ".txt", "a/../../x.txt", "C:\\x.txt",
            "a\\..\\x.txt",
            "//server/x.txt", "a//x.txt", "./a/./x.txt", "a/.", "..", ".", "a/ .txt", "a/\u202egnp.txt", "a/\u200b.txt", "\ufeffa/x.txt",
            "a/x.txt\n", "a/\x1b[2J.txt", "$(touch canary)/x.txt", "`id`/x.txt", "a/x.txt;ls", "=cmd|' /C calc'!A0/x.txt", "-rf/x.txt",
            "<script>alert(1)</script>/x.txt", "con/x.txt", "a/" + "x" * 300 + ".txt", "d/" * 5000 + "x.txt", "x" * 60_000 + ".txt",
            "a/x." + "y" * 60_000, "CATS/1.png", "e\u0301/1.txt", "\u00e9/1.txt", "metadata.csv/x.txt", "train/x.txt", "__MACOSX/a/._x.txt",
            "file_name/x.txt", "label/x.txt", "%2e%2e/x.txt", "a/\U0001f600.txt", "\U000e0001/x.txt",
        ]
    )  # fmt: skip
    return packed({**base(chance), name: b"an odd name"}, chance)


def odd_letters(chance: random.Random, lair: Lair) -> Hostile:
    """Names in no known encoding: not UTF-8 although they say so, NULs, halves of characters."""
    odd = chance.choice(
        [
            b"\xff\xfe\xfd",
            b"\xed\xa0\x80",
            b"\xc0\xae\xc0\xae",
            b"a\0b",
            b"\xe9t\xe9",
            b"\x80" * 90,
            b"\xf4\x90\x80\x80",
        ]
    )
    name = chance.choice([b"%s/x.txt", b"a/%s.txt", b"a/x.%s", b"%s"]) % odd
    if chance.random() < 0.5:
        return Hostile(tar_of(tar_entry(name, content=b"odd letters")), "odd.tar", harmless=True)
    content = zipped({**base(chance), "a/" + "Q" * (len(name) - 2): b"odd letters"})
    content = content.replace(b"a/" + b"Q" * (len(name) - 2), name)
    at = content.rindex(CENTRAL) + 8
    return Hostile(
        content[:at] + chance.choice([b"\0\0", b"\0\x08"]) + content[at + 2 :], "odd.zip", "zip", harmless=True
    )


def same_name(chance: random.Random, lair: Lair) -> Hostile:
    """One name many times: which of them counts must not depend on who reads it."""
    name = chance.choice(["a/0.txt", "metadata.csv", "a"])
    entries = [tar_entry(name, content=b"number %d" % number) for number in range(chance.choice([2, 3000]))]
    return Hostile(tar_of(*entries), "same.tar", harmless=True)


def own_endings(chance: random.Random, lair: Lair) -> Hostile:
    """An ending of its own for each file: a reason of its own for each, in an answer that should be short."""
    count = 200_000 if lair.large else 20_000
    return Hostile(zipped({**base(chance), **{f"a/{n}.e{n}": b"" for n in range(count)}}), "endings.zip", harmless=True)


def many_classes(chance: random.Random, lair: Lair) -> Hostile:
    """A folder for each file."""
    count = 50_000 if lair.large else 5000
    return Hostile(zipped({f"{'long' * 20}{n}/x.txt": b"text %d" % n for n in range(count)}), "classes.zip")


# --- what it is at all -----------------------------------------------------------------------------------------------


def odd_method(chance: random.Random, lair: Lair) -> Hostile:
    """Encrypted, patched, or compressed in ways that are not read."""
    content = bytearray(zipped(base(chance)))
    if chance.random() < 0.4:
        return Hostile(
            zipped(base(chance), chance.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])), "odd.zip", harmless=True
        )
    at = content.index(CENTRAL) + chance.choice([8, 10])
    content[at : at + 2] = struct.pack("<H", chance.choice([0x1, 0x20, 0x41, 0x2041, 6, 9, 12, 93, 99, 65_535]))
    return Hostile(bytes(content), "odd.zip", harmless=True)


def polyglot(chance: random.Random, lair: Lair) -> Hostile:
    """A zip behind the beginning of something else; a tar that is a zip too."""
    shell = b"#!/bin/sh\ntouch %s\nexit\n" % str(lair.canary).encode()
    start = chance.choice(
        [
            shell,
            b"%PDF-1.7\n",
            b"GIF89a\1\0\1\0\0\0\0;",
            b"\x7fELF\2\1\1",
            b"MZ\x90\0",
            b"<html>",
            b"\xff\xd8\xff\xe0",
            tar_of(),
        ]
    )
    content = start + zipped(base(chance))
    if chance.random() < 0.3:
        content += b"\n%%EOF\n"
    return Hostile(content, "both.zip", chance.choice([None, "zip", "tar", "csv", "npz"]), harmless=True)


def other_format(chance: random.Random, lair: Lair) -> Hostile:
    trap = pickle.dumps(Trap(lair.canary))
    start = chance.choice(
        [
            trap,
            b"7z\xbc\xaf\x27\x1c",
            b"Rar!\x1a\7\0",
            b"\xfd7zXZ\0",
            b"BZh9",
            b"\x28\xb5\x2f\xfd",
            b"<html>",
            LOCAL,
            END,
            bytes(600),
            b"PK",
        ]
    )
    content = start + chance.choice([b"", bytes(3000), chance.randbytes(3000)])
    return Hostile(content, chance.choice(["a.zip", "a.tar"]), chance.choice(["zip", "tar"]))


def gzip_of_others(chance: random.Random, lair: Lair) -> Hostile:
    """What lies in a gzip archive is no tar: a zip, another gzip, a pickle, nothing."""
    content = chance.choice(
        [zipped(base(chance)), tarred(base(chance)), pickle.dumps(Trap(lair.canary)), b"", bytes(5000)]
    )
    return Hostile(gzip.compress(content), "data.tar.gz", chance.choice([None, "tar"]))


def cut(chance: random.Random, lair: Lair) -> Hostile:
    made = packed(base(chance), chance)
    return Hostile(
        made.content[: chance.randrange(1, len(made.content) - 1)], made.filename, made.format, harmless=True
    )


def flipped(chance: random.Random, lair: Lair) -> Hostile:
    made = packed(base(chance), chance)
    content = bytearray(made.content)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return Hostile(bytes(content), made.filename, made.format, harmless=True)


ALL: list[Make] = [
    bomb, bomb_of_many, nested, overlapping, quoted, gzip_bomb, many_members, many_in_tar, lying_size, lying_header, lying_end,
    lying_zip64, lying_tar, pax, chained_names, zip_link, tar_link, sparse, odd_name, odd_letters, same_name, own_endings, many_classes,
    odd_method, polyglot, other_format, gzip_of_others, cut, flipped,
]  # fmt: skip
