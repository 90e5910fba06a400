"""Boxes go where `decode.picture` puts the pixels that they are drawn around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.data import decode
from app.data.boxes import LEAST_LEFT, PictureBoxes
from app.data.intake.boxes.found import Wrong, note
from app.data.intake.decoded import Candidate
from app.data.intake.folders import Layout, Tally
from app.data.upload_limits import UploadLimits
from app.spec.data import PictureDecoding

LEAST_SIDE = 1.0
"""Of a box, in pixels of its picture."""

SLACK = 0.5
"""How many pixels a box may reach beyond its picture before it counts as cut."""


def place(
    layout: Layout, candidates: Sequence[Candidate[decode.Header]], how: PictureDecoding, limits: UploadLimits
) -> list[Candidate[decode.Header]]:
    """The candidates whose boxes fit their picture. Sets `classes` and `rows` of `layout.boxes`; what was changed goes
    to the notes."""
    drawn, changed, kept = layout.boxes, Tally(), list[Candidate[decode.Header]]()
    assert drawn is not None
    placed = dict[int, tuple[np.ndarray, list[str]]]()
    for candidate in candidates:
        boxes, name = drawn.pictures[candidate.number], candidate.member.name
        try:
            if len(boxes.names) > limits.boxes:
                raise Wrong(f"more than {limits.boxes} boxes are on it")
            values = _in_pixels(boxes, candidate.header, name, changed)
            placed[candidate.number] = _stored(values, boxes.names, candidate.header.size, how, name, changed)
            kept.append(candidate)
        except Wrong as wrong:
            layout.broken.add(str(wrong), name)
    drawn.classes = sorted({word for _, words in placed.values() for word in words})
    code = {word: number for number, word in enumerate(drawn.classes)}
    drawn.rows = {
        number: np.column_stack([values, [code[word] for word in words]]).astype(np.float32)
        for number, (values, words) in placed.items()
    }
    never = sorted({word for boxes in drawn.pictures for word in boxes.names} - set(drawn.classes))
    layout.notes += [note(counted.count, counted.reason, counted.examples) for counted in changed.counted()]
    if never:
        layout.notes.append(f"No box is left of these classes, which are left out: {', '.join(never[:20])}.")
    return kept


def _in_pixels(boxes: PictureBoxes, header: decode.Header, name: str, changed: Tally) -> np.ndarray:
    """(k, 4) in pixels of the picture as it is to be looked at.

    Labelling tools show pictures turned as their EXIF orientation says, and draw on what they show. Where the
    annotation states the sides the other way round, boxes are of the stored picture, and are turned; where it states a
    picture of other size and like proportions, they are scaled.

    Raises:
        Wrong: the annotation states a picture of other proportions.
    """
    height, width = header.size
    if boxes.shares:
        return np.asarray(boxes.values * [width, height, width, height])
    if boxes.size is None or boxes.size == header.size:
        return boxes.values
    stated_height, stated_width = boxes.size
    if header.orientation > 4 and boxes.size == (width, height):
        if len(boxes.values):
            changed.add(
                "turned as the EXIF orientation turns their picture, whose stored sides the annotation states", name
            )
        return turned(boxes.values, boxes.size, header.orientation)
    if abs(stated_height * width - stated_width * height) > max(stated_height + stated_width, height + width):
        raise Wrong("its annotation states sides of other proportions than the picture has")
    if len(boxes.values):
        changed.add("scaled, since their annotation states a picture of another size", name)
    scale = [width / stated_width, height / stated_height]
    return np.asarray(boxes.values * [*scale, *scale])


def turned(values: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Boxes (k, 4) on a stored picture of `size` (height, width), on the picture as its EXIF orientation turns it."""
    height, width = size
    x, y = values[:, ::2], values[:, 1::2]
    x, y = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1) if len(values) else values


def _stored(
    values: np.ndarray, names: list[str], there: tuple[int, int], how: PictureDecoding, name: str, changed: Tally
) -> tuple[np.ndarray, list[str]]:
    """The boxes, (k, 4) in shares of the stored picture, and their classes, without those of which too little is
    left."""
    sides = np.array([there[1], there[0], there[1], there[0]], np.float64)
    (down, above), (across, before) = decode.placement(there, how.size, how.fit)
    scale, shift = np.array([across, down, across, down]), np.array([before, above, before, above])
    of_row = np.array([how.size[1], how.size[0]] * 2, np.float64)
    kept, words, seen = list[np.ndarray](), list[str](), set[tuple[object, ...]]()
    for box, word in zip(values, names, strict=True):
        inside = np.clip(box, 0, sides)
        if min(inside[2] - inside[0], inside[3] - inside[1]) < LEAST_SIDE:
            changed.add("left out, less than a pixel wide or high, or outside of the picture", name)
            continue
        if (word, *box) in seen:
            changed.add("left out, the same box is there twice", name)
            continue
        seen.add((word, *box))
        if np.abs(inside - box).max() > SLACK:
            changed.add("cut, they reach beyond their picture", name)
        whole = inside * scale + shift
        left = np.clip(whole, 0, of_row)
        if _area(left) < LEAST_LEFT * _area(whole):
            changed.add("left out, less than a quarter of it is left once the picture is cropped", name)
            continue
        kept.append(left / of_row)
        words.append(word)
    return np.asarray(kept, np.float64).reshape(-1, 4), words


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
