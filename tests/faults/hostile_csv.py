"""Texts that are no table, or too much of one; and names of files that are more than names. One function a kind, by chance."""

from __future__ import annotations

import random

from tests.faults.hostile_npz import Hostile, Lair, Make, npz, sound

ROWS = "length,colour,species\n" + "".join(
    f"{n % 7},{'red' if n % 2 else 'blue'},{'a' if n % 3 else 'b'}\n" for n in range(60)
)


def text(
    content: bytes | str, harmless: bool = False, targets: str | None = None, format: str | None = None
) -> Hostile:
    raw = content.encode() if isinstance(content, str) else content
    return Hostile(raw, "data.csv", format, targets, harmless)


def nul(chance: random.Random, lair: Lair) -> Hostile:
    at = chance.randrange(len(ROWS))
    return text(
        ROWS[:at] + "\0" * chance.choice([1, 1000]) + ROWS[at:], format=chance.choice([None, "csv"]), harmless=True
    )


def mixed_encodings(chance: random.Random, lair: Lair) -> Hostile:
    odd = chance.choice(
        [
            "größe".encode("latin-1"),
            "größe".encode("utf-16"),
            b"\xed\xa0\x80",
            b"\xc0\x80",
            b"\xff",
            b"\xf8\x88\x80\x80\x80",
        ]
    )
    at = chance.choice([0, ROWS.index("red"), len(ROWS) - 4])
    return text(ROWS.encode()[:at] + odd + ROWS.encode()[at:], harmless=True)  # it may be text in Windows-1252


def wide_encoding(chance: random.Random, lair: Lair) -> Hostile:
    return text(
        ROWS.encode(chance.choice(["utf-16", "utf-16-be", "utf-32", "cp037"])), format=chance.choice([None, "csv"])
    )


def many_columns(chance: random.Random, lair: Lair) -> Hostile:
    count = chance.choice([2049, 100_000, 1_000_000 if lair.large else 300_000])
    return text(",".join(f"c{number}" for number in range(count)) + "\n" + "1," * (count - 1) + "1\n")


def long_line(chance: random.Random, lair: Lair) -> Hostile:
    size = 200_000_000 if lair.large else 8_000_000
    return text(b"a,y\n" + chance.choice([b"1", b",", b'"', b"a b"]) * size)


def long_first_line(chance: random.Random, lair: Lair) -> Hostile:
    return text(chance.choice([b"a", b",", b'"', b" ", b"\r"]) * 3_000_000)


def open_quote(chance: random.Random, lair: Lair) -> Hostile:
    return text('a,y\n1,"' + "x,1\n" * chance.choice([3, 1_500_000]))


def only(chance: random.Random, lair: Lair) -> Hostile:
    return text(
        chance.choice([b",", b"\n", b"\r\n", b'"', b" ", b"\t", b";", b"=", b"\xef\xbb\xbf"])
        * chance.choice([1, 2, 1000, 1_000_000])
    )


def no_rows(chance: random.Random, lair: Lair) -> Hostile:
    return text(
        chance.choice(["a,y", "a,y\n", "a,y\n\n\n", "a", "a\n1\n2\n", "a;y\n1;2\n", "a\ty\n1\t2\n", "\n\na,y\n"])
    )


def odd_header(chance: random.Random, lair: Lair) -> Hostile:
    header = chance.choice(
        ["a,a,y", "a,,y", "a,\x01b,y", 'a,"b\x1b[31m",y', "a," + "n" * 129 + ",y", "a,\u202eb,y", 'a,"b,y', "a, ,y"]
    )
    return text(header + "\n" + "1,2,0\n2,3,1\n" * 20)


def ragged(chance: random.Random, lair: Lair) -> Hostile:
    return text(
        "a,b,y\n"
        + "".join(",".join("1" * chance.choice([1, 2, 4, 500])) + "\n" for _ in range(chance.choice([3, 20_000])))
    )


def odd_cells(chance: random.Random, lair: Lair) -> Hostile:
    cell = chance.choice(
        [
            "1e999",
            "-1e999",
            "nan",
            "inf",
            "",
            " ",
            "1" * 100_000,
            "0x10",
            "1_0",
            "١٢",
            "1.2.3",
            "--1",
            "1e",
            "5e-400" * 50,
            "x" * 5_000_000,
        ]
    )
    return text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(40)) + f"{cell},1\n" + "7,0\n", harmless=True)


def many_rows(chance: random.Random, lair: Lair) -> Hostile:
    return text(
        b"a,y\n" + chance.choice([b"1,0\n", b"1,0\r\n", b"0,0\n1,1\n"]) * (5_000_001 if lair.large else 300_000),
        harmless=True,
    )


def many_words(chance: random.Random, lair: Lair) -> Hostile:
    count = 1_000_000 if lair.large else 30_000
    where = chance.choice(["target", "feature"])
    rows = (f"w{n},{n % 2}\n" if where == "feature" else f"{n % 5},w{n}\n" for n in range(count))
    return text("a,y\n" + "".join(rows))


def many_indicators(chance: random.Random, lair: Lair) -> Hostile:
    """Columns of a thousand words each: a table that would be large if each word had a place of its own."""
    columns = chance.choice([5, 20])
    header = ",".join(f"c{number}" for number in range(columns)) + ",y\n"
    return text(
        header
        + "".join(",".join(f"w{(n * (k + 1)) % 999}" for k in range(columns)) + f",{n % 2}\n" for n in range(4000)),
        harmless=True,
    )


def formulas(chance: random.Random, lair: Lair) -> Hostile:
    """What a spreadsheet would run, and markup, as names and cells: text to us."""
    words = [
        "=cmd|' /C calc'!A0",
        "@SUM(1+1)",
        "+1+cmd",
        "-2+3",
        "=HYPERLINK(1)",
        "<script>alert(1)</script>",
        "{{7*7}}",
        f"$(touch {lair.canary})",
    ]
    one, other = chance.sample(words, 2)
    return text(f"a,{chance.choice(words)},y\n" + f"1,x,{one}\n2,z,{other}\n" * 30, harmless=True)


def line_ends(chance: random.Random, lair: Lair) -> Hostile:
    ends = chance.choice([["\r\n"], ["\r"], ["\r\n", "\n"], ["\n\r"], ["\x0b"], ["\u2028"], ["\n", "\r\n", "\r"]])
    return text("".join(line + chance.choice(ends) for line in ROWS.splitlines()), harmless=True)


def marks(chance: random.Random, lair: Lair) -> Hostile:
    return text(b"\xef\xbb\xbf" * chance.choice([1, 2, 50]) + ROWS.encode(), harmless=True)


def quotes(chance: random.Random, lair: Lair) -> Hostile:
    cell = chance.choice(['""', '"a""b"', '"a"b', 'a"b', '"a\nb"', '"' * 7, '"' * 8, "'a,b'"])
    return text("a,b,y\n" + f"1,{cell},0\n2,c,1\n" * 20, harmless=True)


def cut(chance: random.Random, lair: Lair) -> Hostile:
    return text(ROWS[: chance.randrange(len(ROWS))], harmless=True)


def flipped(chance: random.Random, lair: Lair) -> Hostile:
    content = bytearray(ROWS.encode())
    for _ in range(chance.choice([1, 4, 64])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return text(bytes(content), harmless=True)


def noise(chance: random.Random, lair: Lair) -> Hostile:
    letters = chance.choice([b'ab1,.\n"', b"0123456789,\n", bytes(range(32, 127)) + b"\n", bytes(range(1, 256))])
    return text(bytes(chance.choices(letters, k=chance.choice([50, 5000]))), harmless=True)


def odd_targets(chance: random.Random, lair: Lair) -> Hostile:
    return text(
        ROWS,
        targets=chance.choice(
            [
                "specie",
                "species,species",
                "species:number",
                "length:word",
                "../species",
                "=species",
                ":category",
                "a:b:c",
            ]
        ),
    )


def odd_filename(chance: random.Random, lair: Lair) -> Hostile:
    """A sound file under a name that is a path, a command or a disguise."""
    name = chance.choice(
        [
            "../../etc/passwd",
            "/etc/passwd",
            "..\\..\\x",
            "a/b.csv",
            ".",
            "..",
            " ",
            "x" * 300,
            "a\x00.csv",
            "a\x1b[31m.csv",
            "a\u202evsc.exe",
            f"$(touch {lair.canary}).csv",
            f"`touch {lair.canary}`",
            "| id",
            "-rf",
            "con",
            "%2e%2e%2fx",
            "~root",
        ]
    )
    content = chance.choice(
        [npz(**sound(20 + chance.randrange(1000))), (ROWS + f"{chance.randrange(10**6)},red,a\n").encode()]
    )
    return Hostile(content, name, harmless=True)


def wrong_format(chance: random.Random, lair: Lair) -> Hostile:
    """Called what it is not."""
    return chance.choice(
        [
            Hostile(npz(**sound()), format="csv"),
            Hostile(ROWS.encode(), format="npz"),
            Hostile(ROWS.encode(), format="pickle"),
            Hostile(b"", format="csv"),
        ]
    )


ALL: list[Make] = [
    nul,
    mixed_encodings,
    wide_encoding,
    many_columns,
    long_line,
    long_first_line,
    open_quote,
    only,
    no_rows,
    odd_header,
    ragged,
    odd_cells,
    many_rows,
    many_words,
    many_indicators,
    formulas,
    line_ends,
    marks,
    quotes,
    cut,
    flipped,
    noise,
    odd_targets,
    odd_filename,
    wrong_format,
]
