"""A verdict in one sentence that a person can read aloud, with its evidence or the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.training.scores.measures import metric_of

MOST_SEEDS = 20
SEEDS_ADVISED = 5
MOST_TOLD = 2
MOST_PLACES = 6


def sentence(verdict: Mapping[str, Any]) -> str:
    """One sentence for a task's verdict, or for Δm's, from its report."""
    decision, reason = verdict["decision"], verdict["reason"]
    if decision == "not_measured":
        return (
            f"not_measured: {_treated(verdict)}no control was trained; control.seeds {SEEDS_ADVISED} gives a verdict."
        )
    if verdict["delta"]["mean"] is None:
        return f"{decision}: {_why(verdict)}."
    if decision == "inconclusive" and reason == "uncertain":
        if verdict["ci95"][0] is None:
            return f"inconclusive: {'; '.join(verdict['notes']) or 'the interval could not be computed'}."
        if verdict["margin"] == 0:
            return f"inconclusive: {_values(verdict)}{_delta(verdict)}{_no_room(verdict)}; {_paired(verdict)}."
        return f"inconclusive: {_delta(verdict)}, {_interval(verdict)}: {_not_excluded(verdict)}; {_advice(verdict)}."
    if decision == "inconclusive":
        return f"inconclusive: {_values(verdict)}{_delta(verdict)}; {_why(verdict)}{_costs(verdict)}."
    inside = ", inside the margin" if decision == "no_effect" else ""
    percent = f"{100 * (1 - verdict['alpha']):.3g} % interval "
    return (
        f"{decision}: {_values(verdict)}{_delta(verdict)}, {percent}{_interval(verdict)}{inside}; {_paired(verdict)}, "
        f"margin {_amount(verdict, verdict['margin'])}{_costs(verdict)}."
    )


def _advice(verdict: Mapping[str, Any]) -> str:
    """More seeds or more test rows, whichever make up more of the uncertainty."""
    seeds, test = verdict["variance"]["seeds"], verdict["variance"]["test"]
    share = seeds / (seeds + test) if seeds + test > 0 else 0.0
    if share <= 0.5:
        return f"{100 * (1 - share):.0f} % of the uncertainty is test rows: more test rows would narrow it"
    if verdict["n_seeds"] >= MOST_SEEDS:
        return f"{100 * share:.0f} % of the uncertainty is seeds, and {MOST_SEEDS} is the most that a job runs"
    return (
        f"{100 * share:.0f} % of the uncertainty is seeds: try control.seeds {min(2 * verdict['n_seeds'], MOST_SEEDS)}"
    )


def _not_excluded(verdict: Mapping[str, Any]) -> str:
    lo, hi = verdict["interval"]
    margin = verdict["margin"]
    sign = ("±" if lo <= -margin else "") if hi >= margin else "−"
    return f"neither 0 nor {sign}{_amount(verdict, margin)} {unit(verdict)} can be excluded"


def _no_room(verdict: Mapping[str, Any]) -> str:
    """A perfect control has a margin of 0: no difference is small enough to count as none, and none can be a gain."""
    text = "the control makes no mistake on these test rows, which leaves no room for a gain"
    if verdict["interval"][0] < 0:
        return f", {_interval(verdict)}: {text}, and a loss can be neither shown nor excluded"
    return f": {text}; a harder task, fewer labels or a shorter budget might show a difference"


def _why(verdict: Mapping[str, Any]) -> str:
    match verdict["reason"]:
        case "few_seeds":
            return f"{_paired(verdict)}: a verdict needs 3 seeds at least ({SEEDS_ADVISED} advised)"
        case "few_test_rows":
            return f"{_paired(verdict)}: a verdict needs 30 test {verdict.get('test_unit', 'row')}s at least"
        case "run_failed":
            broken = [note for note in verdict["notes"] if note.startswith("seed ")]
            more = f"; {len(broken) - MOST_TOLD} more" if len(broken) > MOST_TOLD else ""
            return f"not every pair was completed: {'; '.join(broken[:MOST_TOLD]) or 'a run failed'}{more}"
        case "overlap":
            return "test rows were seen in training, so the difference says nothing about new rows"
    return "; ".join(verdict["notes"]) or "nothing was measured"


def _treated(verdict: Mapping[str, Any]) -> str:
    if "treated" not in verdict or verdict["treated"]["mean"] is None:
        return ""
    return f"{metric_of(verdict['metric']).label} {verdict['treated']['mean']:.3f}; "


def _values(verdict: Mapping[str, Any]) -> str:
    if verdict["metric"] == "delta_m":
        return f"Δm over {len(verdict['tasks'])} tasks (positive is better) "
    control, label = verdict["control"], metric_of(verdict["metric"]).label
    return f"{label} {verdict['treated']['mean']:.3f} against {control['mean']:.3f} ({control['arm']}), "


def _delta(verdict: Mapping[str, Any]) -> str:
    return f"{signed(verdict, verdict['delta']['mean'])} {unit(verdict)}"


def _interval(verdict: Mapping[str, Any]) -> str:
    return f"{signed(verdict, verdict['interval'][0])} to {signed(verdict, verdict['interval'][1])}"


def _paired(verdict: Mapping[str, Any]) -> str:
    seeds, rows, unit = verdict["n_seeds"], verdict["n_test"], verdict.get("test_unit", "row")
    return f"{seeds} paired seed{'s' if seeds != 1 else ''}, {rows:,} test {unit}{'s' if rows != 1 else ''}"


def _costs(verdict: Mapping[str, Any]) -> str:
    """Both arms' steps on the target, and the method's extra costs."""
    budget = verdict.get("budget") or {}
    if not budget.get("treated") or not budget.get("control"):
        return ""
    ours, theirs = budget["treated"]["steps"], budget["control"]["steps"]
    if isinstance(ours, int) and ours == theirs:
        text = f"; {ours:,} target steps each"
    else:
        text = f"; target steps {ours} against {theirs}"
    besides = budget.get("besides") or {}
    extra = [_stage(besides, stage) for stage in ("source", "teacher") if besides.get(f"{stage}_steps")]
    if besides.get("generation_steps"):
        extra.append(f"earlier generations {besides['generation_steps']:,} steps")
    if besides.get("unlabelled_rows"):
        extra.append(f"{besides['unlabelled_rows']:,} unlabelled rows")
    return f"{text}, {' and '.join(extra)} besides" if extra else text


def _stage(besides: Mapping[str, Any], stage: str) -> str:
    rows, labels = besides.get(f"{stage}_rows"), besides.get(f"{stage}_labels")
    amounts = [f"{count:,} {what}" for count, what in ((rows, "rows"), (labels, "labels")) if count]
    return f"{stage} {besides[f'{stage}_steps']:,} steps" + (f" on {' with '.join(amounts)}" if amounts else "")


def unit(verdict: Mapping[str, Any]) -> str:
    """The unit of a verdict's differences, once they are multiplied by `scale`."""
    if verdict["metric"] == "delta_m":
        return "%"
    return "points" if metric_of(verdict["metric"]).share else ""


def scale(verdict: Mapping[str, Any]) -> float:
    return 100.0 if verdict["metric"] != "delta_m" and metric_of(verdict["metric"]).share else 1.0


def _amount(verdict: Mapping[str, Any], value: float) -> str:
    return f"{scale(verdict) * value:.{_places(verdict)}f}"


def signed(verdict: Mapping[str, Any], value: float) -> str:
    """A difference as the sentence tells it: with its sign, in the verdict's unit."""
    text = f"{scale(verdict) * value:+.{_places(verdict)}f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "+")


def _places(verdict: Mapping[str, Any]) -> int:
    """Digits after the point of all numbers of a verdict: enough to show on which side of 0 and of the margin each end of the
    interval lies, since the verdict rests on that."""
    by = scale(verdict)
    ends = [by * end for end in verdict.get("interval") or () if end is not None]
    margin = by * (verdict.get("margin") or 0.0)
    marks = [(margin, 0.0), *((end, mark) for end in ends for mark in (0.0, margin, -margin))]

    def shown(places: int) -> bool:
        return all(_side(round(value, places), round(mark, places)) == _side(value, mark) for value, mark in marks)

    return next(filter(shown, range(1, MOST_PLACES)), MOST_PLACES)


def _side(value: float, mark: float) -> int:
    """-1, 0 or 1; a difference that MOST_PLACES digits would not show counts as 0."""
    return 0 if abs(value - mark) < 10.0**-MOST_PLACES else (1 if value > mark else -1)
