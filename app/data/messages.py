"""Synthetic messages to a shop: a topic and a mood, in sentences of templates. To try texts without any of one's own; they are not real.

Some words are misspelt, some messages begin with a sentence on nothing, and some name another topic in passing: no single word gives the
answer away.
"""

from __future__ import annotations

import numpy as np

TOPICS = ("delivery", "payment", "account", "product")
MOODS = ("pleased", "annoyed")

SUBJECTS = {
    "delivery": (
        "my parcel",
        "the courier",
        "the package I ordered",
        "order {n}",
        "the shipment to my office",
        "the driver",
    ),
    "payment": (
        "the invoice",
        "my refund",
        "the charge of {n} euros",
        "your bill",
        "my card payment",
        "the receipt for {n}",
    ),
    "account": (
        "my login",
        "the password reset",
        "my profile",
        "the confirmation mail",
        "my address in your system",
        "signing in",
    ),
    "product": ("the lamp", "this kettle", "the blue jacket", "the battery", "the second pair of shoes", "the screen"),
}
EVENTS = {
    ("delivery", "pleased"): (
        "came a day early",
        "was at the door before noon",
        "arrived without a scratch",
        "was left with my neighbour as I asked",
    ),
    ("delivery", "annoyed"): (
        "has not arrived",
        "is stuck since {n} days",
        "was left in the rain",
        "went to the wrong street",
    ),
    ("payment", "pleased"): (
        "came back within {n} days",
        "was correct to the cent",
        "was settled at once",
        "is clear and easy to read",
    ),
    ("payment", "annoyed"): (
        "was taken twice",
        "is wrong by {n} euros",
        "still does not show the discount",
        "was refused three times",
    ),
    ("account", "pleased"): (
        "works on my phone too",
        "took less than a minute",
        "was sorted out by your colleague",
        "is finally up to date",
    ),
    ("account", "annoyed"): (
        "fails every time",
        "sends me in circles",
        "shows somebody else's name",
        "has been locked since {n} days",
    ),
    ("product", "pleased"): (
        "looks even better than on the page",
        "runs for {n} hours",
        "fits perfectly",
        "is quiet and bright",
    ),
    ("product", "annoyed"): (
        "broke after {n} days",
        "is smaller than described",
        "smells of plastic",
        "does not switch on",
    ),
}
CLOSINGS = {
    "pleased": ("Thank you!", "Well done.", "I will order again.", "Please tell your team.", ""),
    "annoyed": ("Please help.", "I expect an answer.", "This is the {n}th mail.", "What now?", ""),
}
OPENINGS = (
    "Hello,",
    "Good morning,",
    "Hi there,",
    "I am writing about last week.",
    "A short note from a customer.",
    "",
    "",
)


def make(count: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """`count` different messages, the number of each one's topic, and of its mood, int32. The same every time."""
    rng = np.random.default_rng(2026)
    texts, topics, moods = list[str](), list[int](), list[int]()
    seen = set[str]()
    while len(texts) < count:
        topic, mood = len(texts) % len(TOPICS), int(rng.integers(2))
        text = _message(rng, TOPICS[topic], MOODS[mood])
        if text not in seen:
            seen.add(text)
            texts.append(text)
            topics.append(topic)
            moods.append(mood)
    return texts, np.array(topics, np.int32), np.array(moods, np.int32)


def _message(rng: np.random.Generator, topic: str, mood: str) -> str:
    def one(of: tuple[str, ...]) -> str:
        return of[int(rng.integers(len(of)))].format(n=int(rng.integers(2, 60)))

    parts = [one(OPENINGS), f"{one(SUBJECTS[topic])} {one(EVENTS[topic, mood])}.", one(CLOSINGS[mood])]
    if rng.random() < 0.3:  # another topic is named in passing, and decides nothing
        other = TOPICS[int(rng.integers(len(TOPICS)))]
        parts.insert(2, f"I know {one(SUBJECTS[other])} is another matter.")
    return _misspelt(rng, " ".join(part for part in parts if part))


def _misspelt(rng: np.random.Generator, text: str) -> str:
    """With two neighbours exchanged here and there."""
    letters = list(text)
    for place in np.flatnonzero(rng.random(len(letters) - 1) < 0.02):
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)
