"""docs/quality.md and its pictures from quality.json: every figure in them is read from there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiments.picture import Row, caterpillars, forest

Found = Mapping[str, Any]

ARMS = {
    "fine_tuning": "strokes, `fine_tuning`",
    "lp_ft": "strokes, `lp_ft`",
    "feature_extraction": "strokes, `feature_extraction`",
    "random_labels": "control: strokes with random labels, `fine_tuning`",
    "untrained": "control: untrained source, `initialize`",
}
TABLES = {
    "lowrank-poor": ("`lowrank`: 30 labels of `main`, 1000 of seven others", "main"),
    "unrelated-poor": ("control: `unrelated`: 30 labels of `main`, 1000 of seven others", "main"),
    "shuffled-poor": ("control: `unrelated`, the seven others in another order of rows", "main"),
    "unrelated-100": ("control: `unrelated`: 100 rows of all eight", "delta_m"),
}
DISTILLED = {
    "100": "100 labels; teacher 1000 labels",
    "100_long": "the same, 1500 steps",
    "100_unlabelled": "100 labels, 978 unlabelled; teacher 1000 labels",
    "100_unlabelled_long": "the same, 1500 steps",
    "same_labels": "100 labels, 978 unlabelled; teacher the same 100",
    "same_labels_long": "the same, 1500 steps",
    "1000": "1000 labels; teacher the same pool",
    "1000_long": "the same, 1500 steps",
    "1000_even": "1000 labels, 300 steps, weights 0.5 and 0.5",
    "100_untrained": "control: 100 labels; untrained teacher",
    "100_unlabelled_untrained": "control: 100 labels, 978 unlabelled; untrained teacher",
}
BESIDE = {"helped": "ahead", "hurt": "behind", "no_effect": "level", "inconclusive": "undecided"}
"""What a verdict on ours against theirs means."""

RIVALS = {
    "100": "distillation, 100 labels",
    "100_unlabelled": "distillation, 100 labels and 978 unlabelled",
    "1000": "distillation, 1000 labels",
}
METHODS = {
    "sum": "`equal` / Sum",
    "uw": "`uncertainty` / UW",
    "uw_log": "`uncertainty` / UW begun at log L₀",
    "pcgrad": "`pcgrad` / PCGrad",
    "cagrad": "`cagrad` / CAGrad",
    "upgrad": "`pcgrad` / UPGrad",
}


def write(found: Found, page: Path) -> list[Path]:
    """The page at `page` and its pictures beside it; a part that was not measured is left out."""
    paths = [page]
    text = Path(__file__).with_name("quality.md").read_text()
    for name, make in TABLE.items():
        made = "\n".join(make(found)) if _known(found, name) else "Not measured yet."
        text = text.replace(f"<!-- {name} -->", re.sub(r"(?<=[ |])-(?=\d)", "−", made))
    page.write_text(text)
    for name, draw in PICTURE.items():
        if _known(found, name):
            path = page.with_name(f"quality-{name}.svg")
            path.write_text(draw(found))
            paths.append(path)
    return paths


def transfer_table(found: Found) -> Iterable[str]:
    yield from _head("labels a class", "source and strategy", "with", "alone")
    for count, arm, one in _transfer(found):
        yield _line(one["tasks"]["digit"], count, ARMS[arm])
    rows = [row["fine_tuning"] for row in _rows(found, "transfer").values()]
    yield ""
    yield f"The source alone, before it has seen any real digit: {100 * rows[0]['zero_shot']:.1f} %."


def multitask_table(found: Found) -> Iterable[str]:
    yield from _head("task", "weighting", "shared", "alone")
    for name, one in found["multitask"]["digits"].items():
        yield _line(_deciding(one), "digit, 50 labels (decides)", f"`{name}`")
    for name, one in found["multitask"]["digits"].items():
        for task, words in (("odd", "odd, 1000 labels"), ("at_least_5", "at_least_5, 1000 labels")):
            yield _line(one["tasks"][task], words, f"`{name}`")


def tables_table(found: Found) -> Iterable[str]:
    """The deciding task where one is named, and Δm for all."""
    yield from _head("data", "what", "shared", "alone")
    for name, (words, on) in TABLES.items():
        one = found["multitask"]["tables"].get(name)
        if one is None:
            continue
        if on != "delta_m":
            yield _line(_deciding(one), words, "R² × 100 of `main` (decides)")
        verdict = one["delta_m"]
        lo, hi = verdict["interval"]
        seeds = ", ".join(f"{value:+.1f}" for value in verdict["delta"]["values"])
        what = "Δm over all eight, %" + (" (decides)" if on == "delta_m" else "")
        yield f"| {words} | {what} | | | {verdict['delta']['mean']:+.1f} | {lo:+.1f} … {hi:+.1f} | {_word(verdict)} | {seeds} |"


def words_of_others(found: Found) -> Iterable[str]:
    """How the other tasks of the controls fared, each held to its own interval."""
    for name, (words, _) in TABLES.items():
        one = found["multitask"]["tables"].get(name)
        if one is not None and name != "lowrank-poor":
            told = [task["decision"] for task in one["tasks"].values()]
            counts = ", ".join(f"{told.count(word)} `{word}`" for word in sorted(set(told)))
            main = one["tasks"]["main"]["decision"]
            yield f"* {words.removeprefix('control: ')}: of its eight tasks {counts} (`main`: `{main}`)."


def distillation_table(found: Found) -> Iterable[str]:
    yield from _head("student", "teacher's accuracy", "distilled", "alone")
    for name, words in DISTILLED.items():
        one = found["distillation"].get(name)
        if one is not None:
            yield _line(one["tasks"]["digit"], words, _teachers(one))


def null_table(found: Found) -> Iterable[str]:
    words = ("helped", "hurt", "no_effect", "inconclusive")
    yield f"| arms | verdicts | {' | '.join(f'`{word}`' for word in words)} | allowed of `helped`, of `hurt` |"
    yield "|---|---|---|---|---|---|---|"
    names = {
        "untrained": "from one untrained network, against from scratch",
        "twins": "from scratch, against from scratch with other seeds",
    }
    null = found["null"]
    for name, told in names.items():
        counts = null["counts"][name]
        total = len(null["verdicts"][name])
        yield f"| {told} | {total} | {' | '.join(str(counts[word]) for word in words)} | {null['allowed']} |"


def rivals_table(found: Found) -> Iterable[str]:
    yield "| setting | theirs | initialisation | ours | theirs | Δ | 95 % interval | ours is | Δ of each seed |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for setting, name, init, one in _rivals(found):
        task = one["tasks"]["digit"]
        lo, hi = one["interval"]
        yield (
            f"| {setting} | {name} | {init} | {_mean(task['treated'])} | {_mean(task['control'])} "
            f"| {100 * task['delta']['mean']:+.1f} | {100 * lo:+.1f} … {100 * hi:+.1f} | {BESIDE[one['decision']]} | {_seeds(task)} |"
        )


def versions(found: Found) -> Iterable[str]:
    return [", ".join(f"{name} {version}" for name, version in found["rivals"]["versions"].items())]


def verdicts_picture(found: Found) -> str:
    rows = [Row("Transfer: strokes to real digits")]
    rows += [
        _row(one["tasks"]["digit"], f"{count} a class: {_bare(ARMS[arm])}") for count, arm, one in _transfer(found)
    ]
    rows.append(Row("Multi-task: digit from 50 labels, beside parity and size"))
    rows += [_row(_deciding(one), name) for name, one in found["multitask"]["digits"].items()]
    rows.append(Row("Distillation: 93,322 to 2,258 parameters"))
    rows += [
        _row(found["distillation"][name]["tasks"]["digit"], words)
        for name, words in DISTILLED.items()
        if name in found["distillation"]
    ]
    return forest("Verdicts with their intervals", "points of accuracy: with the method − without it", rows)


def rivals_picture(found: Found) -> str:
    rows, last = [], ""
    for setting, name, init, one in _rivals(found):
        if "as it comes" in name:
            continue  # seventy points away, it would press the others together
        if setting != last:
            rows.append(Row(_bare(setting)))
            last = setting
        task = dict(one["tasks"]["digit"], interval=one["interval"], decision=one["decision"])
        rows.append(_row(task, f"{_bare(name)}, from {init} initialisation"))
    return forest(
        "Ours beside other libraries", "points of accuracy: ours − theirs (without Keras's default loss)", rows, BESIDE
    )


def null_picture(found: Found) -> str:
    titles = {"untrained": "from one untrained network", "twins": "control against control"}
    return caterpillars(
        "Comparisons of equals",
        {
            titles[name]: [
                Row("", one["decision"], 100 * one["delta"], (100 * one["interval"][0], 100 * one["interval"][1]))
                for one in rows
            ]
            for name, rows in found["null"]["verdicts"].items()
        },
    )


TABLE = {
    "transfer": transfer_table,
    "multitask": multitask_table,
    "multitask tables": tables_table,
    "multitask others": words_of_others,
    "distillation": distillation_table,
    "null": null_table,
    "rivals": rivals_table,
    "rivals versions": versions,
}
PICTURE = {"verdicts": verdicts_picture, "null": null_picture, "rivals": rivals_picture}


def _known(found: Found, name: str) -> bool:
    if name == "verdicts":
        return all(part in found for part in ("transfer", "multitask", "distillation"))
    return name.split(maxsplit=1)[0] in found


def _rows(found: Found, part: str) -> dict[str, Any]:
    return {key: value for key, value in found[part].items() if key != "about"}


def _transfer(found: Found) -> Iterable[tuple[str, str, Any]]:
    for count, row in _rows(found, "transfer").items():
        for arm, one in row.items():
            yield count, arm, one


def _rivals(found: Found) -> Iterable[tuple[str, str, str, Any]]:
    for setting, rows in found["rivals"]["distillation"].items():
        for arm, one in rows.items():
            name, _, init = arm.partition(", ")
            yield RIVALS[setting], name, _init(init), one
    for arm, one in found["rivals"]["multitask"].items():
        name, _, init = arm.removeprefix("torchjd ").partition(", ")
        yield f"multi-task, {METHODS[name]}", f"torchjd {name.split('_')[0]}", _init(init), one


def _init(words: str) -> str:
    return "its own" if words.startswith("own") else "our"


def _deciding(one: Mapping[str, Any]) -> dict[str, Any]:
    """The task that the job's decision is on: its interval is not corrected for the number of tasks, and its word is the job's."""
    task = one["tasks"][one["on"]]
    return {**task, "interval": task["ci95"], "decision": one["decision"]}


def _head(*words: str) -> Sequence[str]:
    first = f"| {' | '.join(words)} | Δ | 95 % interval | verdict | Δ of each seed |"
    return [first, "|" + "---|" * (len(words) + 4)]


def _line(task: Mapping[str, Any], *words: str) -> str:
    lo, hi = task["interval"]
    cells = [
        *words,
        _mean(task["treated"]),
        _mean(task["control"]),
        f"{100 * task['delta']['mean']:+.1f}",
        f"{100 * lo:+.1f} … {100 * hi:+.1f}",
        _word(task),
        _seeds(task),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(arm: Mapping[str, Any]) -> str:
    return f"{100 * arm['mean']:.1f}"


def _seeds(task: Mapping[str, Any]) -> str:
    return ", ".join(f"{100 * value:+.1f}" for value in task["delta"]["values"])


def _word(task: Mapping[str, Any]) -> str:
    word = str(task["decision"])
    return f"**{word}**" if word in ("helped", "hurt") else word


def _row(task: Mapping[str, Any], label: str) -> Row:
    lo, hi = task["interval"]
    seeds = [100 * value for value in task["delta"]["values"]]
    return Row(label, task["decision"], 100 * task["delta"]["mean"], (100 * lo, 100 * hi), seeds)


def _teachers(one: Mapping[str, Any]) -> str:
    if one.get("teachers"):
        return f"{100 * sum(one['teachers']) / len(one['teachers']):.1f} (mean of {len(one['teachers'])})"
    return f"{100 * one['distillation']['teacher_value']['value']:.1f}"


def _bare(words: str) -> str:
    return words.replace("`", "")
