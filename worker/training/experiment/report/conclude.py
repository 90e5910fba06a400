"""The end of a job: every arm's scores, the verdict, and the files that say so."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from app import durable
from worker.reports import ArtifactReport, Result
from worker.training.data import inputs
from worker.training.experiment.report import card, detections
from worker.training.experiment.report.baselines import baselines
from worker.training.experiment.report.near_duplicates import near_duplicates, warning
from worker.training.process import device
from worker.training.process.failures import Failure
from worker.training.scores.spread import uneven
from worker.training.scores.verdict import Outcome, Scored, judge

if TYPE_CHECKING:
    from app.spec.data import SplitSpec
    from app.spec.report import Report
    from app.spec.training import ControlSpec
    from worker.training.data.rows import Data
    from worker.training.experiment.job import Job
    from worker.training.experiment.report.control import Arm
    from worker.training.kept.store import Model
    from worker.training.scores.measures import Measure


FILES = ("report.json", "metrics.csv", "card.md", "curve.svg", "seeds.svg", detections.FILE)
"""`seeds.svg` is there where the job has a pair of arms, the last one where a task says where something is."""


@dataclass
class ArmScores:
    """The models of all arms with their scores on the test rows of `examined`. All arms have the same test rows."""

    job: Job
    examined: Sequence[Data]
    treated: dict[int, Outcome] = field(default_factory=dict)
    control: dict[int, Outcome] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def each(self, arms: Sequence[Arm], models: Callable[[Arm], Sequence[Model]]) -> None:
        """Adds every arm with the models that `models` makes for it: one, or several for a multi-task control.

        A loss that is not finite ends a control, or a treated arm besides the first, alone: `failed` has the reason, the pair has
        no difference, and the other arms go on. In the first treated arm, the job's model, it fails the job. A later attempt does
        not know of the failed arm: it goes on from the arm's newest checkpoint and, where training is deterministic, fails again at
        the same step.
        """
        for arm in arms:
            try:
                self.add(arm, *models(arm))
            except Failure as failure:
                if arm.role == "model" or failure.code != "loss_not_finite":
                    raise
                self._give_up(arm, failure)

    def add(self, arm: Arm, *models: Model) -> None:
        """Adds one arm's model; a multi-task control has one for each task."""
        tasks: dict[str, Scored] = {}
        for model in models:
            for data in self.examined:
                tasks |= self.job.score(model, data)
            self.models[model.id] = model
        outcomes = self.treated if arm.treated else self.control
        outcomes[arm.seed] = Outcome(arm.seed, tasks)

    def measures(self, task: str) -> tuple[list[Measure], list[Measure]]:
        """The measures of `task`, treated and control, for each seed that has both."""
        ours, theirs = (
            {seed: outcome.tasks[task].measure for seed, outcome in outcomes.items() if task in outcome.tasks}
            for outcomes in (self.treated, self.control)
        )
        both = [seed for seed in ours if seed in theirs]
        return [ours[seed] for seed in both], [theirs[seed] for seed in both]

    def _give_up(self, arm: Arm, failure: Failure) -> None:
        stage = self.job.progress.stage
        why = failure.message if stage == arm.stage else f"{stage}: {failure.message}"
        outcomes = self.treated if arm.treated else self.control
        outcomes[arm.seed] = Outcome(arm.seed, failed=why)
        self.failed[arm.role] = why
        self.job.run.warn("arm_failed", f"{arm.role} has no model ({why}); the other arms go on, without a verdict")
        self.job.progress.give_up(arm.stage)

    @property
    def first_seed(self) -> int:
        """The run seed of the job's model."""
        return next(iter(self.treated))

    @property
    def model(self) -> Model:
        """The job's model: that of the first seed's treated arm, never the best on test rows."""
        return self.models["model"]


class Extras:
    """Models and counts that the method used and the control did not. `each_seed`: whether each pair of seeds has a model of its own."""

    def __init__(self, role: str = "", *models: Model, each_seed: bool = False, **counts: int | None):
        self.conditional_on = None if each_seed else role or None
        self.counts: dict[str, int | None] = dict(counts)
        self.models = models
        if models:
            self.counts |= {f"{role}_steps": sum(model.manifest.training.get("steps", 0) for model in models)}
            recorded = [model.rows for model in models if model.rows is not None]
            self.counts |= {
                f"{role}_rows": sum(len(rows) for rows in recorded) if len(recorded) == len(models) else None
            }
        if models and role == "teacher":
            labels = [model.manifest.training.get("labels") for model in models]
            self.counts["teacher_labels"] = (
                None if None in labels else sum(sum(by_task.values()) for by_task in labels if by_task)
            )


def conclude(
    job: Job,
    arm_scores: ArmScores,
    kind: type[Report],
    control: ControlSpec,
    split: SplitSpec,
    *,
    arm: str,
    extras: Extras,
    dropped: Mapping[str, int] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Writes `FILES`; reports them and the result.

    `kind` describes the method's report, each key of `more` among them.
    """
    job.progress.enter("evaluate")
    overlap: Literal["unknown", "none"] = "unknown" if job.run.borrowed.overlap_unknown else "none"
    verdict = judge(
        list(arm_scores.treated.values()),
        list(arm_scores.control.values()),
        seeds=control.seeds,
        margin=control.margin,
        primary=control.primary,
        split_seed=split.seed,
        arm=arm,
        besides=extras.counts,
        overlap=overlap,
        conditional_on=extras.conditional_on,
    )
    _warn_of_uneven_arms(job, verdict)
    model = arm_scores.model
    report = {**_report(job, arm_scores, verdict, dropped or {}, overlap), **(more or {})}
    job.write_metrics()
    _write(job.out / "report.json", _text(kind, report))
    found = detections.detections(job, model, arm_scores.examined)
    lineage = _lineage(job, model, extras)
    _write(job.out / "card.md", card.card(report, model.manifest, job.spec, lineage, found is not None))
    _write(job.out / "curve.svg", card.curve(report, job.history))
    seeds = card.seeds(report)
    if seeds is not None:
        _write(job.out / "seeds.svg", seeds)
    if found is not None:
        with durable.write(job.out / detections.FILE) as beside:
            beside.write_bytes(found)
    for name in FILES:
        if (name == "seeds.svg" and seeds is None) or (name == detections.FILE and found is None):
            continue
        job.send(ArtifactReport(name=name, path=name))
    seconds = sum(kept.cost.device_seconds for kept in job.models.values())
    job.send(
        Result(
            best=model.manifest.training.get("best"),
            seed=model.manifest.training["seed"],
            usage={"device_seconds": round(seconds, 3), "peak_memory_bytes": float(device.peak_memory_bytes())},
        )
    )


def _report(
    job: Job, arm_scores: ArmScores, verdict: Mapping[str, Any], dropped: Mapping[str, int], overlap: str
) -> dict[str, Any]:
    """The fields that all methods' reports have. Writes the exported formats, since the report has their sizes."""
    model, first = arm_scores.model, arm_scores.examined[0]
    exported = job.export(model, first)
    figures: dict[str, Any] = {}
    trivial: dict[str, Any] = {}
    for data in arm_scores.examined:
        figures |= job.figures(model, data)
        trivial |= baselines(data, data.subset(arm_scores.first_seed), job.raise_if_stopped)
    return {
        "kind": job.spec["kind"],
        "decision": verdict["decision"],
        "reason": verdict["reason"],
        "sentence": verdict["sentence"],
        "verdict": verdict,
        "tasks": figures,
        "baselines": trivial,
        "model": {
            "parameters": model.manifest.parameters,
            "bytes": model.bytes,
            "latency": job.latency(model, first.table.inputs),
            "architecture": model.manifest.architecture,
        },
        "input": inputs.about(model.network.input.kind, model.network.input.shape, model.network.trunk_shape),
        "export": exported,
        "rows": {
            data.ref: {part: len(getattr(data.split, part)) for part in ("train", "validation", "test")}
            for data in arm_scores.examined
        },
        "labels": model.manifest.training.get("labels"),
        "dropped_rows": dict(dropped),
        "near_duplicates": _near_duplicates(job, arm_scores.examined),
        "overlap": overlap,
        "models": {
            role: {
                "steps": kept.cost.steps,
                "learning_rate": kept.cost.learning_rate,
                "device_seconds": kept.cost.device_seconds,
            }
            for role, kept in arm_scores.models.items()
        },
        "failed": arm_scores.failed,
    }


def _warn_of_uneven_arms(job: Job, verdict: Mapping[str, Any]) -> None:
    for name, of_task in verdict["tasks"].items():
        sentence = uneven(of_task)
        if sentence is not None:
            job.run.warn("uneven_arms", f"{name}: {sentence}")


def _near_duplicates(job: Job, examined: Sequence[Data]) -> dict[str, Any]:
    """The report's entries. What a reader must know at once is a warning."""
    cache = None if job.cache is None else job.cache / "near"
    made = {data.ref: near_duplicates(data, cache, job.raise_if_stopped) for data in examined}
    entries = {ref: entry for ref, entry in made.items() if entry is not None}
    for ref, entry in entries.items():
        sentence = warning(ref, entry)
        if sentence is not None:
            job.run.warn("near_duplicates", sentence)
    return entries


def _text(kind: type[Report], report: dict[str, Any]) -> str:
    """The report as JSON, written by its model. A report that does not fit the model is a warning (in tests an error) and fails no job."""
    plain = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False)
    try:
        return kind.model_validate_json(plain).text()
    except ValidationError as error:
        warnings.warn(f"the report is not as {kind.__name__} describes it: {error}", stacklevel=2)
        return plain


def _lineage(job: Job, model: Model, extras: Extras) -> list[dict[str, Any]]:
    """The card's entry for each model behind the job's. Follows the kept edges through the job's models; a model of another job is
    listed, and its own edges are not followed."""
    models = {kept.id: kept for kept in extras.models} | job.run.borrowed.models | dict(job.models)
    ancestors: list[dict[str, Any]] = []
    heirs = [model.id]
    for heir in heirs:
        for edge in models[heir].manifest.edges:
            ancestor = models[edge["target"]]
            ancestors.append(
                {
                    "heir": heir,
                    "relation": edge["relation"].replace("_", " "),
                    "id": ancestor.id,
                    "architecture": card.named(ancestor.manifest.architecture),
                    "parameters": ancestor.manifest.parameters,
                    "steps": ancestor.manifest.training.get("steps", 0),
                    "dataset": ", ".join(card.learnt_from(ancestor.manifest)) or "rows not recorded",
                    "origin": ancestor.manifest.origin,
                    "sha256": ancestor.manifest.sha256,
                }
            )
            if ancestor.id in job.models and ancestor.id not in heirs:
                heirs.append(ancestor.id)
    return ancestors


def _write(path: Path, text: str) -> None:
    with durable.write(path) as beside:
        beside.write_text(text, encoding="utf-8")
