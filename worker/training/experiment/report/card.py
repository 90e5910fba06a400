"""The model card: a job's model, its data, its results on rows that nothing was trained on, and how to load it.

Follows Mitchell et al. 2019, "Model Cards for Model Reporting", as far as a program can know the facts. The card is pure text, made from
the report, the manifest and the spec; names that come from users are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.spec import tasks
from worker.training.experiment.report.detections import FILE
from worker.training.experiment.report.picture import Curve, Pairs, Panel, chart, paired
from worker.training.scores.measures import metric_of
from worker.training.scores.sentence import scale, signed, unit
from worker.training.scores.spread import uneven

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from app.spec.imports import Origin
    from app.spec.models import Manifest

MOST_CLASSES = 12
"""A confusion table of more classes is in report.json only."""

CHOICES = ("strategy", "batch_norm", "sharing", "weighting")
CHOICES_OF_TEACHING = (
    "objectives",
    "label_weight",
    "weight_schedule",
    "logit_standardization",
    "teacher_outputs",
    "student_init",
    "generations",
    "unlabelled",
)
"""Fields of a spec that describe the method."""

RATIOS = {"params_ratio": "parameters", "latency_ratio": "latency on a CPU"}

History = Mapping[str, Sequence[tuple[int, float | None]]]
"""{metric's name: (step, value) …}, as metrics.csv has them."""


def card(
    report: Mapping[str, Any],
    manifest: Manifest,
    spec: Mapping[str, Any],
    lineage: Sequence[Mapping[str, Any]],
    drawn: bool = False,
) -> str:
    """The whole card. `drawn`: there is a file of `detections`.

    `lineage`: for each model behind this one `heir` (made from it), `relation`, `id`, `architecture`, `dataset`,
    `steps`, `parameters`, `sha256`, and `origin` where it was sent as a file."""
    name = str(spec.get("name") or f"A model by {report['kind']}")
    parts = [
        f"# {_text(name)}",
        f"> {_text(report['sentence'] or 'no verdict: the job asked for no control')}",
        "![Training curves](curve.svg)",
        "## What it is",
        _about(report, manifest),
        "## Data",
        _data(report, manifest),
        "## Method",
        _method(report, spec),
        "## Held-out results",
        "![Each seed's value](seeds.svg)" if _judged(report) else "",
        f"![Test pictures: above the boxes of the data set, below those that the model finds]({FILE})" if drawn else "",
        *_results(report),
        "## Lineage",
        _lineage(manifest, lineage),
        "## How to load it",
        _fence(manifest.loading, "python"),
        "## The job in full",
        _fence(json.dumps({key: value for key, value in spec.items() if key != "metadata"}, indent=2), "json"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def curve(report: Mapping[str, Any], history: History) -> str:
    """The training curve as SVG: losses of the job's model, and its validation values beside those of the first control."""
    losses = [name for name in history if name == "loss" or ("/" not in name and name.endswith("_loss"))]
    validation = [name for name in history if "/" not in name and name.startswith("val_")]
    panels = [
        Panel("training loss", "step", [Curve(name, history[name], colour=place) for place, name in enumerate(losses)])
    ]
    watched: list[Curve] = []
    for place, name in enumerate(validation):
        watched.append(Curve(name.removeprefix("val_"), history[name], colour=place))
        twin = _twin(name, history)
        if twin is not None:
            watched.append(Curve(f"{name.removeprefix('val_')}, control", history[twin], dashed=True, colour=place))
    panels += [Panel("validation", "step", watched)] if watched else []
    return chart(f"Training curves of a {report['kind']} job", panels)


def seeds(report: Mapping[str, Any]) -> str | None:
    """Each seed's values as SVG, for each task and for Δm; None without a pair. A mean alone may hide one run that collapsed."""
    blocks = []
    for name, verdict in _judged(report).items():
        by = scale(verdict)
        arms = [
            verdict[arm]["values"] if arm in verdict else [None] * len(verdict["seeds"])
            for arm in ("treated", "control")
        ]
        bounded = verdict["interval"][0] is not None
        blocks.append(
            Pairs(
                f"{name}: {_label(verdict['metric'])}" if "treated" in verdict else name,
                unit(verdict) or _label(verdict["metric"]),
                [
                    (f"seed {seed}", ours, theirs, by * delta)
                    for seed, ours, theirs, delta in zip(
                        verdict["seeds"], *arms, verdict["delta"]["values"], strict=True
                    )
                ],
                by * verdict["delta"]["mean"],
                (by * verdict["interval"][0], by * verdict["interval"][1]) if bounded else None,
                None if verdict["margin"] is None else by * verdict["margin"],
            )
        )
    return paired(f"Each seed's value of a {report['kind']} job", blocks) if blocks else None


def _judged(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The verdicts with at least one pair of runs: each task's, and that of all tasks together."""
    verdict = report.get("verdict") or {}
    verdicts = {**(verdict.get("tasks") or {}), "all tasks together": verdict.get("delta_m")}
    return {
        name: entry for name, entry in verdicts.items() if entry and (entry.get("delta") or {}).get("mean") is not None
    }


def _twin(name: str, history: History) -> str | None:
    """The first control's series for `val_METRIC`, or for `val_TASK_METRIC` that of the task's own model."""
    for other in history:
        arm, _, last = other.rpartition("/")
        if not arm.startswith("control/0") or not last.startswith("val_"):
            continue
        task = arm.removeprefix("control/0").strip("/")
        if last == name or (task and name == f"val_{task}_{last.removeprefix('val_')}"):
            return other
    return None


def _about(report: Mapping[str, Any], manifest: Manifest) -> str:
    model = report["model"]
    latency = model.get("latency") or {}
    rows = [
        ("kind of job", report["kind"]),
        ("architecture", f"{named(manifest.architecture)}, {manifest.parameters:,} parameters"),
        ("input", _input(manifest.input) + _adapted(report)),
        ("file", f"model.keras, {model['bytes']:,} bytes" if model.get("bytes") else "model.keras"),
        *((kind, _file(export)) for kind, export in report.get("export", {}).items()),
        ("sha256", manifest.sha256),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]
    if latency:
        rows.append(
            (
                "latency on a CPU",
                f"{latency['ms_per_row']:g} ms a row, {latency['ms_per_batch']:g} ms for {latency['batch']} (median)",
            )
        )
    tasks = [
        (
            name,
            task.type,
            task.column,
            _names(task.classes) if task.classes else f"{task.units} number{'s' * (task.units != 1)}",
        )
        for name, task in manifest.tasks.items()
    ]
    return _table(("", ""), rows) + "\n\n" + _table(("task", "type", "column", "answers"), tasks)


def _file(export: Mapping[str, Any]) -> str:
    """Its size, how fast it answers, and what fewer digits cost."""
    parts = [f"{export['file']}, {export['bytes']:,} bytes"]
    if export.get("ms_per_row") is not None:
        parts.append(f"{export['ms_per_row']:g} ms a row")
    for task, score in (export.get("scores") or {}).items():
        keras, file = ("undefined" if score[who] is None else f"{score[who]:.4g}" for who in ("keras", "file"))
        parts.append(f"{task}: {score['metric']} {file} on {export['rows']:,} test rows, of model.keras {keras}")
    return "; ".join(parts)


def named(architecture: Mapping[str, Any]) -> Any:
    """The name of an architecture; of a network of keras.applications its name there."""
    return architecture.get("name") if architecture.get("arch") == "applications" else architecture.get("arch")


def _input(input: InputSchema) -> str:
    """Its kind and its shape; of several parts those of each."""
    if input.parts:
        return "; ".join(f"{name}: {_input(part)}" for name, part in input.parts.items())
    return f"{input.kind}, {' × '.join(str(side) for side in input.shape)}"


def _adapted(report: Mapping[str, Any]) -> str:
    resizing = report.get("input")
    if resizing is None:
        return ""
    channels = "" if resizing["channels"] == "kept" else f", channels {resizing['channels']}"
    return f"; its layers see it as {' × '.join(str(side) for side in resizing['seen'])}{channels}"


def _data(report: Mapping[str, Any], manifest: Manifest) -> str:
    hashes = {dataset["ref"]: dataset.get("sha256") for dataset in manifest.dataset.get("sets", [])}
    rows = [
        (
            ref,
            parts["train"],
            parts["validation"],
            parts["test"],
            report.get("dropped_rows", {}).get(ref, 0),
            hashes.get(ref) or "not recorded",
        )
        for ref, parts in report["rows"].items()
    ]
    labels = ", ".join(f"{name} {count:,}" for name, count in (report.get("labels") or {}).items())
    text = f"Labels used, those of validation rows among them: {_text(labels)}. " if labels else ""
    text += (
        "Rows behind this model came without hashes or are pictures of another shape: overlap with the test rows is unknown."
        if report["overlap"] == "unknown"
        else "No stage and no arm was trained on a test row."
    )
    twins = [_near(ref, entry) for ref, entry in (report.get("near_duplicates") or {}).items()]
    head = ("data set", "training rows", "validation", "test", "dropped", "sha256")
    return "\n\n".join([_table(head, rows), text, *twins])


def _near(ref: str, entry: Mapping[str, Any]) -> str:
    """How many test rows have a twin among the training rows."""
    if not entry["rows"]:
        return _text(f"No test row of {ref} nearly equals a training row ({entry['rule']}).")
    first = entry["examples"][0]
    example = f"row {first['test']} nearly equals row {first['train']}"
    return _text(
        f"{entry['rows']:,} of {entry['test_rows']:,} test rows of {ref} nearly equal a training row ({entry['rule']}): {example}."
    )


def _method(report: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    training, chosen = spec.get("training", {}), []
    for key in (*CHOICES, *(CHOICES_OF_TEACHING if report.get("distillation") else ())):
        if spec.get(key) is not None:
            value = spec[key]
            chosen.append((key, value if isinstance(value, str) else json.dumps(value)))
    optimizer = training.get("optimizer", {})
    budget = f"{training['epochs']} epochs" if training.get("epochs") else f"{training.get('steps')} steps"
    chosen.append(("training", f"{budget}, batch size {training.get('batch_size')}, seed {training.get('seed')}"))
    chosen.append(("optimizer", f"{optimizer.get('name')}, learning rate {optimizer.get('learning_rate'):g}"))
    arms = [
        (role, model["steps"], f"{model['learning_rate']:g}", model["device_seconds"])
        for role, model in report["models"].items()
    ]
    arms += [(role, f"failed: {why}", "", "") for role, why in report.get("failed", {}).items()]
    return _table(("", ""), chosen) + "\n\n" + _table(("model", "steps", "learning rate", "device seconds"), arms)


def _results(report: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    verdict, taught = report.get("verdict") or {}, report.get("distillation") or {}
    taught = taught.get("tasks", dict.fromkeys(report["tasks"], taught) if taught else {})
    for name, figures in report["tasks"].items():
        parts.append(f"### {_text(name)}")
        judged = (verdict.get("tasks") or {}).get(name)
        if judged:
            parts.append(_text(judged.get("sentence") or ""))
        parts.append(_baselines((report.get("baselines") or {}).get(name)))
        parts.append(_seeds(judged or {}))
        if judged and judged.get("seeds"):
            parts.append(_text(uneven(judged) or ""))
        plain = [(key, _figure(value)) for key, value in figures.items() if isinstance(value, float)]
        ece = (figures.get("calibration") or {}).get("ece_15")
        rows = [
            ("test rows", str(figures["n"])),
            *plain,
            *([("calibration error (15 bins)", _figure(ece))] if ece is not None else []),
        ]
        parts.append(_table(("figure", "value"), [(_label(key), value) for key, value in rows]))
        parts += [f"Not defined: {_text(key)}, {_text(why)}." for key, why in (figures.get("undefined") or {}).items()]
        confusion = figures.get("confusion")
        if confusion and confusion["rows"] == "true":  # else a table for each label
            parts.append(_confusion(confusion))
        if name in taught:
            parts.append(_teaching(taught[name]))
    delta = verdict.get("delta_m")
    if delta:
        parts += ["### All tasks together", _text(f"{delta['sentence']} {delta['sign_rule']}."), _seeds(delta)]
    return parts


def _baselines(entry: Mapping[str, Any] | None) -> str:
    """What needs no network, in a sentence."""
    if entry is None:
        return ""
    fitted = [baseline for baseline in (entry["constant"], entry["linear"]) if baseline is not None]
    given = [*fitted, *([entry["compressor"]] if entry.get("compressor") else [])]
    parts = [
        f"{_figure(baseline['value'])} by {baseline['what']}"
        if baseline["value"] is not None
        else f"no value by {baseline['what']} ({baseline['reason']})"
        for baseline in given
    ]
    rows = fitted[-1]["train_rows"] or fitted[0]["train_rows"]
    return _text(
        f"Without a network, {_label(entry['metric'])} is {', '.join(parts)}; fitted on {rows:,} training rows."
    )


def _seeds(verdict: Mapping[str, Any]) -> str:
    """The pairs of runs behind a verdict."""
    if not verdict.get("seeds"):
        return ""
    differences = ["–" if value is None else signed(verdict, value) for value in verdict["delta"]["values"]]
    head = f"difference ({unit(verdict)})" if unit(verdict) else "difference"
    if "treated" not in verdict:
        return _table(("seed", head), list(zip(verdict["seeds"], differences, strict=True)))
    arms = [[_figure(value) for value in verdict[arm]["values"]] for arm in ("treated", "control")]
    return _table(("seed", "treated", "control", head), list(zip(verdict["seeds"], *arms, differences, strict=True)))


def _teaching(figures: Mapping[str, Any]) -> str:
    """The student beside its teachers."""
    value, gap, agreed = figures["teacher_value"], figures["gap_recovered"], figures["agreement"]
    rows = [(f"teacher {teacher['model']}", f"weight {teacher['weight']:g}") for teacher in figures["teachers"]]
    if value["value"] is not None:
        rows.append((f"{_label(value['metric'])} of the teachers", _figure(value["value"])))
    if agreed is not None:
        rows.append(("agreement with the teachers", _figure(agreed)))
    gained = _figure(gap["value"]) if gap["value"] is not None else f"not defined: {gap['reason']}"
    rows.append(("share of the gap recovered", gained))
    rows += [(f"{what}, teachers / student", f"{figures[key]:g}") for key, what in RATIOS.items()]
    return _table(("beside its teachers", "value"), rows)


def _confusion(confusion: Mapping[str, Any]) -> str:
    classes = confusion["classes"]
    if len(classes) > MOST_CLASSES:
        return f"The confusion table of {len(classes)} classes is in report.json."
    rows = [(name, *counts) for name, counts in zip(classes, confusion["counts"], strict=True)]
    return _table(("true \\ predicted", *classes), rows)


def learnt_from(manifest: Manifest) -> list[str]:
    """The data sets that a model has learnt from, each once, as text."""
    named = manifest.dataset.get("sets", [])
    return list(
        dict.fromkeys(
            dataset["ref"] if dataset.get("labelled", True) else f"inputs of {dataset['ref']}" for dataset in named
        )
    )


def _lineage(manifest: Manifest, lineage: Sequence[Mapping[str, Any]]) -> str:
    sets = [
        (
            manifest.role,
            "trained on" if dataset.get("labelled", True) else "trained on the inputs of",
            dataset["ref"],
            dataset.get("sha256") or "not recorded",
        )
        for dataset in manifest.dataset.get("sets", [])
    ]
    behind = [
        (
            model["heir"],
            model["relation"],
            f"{model['id']}: {model['architecture']}, {model['parameters']:,} parameters, {_trained(model)}",
            model["sha256"],
        )
        for model in lineage
    ]
    return _table(("model", "relation", "what", "sha256"), [*behind, *sets])


def _trained(model: Mapping[str, Any]) -> str:
    """On what a model behind this one was trained; of one that was sent as a file, whose it is."""
    origin: Origin | None = model.get("origin")
    if origin is None:
        return f"{model['steps']:,} steps on {model['dataset']}"
    return f"sent as {origin.file}; source: {origin.source or 'not said'}; licence: {origin.licence or 'not said'}"


def _label(key: str) -> str:
    return metric_of(key).label if key in tasks.metrics() else key.replace("_", " ")


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _names(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:MOST_CLASSES])
    return shown + (f", … ({len(classes)})" if len(classes) > MOST_CLASSES else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(_text(str(cell)) for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _text(text: str) -> str:
    """`text` on one line of Markdown, escaped: no renderer finds markup, a link, a mention or a picture in it."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(map(_word, line.split()))


_CORE = re.compile(r"""([("'\[{]*)(.*?)([)"'\]},;:.!?]*)""")
_LIVE = re.compile(r"[@#$]|:\S|www|\w[.。．｡][^\W\d]|\bGH-\d|\b[0-9a-f]{7,}\b", re.IGNORECASE)
"""Text that renderers turn into a link, a mention, a picture or a formula without markup: addresses, @name, #1, :name:, $x$, commits."""


def _word(word: str) -> str:
    """`word` escaped, or as code where escapes do not help: renderers look for such words in the text behind the escapes."""
    match = _CORE.fullmatch(word)
    if match is None or not _LIVE.search(match[2]):
        return _escaped(word)
    # Renderers disagree on a backtick, a pipe or a backslash within code, so these stand outside.
    parts = re.split(r"([`|\\]+)", match[2])
    code = "".join(_escaped(part) if number % 2 else part and f"`{part}`" for number, part in enumerate(parts))
    return _escaped(match[1]) + code + _escaped(match[3])


def _escaped(word: str) -> str:
    word = word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", word)


def _fence(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
