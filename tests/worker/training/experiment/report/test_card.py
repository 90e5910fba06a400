"""The card says what the report says, in Markdown that nothing in a name can break; the curve is whole SVG of our own."""

from __future__ import annotations

import html
import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from app.spec.data import InputSchema
from app.spec.models import Manifest, TaskManifest
from worker.training.experiment.report import card, picture
from worker.training.experiment.report.picture import Curve, Panel
from worker.training.scores import evaluate

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "a|b `c` <img src=x onerror=alert(1)>\n# no *head* [x](javascript:y) https://e.org"


def manifest(**more: Any) -> Manifest:
    given: dict[str, Any] = {
        "role": "model",
        "architecture": {"arch": "cnn-small"},
        "input": InputSchema(kind="image", shape=[28, 28, 1], scale=255.0),
        "tasks": {"digit": TaskManifest(type="multiclass", column=NASTY, classes=["one", NASTY, "```"], units=3)},
        "layers": [],
        "parameters": 2403,
        "sha256": "ab" * 32,
        "versions": {"keras": "3.15.1"},
        "dataset": {"sets": [{"ref": "digits", "sha256": "cd" * 32, "rows": 300}]},
        "loading": "model = load('x')  # ```` inside",
    }
    return Manifest(**(given | more))


def report(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(3), 60)
    figures = evaluate.evaluate(
        "multiclass", chances, rng.integers(0, 3, 60), metric="accuracy", classes=["one", NASTY, "```"]
    )
    return {
        "kind": "transfer",
        "sentence": "helped: accuracy 0.842 against 0.789",
        "verdict": {"tasks": {"digit": {"sentence": "helped: +5.3 points"}}},
        "overlap": "none",
        "tasks": {"digit": figures},
        "model": {"bytes": 60796, "latency": {"device": "cpu", "batch": 256, "ms_per_row": 1.25, "ms_per_batch": 7.5}},
        "export": {"onnx": {"file": "model.onnx", "bytes": 1234}},
        "rows": {"digits": {"train": 1258, "validation": 180, "test": 359}},
        "labels": {"digit": 50},
        "dropped_rows": {"digits": 3},
        "models": {"model": {"steps": 40, "learning_rate": 1e-3, "device_seconds": 6.2}},
        **more,
    }


SPEC: dict[str, Any] = {
    "name": NASTY,
    "strategy": "fine_tuning",
    "metadata": {"secret": "not shown"},
    "training": {
        "epochs": 4,
        "steps": None,
        "batch_size": 64,
        "seed": 0,
        "optimizer": {"name": "adam", "learning_rate": 5e-4},
    },
}
SOURCE = {
    "heir": "model",
    "relation": "initialized from",
    "id": "mdl_1",
    "architecture": "cnn",
    "parameters": 93322,
    "steps": 300,
    "dataset": "strokes",
    "sha256": "ef" * 32,
}


def test_the_card_tells_what_is_known() -> None:
    text = card.card(report(), manifest(), SPEC, [SOURCE])
    told = [
        "helped: accuracy 0.842 against 0.789",
        "helped: +5.3 points",
        "2,403 parameters",
        "60,796 bytes",
        "`model.onnx`, 1,234 bytes",
    ]
    told += [
        "1.25 ms a row, 7.5 ms for 256",
        "| digits | 1258 | 180 | 359 | 3 |",
        "digit 50",
        "calibration error",
        "ab" * 32,
        "cd" * 32,
    ]
    told += [
        "| model | initialized from | mdl\\_1: cnn, 93,322 parameters, 300 steps on strokes",
        "4 epochs, batch size 64",
        "0.0005",
        "curve.svg",
    ]
    assert not [words for words in told if words not in text]
    assert "not shown" not in text
    accuracy = report()["tasks"]["digit"]["accuracy"]
    assert f"| accuracy | {accuracy:.4g} |" in text


def test_the_card_shows_test_pictures_where_there_are_some() -> None:
    line = "![Test pictures: above the boxes of the data set, below those that the model finds](detections.png)"
    assert line in card.card(report(), manifest(), SPEC, [SOURCE], drawn=True)
    assert "detections" not in card.card(report(), manifest(), SPEC, [SOURCE])


def test_the_card_says_what_needs_no_network() -> None:
    constant = {"what": "the most frequent class", "value": 0.25, "reason": None, "train_rows": 1200, "test_rows": 60}
    linear = {**constant, "what": "logistic regression on TF-IDF of words", "value": 0.875}
    entry = {"metric": "accuracy", "better": "higher", "constant": constant, "linear": linear}
    text = card.card(report(baselines={"digit": entry}), manifest(), SPEC, [])
    both = "0.25 by the most frequent class, 0.875 by logistic regression on TF-IDF of words"
    assert f"Without a network, accuracy is {both}; fitted on 1,200 training rows." in text
    without = {**linear, "value": None, "reason": "too much", "train_rows": 0}
    text = card.card(report(baselines={"digit": {**entry, "linear": without}}), manifest(), SPEC, [])
    assert "no value by logistic regression on TF-IDF of words (too much); fitted on 1,200" in text
    text = card.card(report(baselines={"digit": {**entry, "linear": None}}), manifest(), SPEC, [])
    assert "accuracy is 0.25 by the most frequent class; fitted" in text


def outside_of_code(text: str) -> str:
    """A card without its blocks and spans of code, and without what is escaped. Within a span of ours nothing is escaped, and no mark."""
    text = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`|\\\n]+`", "CODE", re.sub(r"\\[^\w\s]", "", text))


def test_nothing_in_a_name_is_markup() -> None:
    text = card.card(report(), manifest(), SPEC, [SOURCE])
    bare = outside_of_code(text)
    assert "<" not in bare
    assert "](javascript" not in bare
    headings = [line for line in bare.splitlines() if line.startswith("#")]
    assert len(headings) == 8 + 1  # a name's own "#" is none of them
    assert "`" not in bare
    tables = [block.splitlines() for block in bare.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 6
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


LIVE = {
    "extended autolinks of GitHub's Markdown": r"(?i)www\.|(?:https?|ftp)://|(?:mailto|xmpp):|[\w.+-]+@[\w-]+\.\w",
    "mentions, issues, emoji, formulas": r"(?i)@\w|#\d|\bGH-\d|:[\w+-]+:|\$",
    "addresses as others guess them": r"[\w-]+\.(?:com|org|io|md)\b",
    "hashes of commits": r"\b[0-9a-f]{7,40}\b",
}


@pytest.mark.parametrize(
    "name",
    [
        "www.evil.com", "WWW.evil.com/a?b", "user@evil.com", "https://evil.com", "(http://evil.com).", "ftp://evil.com", "x://y",
        "evil.com/path", "\"evil.io\",", "@user", "(@user)", "a@b", "#123", "GH-123", "owner/repo#1", "mailto:a@b.de", "xmpp:a@b.de",
        ":octocat:", "$x$", "0123abc", "a|www.evil.com", "www.ev|il.com", "`www.evil.com", "www.`evil.com`", "\\@user", "@user\\",
        "&#64;user &commat;user@evil.com", "www&#46;evil.com", "<https://evil.com>", "[a](https://evil.com)", "![a](//evil.com/x.png)",
        "a@b`|`c@d", "www.", "_www.}", "``@user``", "@\\`user",
    ],
)  # fmt: skip
def test_nothing_in_a_name_comes_alive(name: str) -> None:
    """As a renderer goes about it: entities and escapes are resolved first, then links and mentions are looked for in what is left."""
    text = card._text(f"{name} and {name}")
    bare = html.unescape(outside_of_code(text))
    assert "`" not in bare
    assert "|" not in bare
    assert not [what for what, pattern in LIVE.items() if re.search(pattern, bare)]
    assert "\u200b" not in text


def test_no_verdict_and_unknown_overlap_are_said() -> None:
    text = card.card(report(sentence=None, verdict={}, overlap="unknown"), manifest(), SPEC, [])
    assert "no verdict" in text
    assert "overlap with the test rows is unknown" in text
    assert "No stage and no arm" not in text


JUDGED: dict[str, Any] = {
    "metric": "accuracy",
    "sentence": "helped: +5.3 points",
    "treated": {"mean": 0.84, "values": [0.86, 0.82]},
    "control": {"arm": "same CNN from scratch", "mean": 0.79, "values": [0.78, 0.8]},
    "delta": {"mean": 0.05, "values": [0.08, 0.02]},
    "interval": [-0.01, 0.11],
    "margin": 0.02,
    "seeds": [7, 8],
}
DELTA_M: dict[str, Any] = {
    **{key: value for key, value in JUDGED.items() if key not in ("treated", "control")},
    "metric": "delta_m",
    "sign_rule": "positive is better",
    "delta": {"mean": -1.0, "values": [1.5, -3.5]},
    "interval": [None, None],
    "margin": 2.0,
}
TAUGHT: dict[str, Any] = {
    "teachers": [{"model": "mdl_1", "weight": 0.75}, {"model": "teacher/1", "weight": 0.25}],
    "teacher_value": {"metric": "accuracy", "value": 0.961},
    "agreement": 0.917,
    "params_ratio": 41.3,
    "latency_ratio": 3.2,
    "gap_recovered": {"value": 0.62, "reason": None},
}


def test_each_seed_s_values_are_in_the_card() -> None:
    text = card.card(report(verdict={"tasks": {"digit": JUDGED}, "delta_m": DELTA_M}), manifest(), SPEC, [])
    assert "![Each seed's value](seeds.svg)" in text
    assert "| seed | treated | control | difference (points) |" in text
    assert "| 7 | 0.86 | 0.78 | +8.0 |" in text
    assert "| 8 | 0.82 | 0.8 | +2.0 |" in text
    assert "| seed | difference (%) |" in text
    assert "| 8 | −3.5 |" in text
    alone = card.card(report(verdict={"tasks": {"digit": {"sentence": "not_measured"}}}), manifest(), SPEC, [])
    assert "seeds.svg" not in alone


def test_the_card_tells_how_a_student_was_taught_and_what_came_of_it() -> None:
    spec = {**SPEC, "generations": 3, "weight_schedule": "linear_anneal", "unlabelled": "more digits"}
    spec |= {"logit_standardization": True, "label_weight": 0.1}
    text = card.card(report(kind="distillation", distillation=TAUGHT), manifest(), spec, [])
    told = ["generations | 3", "weight\\_schedule | linear\\_anneal", "unlabelled | more digits", "0.1"]
    told += ["logit\\_standardization | true", "teacher mdl\\_1 | weight 0.75", "agreement with the teachers | 0.917"]
    told += ["accuracy of the teachers | 0.961", "share of the gap recovered | 0.62"]
    told += ["parameters, teachers / student | 41.3", "latency on a CPU, teachers / student | 3.2"]
    assert not [words for words in told if f"| {words} |" not in text.replace("label\\_weight | ", "")]
    unclear = {**TAUGHT, "agreement": None, "gap_recovered": {"value": None, "reason": "one seed gives no interval"}}
    several = card.card(report(distillation={"tasks": {"digit": unclear}}), manifest(), SPEC, [])
    assert "| share of the gap recovered | not defined: one seed gives no interval |" in several
    assert "agreement" not in several


def test_every_seed_is_a_pair_of_dots_where_its_values_say() -> None:
    root = ElementTree.fromstring(str(card.seeds(report(verdict={"tasks": {"digit": JUDGED}, "delta_m": DELTA_M}))))
    task, together = root.iter(f"{SVG}g").__next__().findall(f"{SVG}g")
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in task.iter(f"{SVG}circle")]
    (worse7, _), (better7, top), (worse8, _), (better8, below), (seven, _), (eight, _), (mean, _) = dots
    assert top < below
    unit = (better7 - worse7) / 0.08
    assert (better8 - worse8) / 0.02 == pytest.approx(unit, rel=0.02)
    assert (worse8 - worse7) / 0.02 == pytest.approx(unit, rel=0.02)
    assert mean == pytest.approx((seven + eight) / 2, abs=0.2)
    labels = [text.text for text in root.iter(f"{SVG}text")]
    assert {"digit: accuracy", "difference, points", "difference, %", "seed 7", "seed 8", "mean"} <= set(labels)
    assert len(list(together.iter(f"{SVG}circle"))) == 3
    assert card.seeds(report(verdict={"tasks": {"digit": {"seeds": [], "delta": {"mean": None}}}})) is None
    assert card.seeds(report(verdict=None)) is None


HISTORY = {
    "loss": [(10, 2.0), (20, 1.0)],
    "digit_loss": [(10, 1.0), (20, 0.5)],
    "learning_rate": [(10, 1e-3), (20, 1e-3)],
    "val_digit_accuracy": [(10, 0.5), (20, None)],
    "source/loss": [(10, 9.0)],
    "control/0/digit/val_accuracy": [(10, 0.4), (20, 0.45)],
    "control/1/digit/val_accuracy": [(10, 0.1)],
}


def test_the_curve_shows_the_model_and_its_first_control() -> None:
    root = ElementTree.fromstring(card.curve(report(), HISTORY))
    labels = [text.text for text in root.iter(f"{SVG}text")]
    assert {"training loss", "validation", "loss", "digit_loss", "digit_accuracy", "digit_accuracy, control"} <= set(
        labels
    )
    assert not {"learning_rate", "source/loss"} & set(labels)
    dashed = [path for path in root.iter(f"{SVG}path") if path.get("stroke-dasharray")]
    assert len(dashed) == 2  # the control's line and its place in the legend


def test_a_single_tasks_control_is_found_by_the_same_name() -> None:
    history = {"loss": [(1, 1.0)], "val_accuracy": [(1, 0.5)], "control/0/val_accuracy": [(1, 0.4)]}
    assert "accuracy, control" in card.curve(report(), history)
    assert "control" not in card.curve(report(), {"loss": [(1, 1.0)]})


def test_points_lie_where_their_values_say_and_gaps_break_the_line() -> None:
    points = [(0.0, 0.0), (1.0, 1.0), (2.0, math.nan), (3.0, 1.0), (4.0, 0.5)]
    root = ElementTree.fromstring(picture.chart("t", [Panel("p", "x", [Curve("c", points)])]))
    lines = [str(path.get("d")) for path in root.iter(f"{SVG}path") if path.get("stroke-linecap")]
    found = [[tuple(map(float, pair.split())) for pair in re.split("[ML]", line)[1:]] for line in lines]
    assert [len(piece) for piece in found] == [2, 2]
    (x0, y0), (x1, y1), (x3, y3), (x4, y4) = [*found[0], *found[1]]
    assert (x1 - x0, x4 - x3) == pytest.approx(((x4 - x0) / 4,) * 2, abs=0.2)
    assert y1 == y3 < y4 < y0  # upwards is smaller
    assert y4 == pytest.approx((y0 + y1) / 2, abs=0.2)


@pytest.mark.parametrize(
    "points", [[], [(1.0, None)], [(5.0, 0.25)], [(0.0, 3.0), (1.0, 3.0)], [(i, float(i)) for i in range(5000)]]
)
def test_any_history_gives_a_whole_small_picture(points: Any) -> None:
    text = picture.chart("a < b & \x00c", [Panel("\x1b", "x", [Curve("<&>", points)])])
    root = ElementTree.fromstring(text)
    assert root.find(f"{SVG}title").text == "a < b & c"  # type: ignore[union-attr]
    assert "nan" not in text
    assert "inf" not in text
    assert len(text) < 30_000


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (-0.3, 0.3, [-0.2, 0, 0.2]),
        (2, 2, [2]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert picture.ticks(low, high) == pytest.approx(expected)


def test_a_difference_that_is_not_defined_is_a_dash() -> None:
    """Δm of a control whose mean is 0."""
    table = card._seeds(
        {"seeds": [0, 1], "metric": "delta_m", "delta": {"values": [None, 2.5]}, "interval": [None, None]}
    )
    assert "| 0 | – |" in table
    assert "| 1 | +2" in table
