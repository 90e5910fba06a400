"""Short requests, written from patterns, with the places, days and names in them tagged: to see tags learnt without a file of one's own."""

from __future__ import annotations

import re

import numpy as np

OUTSIDE = "O"
FILLERS: dict[str, tuple[str, ...]] = {
    "place": (
        "Bonn", "Lake View", "the Old Mill", "Porto", "Room 12", "Hall B", "San Remo", "Upper Street", "Riga", "North Quay",
        "Graz", "the Blue Hall", "Turku", "Mill Lane", "Cork", "Gate 7",
    ),
    "day": (
        "Monday", "Friday", "next Tuesday", "the 3rd of May", "tomorrow", "12 June", "this weekend", "Sunday night",
        "the 21st", "Wednesday morning",
    ),
    "person": (
        "Ada Novak", "Mr Okoro", "Lena", "Dr Silva", "Tom Berg", "Yuki", "Mrs Haddad", "Ivo Marek", "Nia", "Paul May",
        "Rosa Lind", "Omar",
    ),
}  # fmt: skip
PATTERNS: dict[str, tuple[str, ...]] = {
    "book": (
        "please book a table for {person} in {place} on {day}",
        "I would like {place} for {day} , under the name {person}",
        "can we have a room near {place} for {person} ?",
        "two seats to {place} on {day} , thank you",
        "reserve {place} , {day} at noon",
    ),
    "cancel": (
        "please cancel the table of {person} on {day}",
        "{person} cannot come to {place} , take us off the list",
        "we have to give up {place} for {day}",
        "no need for the room in {place} any more",
        "drop what {person} asked for on {day}",
    ),
    "ask": (
        "is {place} still free on {day} ?",
        "who is in charge of {place} , is it {person} ?",
        "what does a night in {place} cost ?",
        "has {person} written about {day} yet ?",
        "how far is {place} from here ?",
    ),
}
OPENINGS = ("", "hello ,", "good morning ,", "a quick one :", "sorry ,")
INTENTS = tuple(PATTERNS)


def make(count: int) -> tuple[list[list[str]], list[list[str]], np.ndarray]:
    """The tokens of `count` different requests, their tags in BIO, and the number of each one's intent, int32. The same every time."""
    rng = np.random.default_rng(2027)
    sentences, tags, intents = list[list[str]](), list[list[str]](), list[int]()
    seen = set[str]()
    while len(sentences) < count:
        intent = len(sentences) % len(INTENTS)
        pattern = _one(rng, PATTERNS[INTENTS[intent]])
        words, own = _filled(rng, f"{_one(rng, OPENINGS)} {pattern}".strip())
        if " ".join(words) not in seen:
            seen.add(" ".join(words))
            sentences.append(words)
            tags.append(own)
            intents.append(intent)
    return sentences, tags, np.array(intents, np.int32)


def _filled(rng: np.random.Generator, pattern: str) -> tuple[list[str], list[str]]:
    words, tags = list[str](), list[str]()
    for part in pattern.split():
        kind = re.fullmatch("{(.*)}", part)
        if kind is None:
            words.append(part)
            tags.append(OUTSIDE)
            continue
        for number, word in enumerate(_one(rng, FILLERS[kind[1]]).split()):
            words.append(word)
            tags.append(f"{'I' if number else 'B'}-{kind[1]}")
    return words, tags


def _one(rng: np.random.Generator, of: tuple[str, ...]) -> str:
    return of[int(rng.integers(len(of)))]
