"""Tagged texts that are none, or whose tags and offsets lie. One function a kind, by chance."""

from __future__ import annotations

import json
import random

from tests.faults.hostile_npz import Hostile, Lair, Make
from tests.faults.hostile_tables import lines, packed

SENTENCE = "in\tO\nNew\tB-place\nYork\tI-place\n\n"
ROW = {"tokens": ["in", "Bonn"], "tags": ["O", "B-place"]}
SPANS = {"text": "in Bonn", "spans": [{"start": 3, "end": 7, "label": "place"}]}


def odd_conll(chance: random.Random, lair: Lair) -> Hostile:
    odd = [
        "x",
        "\tO",
        "x\t",
        "x\tB-",
        "x\tplace",
        "a\tb\tc",
        "x\tB-" + "y" * 300,
        "x\tS-a\ny\tU-a",
        "x\0\tO",
        "x\tB-\x1b[31m",
    ]
    content = (SENTENCE * 40).split("\n")
    content.insert(chance.randrange(len(content) - 2), chance.choice(odd))
    return Hostile(packed("\n".join(content).encode(), chance), "data.conll", chance.choice([None, "conll"]))


def endless_sentence(chance: random.Random, lair: Lair) -> Hostile:
    """No blank line in a million, or one cell of megabytes: cut off and said, or refused."""
    count = 3_000_000 if lair.large else 300_000
    long = "x" * (20 * count) + "\tO\n"
    return Hostile((SENTENCE + chance.choice(["x\tO\n" * count, long])).encode(), "data.conll", harmless=True)


def many_types(chance: random.Random, lair: Lair) -> Hostile:
    count = 500_000 if lair.large else 50_000
    return Hostile("".join(f"x\tB-t{number}\n" for number in range(count)).encode(), "data.iob")


def many_sentences(chance: random.Random, lair: Lair) -> Hostile:
    count = 6_000_000 if lair.large else 500_000
    return Hostile(b"a\tB-x\n\n" * count, "data.bio", harmless=True)


def flipped_conll(chance: random.Random, lair: Lair) -> Hostile:
    content = bytearray((SENTENCE * 40).encode())
    for _ in range(chance.choice([1, 8, 64])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return Hostile(bytes(content), "data.conll", harmless=True)


def odd_tokens(chance: random.Random, lair: Lair) -> Hostile:
    tokens = chance.choice(
        [None, 1, "in Bonn", [], [1, 2], [["in"], "Bonn"], ["in", ""], {"0": "in"}, ["in"] * 100_000]
    )
    tags = chance.choice(
        [ROW["tags"], 1, "O", ["O"], ["O", None], ["O", 1], ["O", "B-"], ["O", {"a": 1}], ["O", "L-x"]]
    )
    own = {"tokens": tokens, "tags": tags}
    return Hostile(packed(lines([ROW] * 20 + [own]), chance), "data.jsonl", chance.choice([None, "jsonl"]))


def odd_spans(chance: random.Random, lair: Lair) -> Hostile:
    odd = chance.choice(
        [
            {"start": -1}, {"start": 7}, {"end": 10**30}, {"end": 2**63}, {"start": 1.0}, {"start": "3"}, {"start": None},
            {"end": 3}, {"label": ""}, {"label": 7}, {"label": "x" * 1000}, {"label": ["a"]}, {"text": "bonn"}, {"start": [3]},
        ]
    )  # fmt: skip
    return Hostile(
        packed(lines([SPANS] * 20 + [{**SPANS, "spans": [{**SPANS["spans"][0], **odd}]}]), chance),  # type: ignore[dict-item]
        "data.jsonl",
    )


def many_spans(chance: random.Random, lair: Lair) -> Hostile:
    """Hundreds of thousands of spans of one text, all overlapping."""
    count = 400_000 if lair.large else 40_000
    row = {"text": "in Bonn " * 1000, "spans": [{"start": 0, "end": 2 + n % 5000, "label": "x"} for n in range(count)]}
    return Hostile(json.dumps(row).encode(), "data.jsonl")


ALL: list[Make] = [
    odd_conll, endless_sentence, many_types, many_sentences, flipped_conll, odd_tokens, odd_spans, many_spans,
]  # fmt: skip
