"""Did the method help? One interval over seeds *and* test rows, one decision from a closed list, one sentence.

The question answered: would this method, given this source or teacher and this training pool, give a better model on
new rows than its control? Two things are random, the seeds and the test rows; an interval over seeds on one fixed test
set covers the first only and calls luck `helped`. So the variance has two parts, see `interval`.

A caller measures every arm of every seed with `worker.training.scores.evaluate.measure`, wraps each model's measures in an
`Outcome`, and asks `judge`. Differences are oriented: positive is better, whatever the metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from app.spec.report.verdict import Decision, Overlap, Reason
from worker.training.scores.interval import ALPHA, Interval, interval, least_variance, residual, rows_variance
from worker.training.scores.measures import Array, Measure, metric_of, resample
from worker.training.scores.sentence import sentence
from worker.training.scores.spread import uneven

Margin = float | Literal["auto"]

FEWEST_SEEDS = 3
FEWEST_UNITS = 30
DELTA_M_MARGIN = 2.0
SIGN_RULE = (
    "Δm = (100/K)·Σ g·(treated − control)/|mean control| over the K tasks, g = +1 where higher is better and −1 where"
    " lower is; positive is better"
)


@dataclass(frozen=True)
class Cost:
    """The cost of one model on the target. `best_epoch` counts from 1 to `epochs`, by validation; None: not watched."""

    steps: int
    learning_rate: float
    device_seconds: float
    best_epoch: int | None = None
    epochs: int | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """One task of one trained model. `relative` enters Δm where that is another measure (RMSE for regression)."""

    measure: Measure
    cost: Cost
    relative: Measure | None = None

    @property
    def for_delta_m(self) -> Measure:
        return self.relative or self.measure


@dataclass(frozen=True, eq=False)
class Outcome:
    """One arm of one seed: each task's score, or in `failed` the reason why there is none.

    A multi-task control gathers its single-task models here.
    """

    seed: int
    tasks: Mapping[str, Scored] = field(default_factory=dict)
    failed: str | None = None


def judge(
    treated: Sequence[Outcome],
    control: Sequence[Outcome],
    *,
    seeds: int,
    margin: Margin = "auto",
    primary: str | None = None,
    split_seed: int = 0,
    arm: str = "the control",
    besides: Mapping[str, int | None] | None = None,
    overlap: Overlap = "none",
    conditional_on: str | None = None,
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    """The report's verdict: the job's decision, each task's, and Δm where there are several tasks.

    Args:
        treated, control: one outcome a seed; pairs are matched by `seed`. With `seeds` 0 `control` is empty.
        seeds: `control.seeds` as asked; a failed pair does not lower it.
        margin: `control.margin` in the metric's unit (0.02 = 2 points); with `primary: delta_m` Δm's, in per cent.
        primary: `control.primary`: a task's name or "delta_m"; None: the only task, or Δm.
        arm: what the control is, in words ("same cnn from scratch").
        besides: costs of the method that the control does not have: source_steps, source_rows, teacher_steps,
            teacher_rows, teacher_labels, unlabelled_rows.
        overlap: "seen": some arm was trained on test rows; "unknown": a model came without hashes of its rows, or with
            those of pictures of another shape.
        conditional_on: "source" or "teacher" where one was trained once for all seeds; the verdict holds for it alone.

    Raises:
        ValueError: the arms were not measured on the same test rows, or `primary` names no task.
    """
    names = list(next((outcome.tasks for outcome in (*treated, *control) if outcome.tasks), {}))
    on = primary or (names[0] if len(names) == 1 else "delta_m")
    if names and on not in (*names, "delta_m"):
        raise ValueError(f"control.primary is {on!r}: expected one of {', '.join(names)} or delta_m")
    pairs, broken = _pairs(treated, control)
    all_notes = [*notes, *broken, *_reservations(conditional_on, overlap)]
    ask = _Asked(seeds, broken, overlap, split_seed, arm, dict(besides or {}))
    own: Margin = "auto" if primary == "delta_m" else margin
    other: Margin = margin if primary == "delta_m" else "auto"
    tasks = {
        name: _judge_task(name, treated, control, pairs, ask, own, alpha=ALPHA / len(names), notes=all_notes)
        for name in names
    }
    n_units = min(
        (scored.for_delta_m.n_units for outcome in (*treated, *control) for scored in outcome.tasks.values()), default=0
    )
    several = bool(names) and (len(names) > 1 or on == "delta_m")
    delta_m = _judge_delta_m(names, pairs, ask, other, n_units) if several else None
    if on == "delta_m" and delta_m is not None:
        chosen: dict[str, Any] = delta_m
    elif len(names) == 1:
        chosen = tasks[on]
    elif names:
        chosen = _judge_task(on, treated, control, pairs, ask, own, alpha=ALPHA, notes=all_notes)
    else:
        chosen = {"decision": "inconclusive" if seeds else "not_measured", "reason": "run_failed" if seeds else None}
        chosen["sentence"] = "; ".join([str(chosen["decision"]), *all_notes])
    keys = ("decision", "reason", "sentence", "interval", "alpha", "margin", "n_seeds")
    return {"on": on, **{key: chosen.get(key) for key in keys}, "tasks": tasks, "delta_m": delta_m, "notes": all_notes}


def _reservations(conditional_on: str | None, overlap: Overlap) -> Iterator[str]:
    if conditional_on:
        yield f"the {conditional_on} was trained once: the verdict is conditional on it"
    if overlap == "unknown":
        yield "overlap: unknown: rows that trained a model came without hashes, or are pictures of another shape"


def margin_of(metric: str, control_mean: float, asked: Margin = "auto") -> float:
    """The smallest difference that matters; nan without a control.

    Auto: the metric's own, else 2 points, or a fifth of the control's error where that is less, since near the ceiling 2 points are
    too many.

    Raises:
        ValueError: the metric has no margin of its own; RMSE enters Δm only, R² decides.
    """
    if asked != "auto":
        return float(asked)
    if metric == "delta_m":
        return DELTA_M_MARGIN
    own = metric_of(metric).margin
    if own is not None:
        return own(control_mean) if math.isfinite(control_mean) else math.nan
    if metric_of(metric).better == "lower":
        raise ValueError(
            f"{metric} has no margin of its own: a verdict needs a metric of which more is better, or `margin`"
        )
    return max(0.0, min(0.02, 0.2 * (1 - control_mean))) if math.isfinite(control_mean) else math.nan


def decide(
    *,
    seeds: int,
    n_units: int,
    failed: bool,
    overlap: Overlap,
    lo: float,
    hi: float,
    margin: float,
) -> tuple[Decision, Reason | None]:
    """The decision and, for `inconclusive`, its reason: the first rule that holds. `no_effect` must be earned."""
    if seeds == 0:
        return "not_measured", None
    if seeds < FEWEST_SEEDS:
        return "inconclusive", "few_seeds"
    if n_units < FEWEST_UNITS:
        return "inconclusive", "few_test_rows"
    if failed:
        return "inconclusive", "run_failed"
    if overlap == "seen":
        return "inconclusive", "overlap"
    if -margin < lo and hi < margin:
        return "no_effect", None
    if lo > 0:
        return "helped", None
    if hi < 0:
        return "hurt", None
    return "inconclusive", "uncertain"


def compare(treated: Sequence[Measure], control: Sequence[Measure], *, split_seed: int, alpha: float) -> Interval:
    """The interval for treated − control, oriented, over pairs of measures of one task (one pair a seed).

    Raises:
        ValueError: a measure is of another metric or on other test rows than the first.
    """
    first = treated[0]
    for measure in (*treated, *control):
        if measure.metric != first.metric or not np.array_equal(measure.units, first.units):
            raise ValueError(
                f"both arms need one metric on the same test rows: {first.metric} on {len(first.units)} rows, "
                f"then {measure.metric} on {len(measure.units)}"
            )
    metric = metric_of(first.metric)
    differences = [metric.sign * (t.value - c.value) for t, c in zip(treated, control, strict=True)]
    if not np.isfinite(differences).all():
        return interval(differences, math.nan, first.n_units, alpha, math.nan)
    if metric.mean and first.n_units == len(first.units):
        terms = [t.statistics[:, 0] - c.statistics[:, 0] for t, c in zip(treated, control, strict=True)]
        v_test, v_tests = rows_variance(np.mean(terms, axis=0)), [rows_variance(each) for each in terms]
    else:
        values = resample([*treated, *control], split_seed)
        drawn = values[: len(treated)] - values[len(treated) :]
        v_test, v_tests = float(np.var(drawn.mean(0), ddof=1)), [float(np.var(each, ddof=1)) for each in drawn]
    v_residual = residual(v_tests, v_test)
    return interval(differences, v_test + least_variance(first.metric, first.n_units), first.n_units, alpha, v_residual)


def delta_m(treated: Array, control: Array, signs: Sequence[int]) -> Array:
    """Δm of each seed, in per cent, positive is better (Maninis et al. 2019; Nash-MTL and FAMO print
    the opposite sign).

    Args:
        treated, control: values of shape (K, S, ...); the denominator is the control's mean over the S seeds.
        signs: +1 for each task where higher is better, else −1.
    """
    g = np.asarray(signs, dtype=np.float64).reshape((-1,) + (1,) * (treated.ndim - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * np.mean(g * (treated - control) / np.abs(control.mean(axis=1, keepdims=True)), axis=0))


def gap_recovered(
    student: Sequence[Measure], alone: Sequence[Measure], teacher: Measure, *, split_seed: int = 0
) -> dict[str, Any]:
    """(student − alone)/(teacher − alone), a ratio of means over seeds.

    Null, with the reason, unless the interval of teacher − alone lies above 0.
    """
    if not student or len(student) != len(alone):
        return {"value": None, "reason": "no complete pair of student and control"}
    sign = metric_of(teacher.metric).sign
    ahead = compare([teacher] * len(alone), alone, split_seed=split_seed, alpha=ALPHA)
    answer = {"teacher": _number(teacher.value), "teacher_ahead_ci95": [_number(ahead.lo), _number(ahead.hi)]}
    if not ahead.lo > 0:
        few = len(alone) < 2
        why = "one seed gives no interval" if few else "the interval of teacher − alone does not lie above 0"
        return {"value": None, "reason": why, **answer}
    gain = sign * float(np.mean([s.value - a.value for s, a in zip(student, alone, strict=True)]))
    return {"value": _number(gain / ahead.delta), "reason": None, **answer}


@dataclass(frozen=True)
class _Asked:
    seeds: int
    broken: Sequence[str]
    overlap: Overlap
    split_seed: int
    arm: str
    besides: dict[str, int | None]


Pair = tuple[Outcome, Outcome]


def _pairs(treated: Sequence[Outcome], control: Sequence[Outcome]) -> tuple[list[Pair], list[str]]:
    """The complete pairs in the order of the treated seeds, and the faults of the others."""
    other = {outcome.seed: outcome for outcome in control}
    pairs: list[Pair] = []
    broken: list[str] = []
    for outcome in treated if control else ():
        twin = other.get(outcome.seed)
        faults = [_fault(outcome, "treated"), _fault(twin, "control") if twin else "the control was not run"]
        if twin is None or any(faults):
            broken.append(f"seed {outcome.seed}: {'; '.join(fault for fault in faults if fault)}")
        else:
            pairs.append((outcome, twin))
    return pairs, broken


def _fault(outcome: Outcome, arm: str) -> str | None:
    if outcome.failed is not None:
        return f"the {arm} run failed ({outcome.failed})"
    for name, scored in outcome.tasks.items():
        for measure in {scored.measure, scored.for_delta_m}:
            if not math.isfinite(measure.value):
                return f"{measure.metric} of {name} has no value in the {arm} run ({measure.undefined or 'not finite'})"
    return None


def _judge_task(
    name: str,
    treated: Sequence[Outcome],
    control: Sequence[Outcome],
    pairs: Sequence[Pair],
    ask: _Asked,
    margin: Margin,
    *,
    alpha: float,
    notes: Sequence[str],
) -> dict[str, Any]:
    ours = [outcome for outcome in treated if name in outcome.tasks]
    theirs = [outcome for outcome in control if name in outcome.tasks]
    sample = (ours or theirs)[0].tasks[name].measure
    metric = metric_of(sample.metric)
    ones, others = ([pair[i].tasks[name].measure for pair in pairs] for i in (0, 1))
    at = compare(ones, others, split_seed=ask.split_seed, alpha=alpha) if pairs else _nothing(alpha)
    wide = (
        interval(_differences(ones, others), at.v_test, sample.n_units, ALPHA, at.v_residual)
        if pairs
        else _nothing(ALPHA)
    )
    reference = float(np.mean([measure.value for measure in others])) if others else math.nan
    m = margin_of(sample.metric, reference, margin)
    decision, reason = decide(
        seeds=ask.seeds, n_units=sample.n_units, failed=bool(ask.broken) or (ask.seeds > 0 and len(pairs) < ask.seeds),
        overlap=ask.overlap, lo=at.lo, hi=at.hi, margin=m,
    )  # fmt: skip
    own_notes = [*notes, *_notes(name, ours, theirs)]
    if m == 0 and decision == "inconclusive":
        own_notes.append("the control leaves no room: its margin is 0, so nothing can be called no_effect")
    verdict = {
        "decision": decision,
        "reason": reason,
        "metric": sample.metric,
        "better": metric.better,
        "treated": _values(
            [measure.value for measure in (ones if ask.seeds else (outcome.tasks[name].measure for outcome in ours))]
        ),
        "control": {"arm": ask.arm, **_values([other.value for other in others])},
        "delta": _values(_differences(ones, others)),
        "ci95": [_number(wide.lo), _number(wide.hi)],
        "interval": [_number(at.lo), _number(at.hi)],
        "alpha": alpha,
        "margin": _number(m),
        "n_seeds": len(pairs),
        "seeds": [pair[0].seed for pair in pairs],
        "n_test": sample.n_units,
        "test_unit": "row" if sample.n_units == len(sample.units) else "group",
        "variance": _variance(at),
        "budget": {
            "treated": _cost([outcome.tasks[name].cost for outcome in ours]),
            "control": _cost([outcome.tasks[name].cost for outcome in theirs]),
            "besides": ask.besides,
        },
        "overlap": ask.overlap,
        "notes": own_notes,
    }
    own_notes += filter(None, [uneven(verdict)])
    return {**verdict, "sentence": sentence(verdict)}


def _judge_delta_m(
    names: Sequence[str], pairs: Sequence[Pair], ask: _Asked, margin: Margin, n_units: int
) -> dict[str, Any]:
    """Δm over all tasks; `n_test` is the least number of test units that any task has."""
    from_arm = [[[pair[arm].tasks[name].for_delta_m for pair in pairs] for name in names] for arm in (0, 1)]
    m = margin_of("delta_m", math.nan, margin)
    at, parts, notes = _nothing(ALPHA), {}, [*ask.broken]
    seeds_delta: list[float] = []
    if pairs:
        flat = [measure for arm in from_arm for task in arm for measure in task]
        signs = [metric_of(task[0].metric).sign for task in from_arm[0]]
        shape = (2, len(names), len(pairs))
        values = np.array([measure.value for measure in flat]).reshape(shape)
        seeds_delta = [float(x) for x in delta_m(values[0], values[1], signs)]
        parts = {
            name: {
                "metric": from_arm[0][k][0].metric,
                "treated": _number(values[0, k].mean()),
                "control": _number(values[1, k].mean()),
                "percent": _number(delta_m(values[0, k : k + 1], values[1, k : k + 1], signs[k : k + 1]).mean()),
            }
            for k, name in enumerate(names)
        }
        if np.isfinite(seeds_delta).all():
            drawn = resample(flat, ask.split_seed).reshape(*shape, -1)
            changes = delta_m(drawn[0], drawn[1], signs)
            v_test = float(np.var(changes.mean(axis=0), ddof=1))
            v_residual = residual(np.var(changes, axis=1, ddof=1), v_test)
            v_test += sum(
                (100 / len(names) / values[1, k].mean()) ** 2 * least_variance(task[0].metric, task[0].n_units)
                for k, task in enumerate(from_arm[0])
            )
            at = interval(seeds_delta, v_test, n_units, ALPHA, v_residual)
        else:
            notes.append("Δm is undefined: a control's mean is 0")
    decision, reason = decide(
        seeds=ask.seeds, n_units=n_units, failed=bool(ask.broken) or len(pairs) < ask.seeds, overlap=ask.overlap,
        lo=at.lo, hi=at.hi, margin=m,
    )  # fmt: skip
    verdict = {
        "decision": decision,
        "reason": reason,
        "metric": "delta_m",
        "better": "higher",
        "sign_rule": SIGN_RULE,
        "delta": _values(seeds_delta),
        "tasks": parts,
        "ci95": [_number(at.lo), _number(at.hi)],
        "interval": [_number(at.lo), _number(at.hi)],
        "alpha": ALPHA,
        "margin": m,
        "n_seeds": len(pairs),
        "seeds": [pair[0].seed for pair in pairs],
        "n_test": n_units,
        "variance": _variance(at),
        "overlap": ask.overlap,
        "notes": notes,
    }
    return {**verdict, "sentence": sentence(verdict)}


def _differences(ones: Sequence[Measure], others: Sequence[Measure]) -> list[float]:
    return [
        metric_of(measure.metric).sign * (measure.value - twin.value)
        for measure, twin in zip(ones, others, strict=True)
    ]


def _notes(name: str, treated: Sequence[Outcome], control: Sequence[Outcome]) -> list[str]:
    """Reservations that a reader must know before believing the difference."""
    still = []
    for arm, outcomes in (("treated", treated), ("control", control)):
        watched = [outcome.tasks[name].cost for outcome in outcomes]
        last = sum(cost.best_epoch is not None and cost.best_epoch == cost.epochs for cost in watched)
        if last:
            still.append(f"{arm} in {last} of {len(watched)} runs")
    notes = [f"still improving at the end of the budget: {', '.join(still)}"] if still else []
    steps = [{outcome.tasks[name].cost.steps for outcome in outcomes} for outcomes in (treated, control)]
    if all(steps) and steps[0] != steps[1]:
        notes.append(f"unequal steps on the target: treated {sorted(steps[0])}, control {sorted(steps[1])}")
    return notes


def _cost(runs: Sequence[Cost]) -> dict[str, Any] | None:
    """Steps and rate of one run (a list where runs differ), the best epoch of each, the seconds of all."""
    if not runs:
        return None
    steps, rates = sorted({run.steps for run in runs}), sorted({run.learning_rate for run in runs})
    return {
        "steps": steps[0] if len(steps) == 1 else steps,
        "learning_rate": rates[0] if len(rates) == 1 else rates,
        "best_epoch": [run.best_epoch for run in runs],
        "device_seconds": round(sum(run.device_seconds for run in runs), 3),
    }


def _nothing(alpha: float) -> Interval:
    return Interval(*(math.nan,) * 8, alpha)


def _variance(at: Interval) -> dict[str, float | None]:
    return {
        "seeds": _number(at.v_seed),
        "test": _number(at.v_test),
        "residual": _number(at.v_residual),
        "total": _number(at.v),
        "df": _number(at.df),
    }


def _values(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": _number(float(np.mean(values))) if len(values) else None,
        "values": [_number(value) for value in values],
    }


def _number(value: float) -> float | None:
    """JSON has no nan: a value that could not be computed is null."""
    return float(value) if math.isfinite(value) else None
