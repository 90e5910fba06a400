"""Near-duplicates: planted ones are found, honest different rows are not, and no pair is missed for being sought by bands."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from app.data import load, near
from app.data.inputs import image, text
from app.data.near import Found
from app.spec.data import InputSchema

PICTURES = InputSchema(kind="image", shape=[28, 28, 1], scale=255.0)
TEXTS = InputSchema(kind="text", shape=[512])


def compared(kind: ModuleType, ours: np.ndarray, theirs: np.ndarray, schema: InputSchema) -> Found:
    return near.across(kind.fingerprints(ours, schema), kind.fingerprints(theirs, schema), kind.bands, kind.nearly)


def brighter(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture * 0.7 + 40).astype(np.uint8)


def as_jpeg(picture: np.ndarray, quality: int = 60) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(picture.shape)


def speckled(picture: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(picture.sum())).normal(0, 4, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["digits", "strokes"])
@pytest.mark.parametrize("change", [brighter, as_jpeg, speckled])
def test_a_picture_that_was_changed_a_little_finds_itself(
    name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    rows = load(name).inputs[np.arange(300)]
    found = compared(image, np.stack([change(row) for row in rows]), rows, PICTURES)
    assert found.compared.tolist() == list(range(300))
    assert (found.twin == np.arange(300)).mean() > 0.98


@pytest.mark.parametrize("name", ["digits", "strokes"])
def test_no_picture_that_is_another_is_taken_for_it(name: str) -> None:
    table = load(name)
    rows = table.inputs[np.arange(len(table))]
    assert (compared(image, rows[::5], np.delete(rows, np.s_[::5], axis=0), PICTURES).twin == -1).all()


def test_colours_sizes_and_floats_of_a_picture_are_one_picture() -> None:
    rng = np.random.default_rng(0)
    large = np.stack(
        [np.asarray(Image.fromarray(rng.integers(0, 256, (6, 7), np.uint8)).resize((90, 80))) for _ in range(40)]
    )[..., None]
    small = np.stack([np.asarray(Image.fromarray(row[..., 0]).resize((60, 50)))[..., None] for row in large])
    for other in (np.repeat(large, 3, axis=-1), large.astype(np.float32) / 255, small):
        assert (compared(image, other, large, PICTURES).twin == np.arange(40)).all()
    tiny = large[:, ::20, ::20]
    assert (compared(image, tiny, tiny, PICTURES).twin == np.arange(40)).all(), "of 4 × 5 pixels too"


def test_pictures_without_any_difference_are_alike_and_none_else() -> None:
    flat = np.full((2, 28, 28, 1), 9, np.uint8)
    rows = np.concatenate([flat, load("digits").inputs[np.arange(20)]])
    assert compared(image, flat[:1], rows, PICTURES).twin.tolist() == [0]
    assert (compared(image, rows[2:], flat, PICTURES).twin == -1).all()


def sentences(rng: np.random.Generator, number: int, words: int = 50) -> list[list[str]]:
    vocabulary = ["".join(map(chr, rng.integers(97, 123, rng.integers(2, 10)))) for _ in range(3000)]
    return [list(rng.choice(vocabulary, words)) for _ in range(number)]


def test_a_text_of_which_a_word_was_changed_finds_itself_and_no_other_does() -> None:
    rng = np.random.default_rng(1)
    originals = sentences(rng, 200)
    changed = [list(words) for words in originals]
    for words in changed:
        words[rng.integers(len(words))] = "another"
    ours, theirs = (text.rows([" ".join(words) for words in each], 512) for each in (changed, originals))
    assert (compared(text, ours, theirs, TEXTS).twin == np.arange(200)).mean() > 0.98
    assert (compared(text, ours[:100], theirs[100:], TEXTS).twin == -1).all()


def runs(row: np.ndarray) -> set[bytes]:
    content = row.tobytes().rstrip(b"\0")
    return {content[at : at + 8] for at in range(max(1, len(content) - 7))}


def test_of_messages_those_are_found_that_share_their_runs_by_brute_force() -> None:
    table = load("messages")
    rows = table.inputs[np.arange(1000)]
    ours, theirs = rows[:200], rows[200:]
    found = compared(text, ours, theirs, table.schema.input)
    of_theirs = [runs(row) for row in theirs]
    shares = np.array([[len(own & other) / len(own | other) for other in of_theirs] for own in map(runs, ours)])
    clear = (shares.max(axis=1) >= 0.9) | (shares.max(axis=1) < 0.7)
    assert np.array_equal(found.twin[clear] >= 0, shares.max(axis=1)[clear] >= 0.9)
    assert all(shares[row, twin] > 0.65 for row, twin in enumerate(found.twin) if twin >= 0)
    estimates = (text.fingerprints(ours, TEXTS)[:, None] == text.fingerprints(theirs, TEXTS)[None]).mean(axis=2)
    assert np.abs(estimates - shares).max() < 5 * np.sqrt(0.25 / 128)
    assert abs((estimates - shares).mean()) < 0.001


def test_short_and_empty_texts_are_compared_whole() -> None:
    ours = text.rows(["", "yes", "no"], 32)
    assert compared(text, ours, text.rows(["no", "nothing", "yes"], 32), TEXTS).twin.tolist() == [-1, 2, 0]
    assert compared(text, ours[:, :4], ours[::-1, :4], TEXTS).twin.tolist() == [2, 1, 0], "rows shorter than a run"


def test_bands_miss_no_pair_that_comparing_all_finds() -> None:
    """Hashes that differ in up to six bits, of which those of up to four count."""
    rng = np.random.default_rng(2)
    theirs = rng.integers(0, 256, (300, 80), np.uint8)
    ours = theirs[rng.integers(0, 300, 200)]
    for row in ours:
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            row[bit // 8] ^= np.uint8(1 << (bit % 8))
    twins = near.across(ours, theirs, image.bands, image.nearly).twin
    every = [image.nearly(ours, theirs, np.full(300, row), np.arange(300)) for row in range(200)]
    assert [twin >= 0 for twin in twins] == [bool(some.any()) for some in every]
    assert all(some[twin] for some, twin in zip(every, twins, strict=True) if twin >= 0)
    assert 0.4 < (twins >= 0).mean() < 0.9


def test_where_too_many_would_be_compared_a_part_of_ours_is(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = np.arange(1000, dtype=np.uint16)[:, None]
    one_band = lambda each: np.zeros((len(each), 1), np.uint64)  # noqa: E731
    equal = lambda ours, theirs, left, right: (ours[left] == theirs[right])[:, 0]  # noqa: E731
    monkeypatch.setattr(near, "AT_ONCE", 5000)
    assert near.across(prints, prints, one_band, equal).twin.tolist() == list(range(1000))
    monkeypatch.setattr(near, "MOST_PAIRS", 100_000)
    found = near.across(prints, prints, one_band, equal)
    assert len(found.compared) == 100
    assert np.array_equal(found.twin, found.compared)
    assert found.compared[-1] >= 990, "spread over all"
