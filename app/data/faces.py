"""Drawn faces: 150 persons in eight pictures each, with the box around the face. To try pictures in colour, verification and
detection without any of one's own; nobody real is shown.

A person is a set of proportions and colours. A picture of one has a place, a size, a light, an expression and a background of its own, and
some wear glasses in it. Whole numbers throughout, so that every machine draws the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 48
PERSONS, EACH = 150, 8
EXPRESSIONS = ("happy", "neutral", "sad")
GLASSES = ("no", "yes")

_FINE = 2 * SIDE  # drawn at twice the size, so that edges are soft
_SKIN = ((241, 205, 176), (224, 172, 128), (198, 134, 92), (141, 85, 54), (96, 62, 44))
_HAIR = ((30, 26, 24), (82, 54, 36), (150, 104, 58), (208, 176, 110), (140, 60, 36), (120, 120, 124))
_EYES = ((60, 40, 26), (60, 96, 140), (70, 110, 70), (90, 90, 96))
_DARK, _LIPS = (40, 32, 32), (168, 72, 74)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class _Person:
    """Proportions in hundredths of the face's half height; colours."""

    skin: Colour
    hair: Colour
    eye: Colour
    width: int
    fringe: int
    hair_width: int
    eye_apart: int
    eye_height: int
    eye_size: int
    brow: int
    nose: int
    mouth_width: int
    mouth_height: int


def make() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Pictures (1200, 48, 48, 3) uint8; the number of each one's person, expression and glasses, (1200,) int32 each; and of its face
    the left, upper, right and lower edge in pixels, (1200, 4) int32. The same every time."""
    rng = np.random.default_rng(2028)
    persons = [_person(rng) for _ in range(PERSONS)]
    count = PERSONS * EACH
    rows, boxes = np.zeros((count, SIDE, SIDE, 3), np.uint8), np.zeros((count, 4), np.int32)
    person = (np.arange(count) % PERSONS).astype(np.int32)
    expression = rng.integers(len(EXPRESSIONS), size=count).astype(np.int32)
    glasses = (rng.integers(3, size=count) == 0).astype(np.int32)
    for number in range(count):
        words = EXPRESSIONS[expression[number]], bool(glasses[number])
        rows[number], boxes[number] = _picture(rng, persons[person[number]], *words)
    return rows, {"person": person, "expression": expression, "glasses": glasses}, boxes


def _person(rng: np.random.Generator) -> _Person:
    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    return _Person(
        _SKIN[between(0, 4)], _HAIR[between(0, 5)], _EYES[between(0, 3)],
        width=between(66, 92), fringe=between(8, 48), hair_width=between(100, 124), eye_apart=between(28, 44),
        eye_height=between(-16, 6), eye_size=between(8, 15), brow=between(16, 28), nose=between(14, 34),
        mouth_width=between(20, 40), mouth_height=between(44, 60),
    )  # fmt: skip


def _picture(rng: np.random.Generator, who: _Person, expression: str, glasses: bool) -> tuple[np.ndarray, list[int]]:
    """(SIDE, SIDE, 3) uint8, and the box around the face with its hair."""
    canvas = _background(rng)
    half = int(rng.integers(18, 41))  # in fine pixels, as all below
    wide, tall = max(who.width * who.hair_width // 100, who.width) * half // 100, half * 112 // 100
    x, y = (int(rng.integers(edge + 1, _FINE - edge - 1)) for edge in (wide, tall))
    _draw(canvas, who, x, y, half, expression, glasses)
    light = int(rng.integers(70, 131))
    small = canvas[::2, ::2] + canvas[1::2, ::2] + canvas[::2, 1::2] + canvas[1::2, 1::2]
    small = np.clip(small * light // 400 + rng.integers(-6, 7, small.shape), 0, 255)
    box = [(x - wide) // 2, (y - tall) // 2, -(-(x + wide) // 2), -(-(y + half) // 2)]
    return small.astype(np.uint8), [min(max(edge, 0), SIDE) for edge in box]


def _background(rng: np.random.Generator) -> np.ndarray:
    """(_FINE, _FINE, 3) int32: from one colour to another, and some blots."""
    first, last = rng.integers(30, 220, (2, 3))
    way = np.arange(_FINE)[:, None, None]
    canvas = np.array(np.broadcast_to((first * (_FINE - way) + last * way) // _FINE, (_FINE, _FINE, 3)), np.int32)
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.integers(0, _FINE, 2)
        wide, tall = rng.integers(4, 22, 2)
        _ellipse(canvas, int(x), int(y), int(wide), int(tall), tuple(int(part) for part in rng.integers(20, 235, 3)))
    return canvas


def _draw(canvas: np.ndarray, who: _Person, x: int, y: int, half: int, expression: str, glasses: bool) -> None:
    def at(part: int) -> int:
        return part * half // 100

    wide = at(who.width)
    hair_wide = wide * who.hair_width // 100
    _ellipse(canvas, x, y - at(22), hair_wide, at(90), who.hair)
    _ellipse(canvas, x, y, wide, half, who.skin)
    _ellipse(canvas, x, y - at(22), hair_wide, at(90), who.hair, lowest=y - at(100 - who.fringe))
    eye_y = y + at(who.eye_height)
    for side in (-1, 1):
        eye_x = x + side * at(who.eye_apart)
        _ellipse(canvas, eye_x, eye_y, at(who.eye_size) + 1, max(1, at(who.eye_size) * 7 // 10), (246, 244, 240))
        _ellipse(canvas, eye_x, eye_y, max(1, at(who.eye_size) // 2), max(1, at(who.eye_size) // 2), who.eye)
        _ellipse(canvas, eye_x, eye_y - at(who.brow), at(14), max(1, at(4)), who.hair)
        if glasses:
            _ring(canvas, eye_x, eye_y, at(21), at(18), max(1, at(5)))
    if glasses:
        _ellipse(canvas, x, eye_y, at(who.eye_apart) - at(18), max(1, at(3)), _DARK)
    shade: Colour = (who.skin[0] * 3 // 4, who.skin[1] * 3 // 4, who.skin[2] * 3 // 4)
    _ellipse(canvas, x, eye_y + at(who.nose), max(1, at(6)), max(1, at(who.nose) // 3), shade)
    mouth_y = y + at(who.mouth_height)
    bend = {"happy": -1, "neutral": 0, "sad": 1}[expression]
    tall = max(1, at(16)) if bend else max(1, at(5))
    _ellipse(canvas, x, mouth_y, at(who.mouth_width), tall, _LIPS)
    if bend:
        _ellipse(canvas, x, mouth_y + bend * at(11), at(who.mouth_width) + 1, tall, who.skin)


def _ellipse(
    canvas: np.ndarray, x: int, y: int, wide: int, tall: int, colour: Colour | tuple[int, ...], lowest: int = _FINE
) -> None:
    """Fills an ellipse of half axes `wide` and `tall`, as far down as `lowest`."""
    wide, tall = max(1, wide), max(1, tall)
    top, bottom = max(0, y - tall), min(_FINE, y + tall + 1, lowest + 1)
    left, right = max(0, x - wide), min(_FINE, x + wide + 1)
    if top >= bottom or left >= right:
        return
    across, down = np.arange(left, right) - x, np.arange(top, bottom) - y
    within = (across * tall)[None, :] ** 2 + (down * wide)[:, None] ** 2 <= (wide * tall) ** 2
    canvas[top:bottom, left:right][within] = colour


def _ring(canvas: np.ndarray, x: int, y: int, wide: int, tall: int, thick: int) -> None:
    """A dark ring; what is within shows."""
    top, bottom, left, right = max(0, y - tall), min(_FINE, y + tall + 1), max(0, x - wide), min(_FINE, x + wide + 1)
    within = canvas[top:bottom, left:right].copy()
    _ellipse(canvas, x, y, wide, tall, _DARK)
    across, down = np.arange(left, right) - x, np.arange(top, bottom) - y
    inner_wide, inner_tall = max(1, wide - thick), max(1, tall - thick)
    inside = (across * inner_tall)[None, :] ** 2 + (down * inner_wide)[:, None] ** 2 <= (inner_wide * inner_tall) ** 2
    canvas[top:bottom, left:right][inside] = within[inside]
