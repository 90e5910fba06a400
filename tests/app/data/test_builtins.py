from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from app.data import builtins, strokes
from app.data.table import same_inputs
from app.spec.lookup import Missing


@pytest.mark.parametrize("name", list(builtins.BUILTINS))
def test_a_table_is_what_its_schema_says(name: str) -> None:
    table = builtins.load(name)
    schema = builtins.schema(name)
    assert table.inputs.shape == (schema.rows, *schema.input.shape)
    assert np.isfinite(table.inputs).all() or any(part.features for part in schema.input.parts.values())
    assert table.hashes.shape == (schema.rows, 16)
    assert schema.target in schema.columns
    assert list(table.columns) == list(schema.columns)
    for column in schema.columns.values():
        values = table.columns[column.name]
        if column.type == "category":
            assert column.classes is not None
            assert values.dtype == np.int32
            assert column.counts == [int((values == code).sum()) for code in range(len(column.classes))]
        elif column.type == "tags":
            assert values.dtype == np.int16
            begins = (values >= 0) & (np.pad(values, ((0, 0), (1, 0)), constant_values=-1)[:, :-1] < 0)
            assert column.counts == np.bincount(values[begins]).tolist()
        elif column.classes is not None:
            assert values.shape == (schema.rows, *column.shape)
            assert column.counts == [int((values[..., 4] == code).sum()) for code in range(len(column.classes))]
        else:
            assert values.dtype == np.float32
            assert (column.minimum, column.maximum) == (float(min(values)), float(max(values)))
    if schema.input.kind == "image":
        assert table.inputs.dtype == np.uint8
        assert schema.input.scale == 255
    elif schema.input.kind == "text":
        assert table.inputs.dtype == np.uint8
    elif schema.input.kind == "audio":
        assert table.inputs.dtype == np.int16
    elif schema.input.parts:
        assert table.inputs.dtype == np.float32
    else:
        assert len(schema.input.features) == table.inputs.shape[1]


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris"])
def test_tables_are_scikit_learns(name: str) -> None:
    theirs = getattr(sklearn_datasets, f"load_{name}")()
    ours = builtins.load(name)
    assert np.array_equal(theirs.data.astype(np.float32), ours.inputs)
    assert np.array_equal(theirs.target, ours.columns["class"])
    assert list(theirs.target_names) == ours.schema.columns["class"].classes
    assert list(theirs.feature_names) == [feature.column for feature in ours.schema.input.features]


def test_diabetes_is_scikit_learns_in_its_own_units() -> None:
    theirs = sklearn_datasets.load_diabetes(scaled=False)
    ours = builtins.load("diabetes")
    assert np.array_equal(theirs.data.astype(np.float32), ours.inputs)
    assert np.array_equal(theirs.target, ours.columns["progression"])


def test_digits_are_scikit_learns_enlarged_linearly() -> None:
    theirs = sklearn_datasets.load_digits()
    ours = builtins.load("digits")
    assert np.array_equal(theirs.target, ours.columns["digit"])
    assert np.array_equal(ours.inputs[:, ::27, ::27, 0], (theirs.images[:, ::7, ::7] * 255 // 16).astype(np.uint8))
    where = np.arange(28) * 7 / 27
    for picture in (0, 17, 1796):
        rows = np.array([np.interp(where, np.arange(8), line) for line in theirs.images[picture]])
        whole = np.array([np.interp(where, np.arange(8), line) for line in rows.T]).T
        assert np.abs(ours.inputs[picture, :, :, 0] - whole * 255 / 16).max() < 1.001
    assert np.array_equal(ours.columns["odd"], theirs.target % 2)
    assert np.array_equal(ours.columns["at_least_5"], theirs.target >= 5)
    assert ours.schema.columns["odd"].classes == ["even", "odd"]


def test_strokes_are_many_balanced_and_all_different() -> None:
    table = builtins.load("strokes")
    assert table.inputs.shape == (4000, 28, 28, 1)
    assert np.bincount(table.columns["digit"]).tolist() == [400] * 10
    assert same_inputs(table.hashes).max() == 3999
    ink = (table.inputs > 127).reshape(4000, -1).mean(axis=1)
    assert ink.min() > 0.02
    assert ink.max() < 0.6
    spread = table.inputs.reshape(4000, -1).astype(float)
    for digit in range(10):
        assert spread[table.columns["digit"] == digit].std(axis=0).mean() > 20


def test_strokes_resemble_the_real_digits() -> None:
    """Each real digit takes the class of the stroke picture that points the same way: far above the 10 % of chance."""
    real, drawn = builtins.load("digits"), builtins.load("strokes")

    def directions(inputs: np.ndarray) -> np.ndarray:
        flat = inputs.reshape(len(inputs), -1).astype(np.float32)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    nearest = (directions(real.inputs[:600]) @ directions(drawn.inputs).T).argmax(axis=1)
    assert (drawn.columns["digit"][nearest] == real.columns["digit"][:600]).mean() > 0.6


def test_tones_are_what_their_columns_say() -> None:
    """The strongest pitch of the first and of the last third, against the pattern and the height."""
    table = builtins.load("tones")
    assert same_inputs(table.hashes).max() == 1199
    assert np.bincount(table.columns["pattern"]).tolist() == [300] * 4
    assert table.schema.input.rate == 8000
    patterns, heights = (table.schema.columns[name].classes or [] for name in ("pattern", "high"))
    right, high = list[bool](), list[bool]()
    for row, of, is_high in zip(table.inputs[..., 0], table.columns["pattern"], table.columns["high"], strict=True):
        sound = row.astype(float)
        loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() / 4)
        parts = np.array_split(sound[loud[0] : loud[-1]], 3)
        first, middle, last = (np.abs(np.fft.rfft(part * np.hanning(len(part)), 8000)).argmax() for part in parts)
        change = (last - first) / middle
        guess = "rising" if change > 0.1 else "falling" if change < -0.1 else "level"
        right.append(guess == patterns[of] or (guess == "level" and patterns[of] in ("steady", "pulsed")))
        high.append(heights[is_high] == ("high" if middle > 700 else "low"))
    assert np.mean(right) > 0.9
    assert np.mean(high) > 0.95


def test_drawing_is_quick_and_the_same_every_time() -> None:
    labels = np.arange(4000) % 10
    start = time.process_time()
    first = strokes.draw(labels, seed=0)
    assert time.process_time() - start < 1  # 0.2 s when nothing else runs
    assert np.array_equal(first, builtins.load("strokes").inputs)
    assert not np.array_equal(first, strokes.draw(labels, seed=1))


@pytest.mark.parametrize("name", builtins.BUILTINS)
def test_what_is_written_down_is_what_the_rows_say(name: str) -> None:
    assert builtins.about(name) == builtins.described(name), "builtins.write_down() writes it again"


def test_another_process_makes_the_same_bytes_and_imports_no_scikit_learn() -> None:
    program = (
        "import sys; from app.data import builtins\n"
        "print({name: builtins.described(name).sha256 for name in builtins.BUILTINS})\n"
        "assert not {'sklearn', 'scipy', 'keras', 'tensorflow'} & set(sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said.strip() == str({name: builtins.sha256(name) for name in builtins.BUILTINS})


def test_the_related_targets_share_three_causes_and_the_others_do_not() -> None:
    def share_of_three(name: str) -> float:
        targets = np.stack(list(builtins.load(name).columns.values()), axis=1)
        spectrum = np.sort(np.linalg.eigvalsh(np.cov(targets.T)))[::-1]
        return float(spectrum[:3].sum() / spectrum.sum())

    assert share_of_three("lowrank") > 0.85
    assert share_of_three("unrelated") < 0.7


def test_what_is_handed_out_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        builtins.load("iris").inputs[0] = 0


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(Missing) as missing:
        builtins.load("digit")
    assert str(missing.value.hint) == "did you mean 'digits'?"


def test_every_shape_fills_its_box_to_all_four_edges() -> None:
    """The boxes of `shapes` against the pixels: brighter than any ground, and nothing bright elsewhere."""
    table = builtins.load("shapes")
    counts = set()
    for picture, boxes in zip(np.asarray(table.inputs), table.columns["boxes"], strict=True):
        drawn = np.zeros(picture.shape[:2], bool)
        there = boxes[boxes[:, 4] >= 0]
        counts.add(len(there))
        for box in there:
            left, top, right, bottom = np.rint(box[:4] * 48).astype(int)
            inside = (picture[top:bottom, left:right] >= 150).all(axis=-1)
            assert inside.any(axis=0).all()
            assert inside.any(axis=1).all()
            assert not drawn[top:bottom, left:right].any()
            drawn[top:bottom, left:right] = True
        assert not ((picture >= 160).all(axis=-1) & ~drawn).any()
    assert counts == {1, 2, 3, 4}


def test_faces_are_where_their_boxes_say_and_of_the_persons_that_their_columns_name() -> None:
    table = builtins.load("faces")
    assert same_inputs(table.hashes).max() == 1199
    assert np.bincount(table.columns["person"]).tolist() == [8] * 150
    pictures, boxes = np.asarray(table.inputs).astype(float), table.columns["face"][:, 0]
    assert (boxes[:, 4] == 0).all()
    assert (boxes[:, :4] >= 0).all()
    assert (boxes[:, :4] <= 1).all()
    left, top, right, bottom = (boxes[:, :4] * 48).round().astype(int).T
    assert ((right - left >= 10) & (bottom - top >= 15)).all()
    # Between the eyes and the mouth there is skin, whose share of red depends on the person alone, whatever the light.
    middles = pictures[np.arange(1200), (top + 2 * bottom) // 3 - 1, (left + right) // 2]
    hue = middles[:, 0] / middles.sum(axis=1)
    person = table.columns["person"]
    within = np.array([np.std(hue[person == number]) for number in range(150)])
    assert np.median(within) < 0.5 * hue.std()
    corners = pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.std(corners[..., 0] / corners.sum(axis=2)) > 3 * np.median(within)
