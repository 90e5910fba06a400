"""Comparisons of equals: how often does the verdict say `helped` or `hurt` where nothing can help?

Twice as many verdicts as the rule is held to, each over its own split of the wine data, its own five seeds and its own fits:

* `untrained`: the treated arm starts from one untrained network, as from a source that knows nothing; the control from its own.
* `twins`: two control arms with other seeds.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from app.spec import architectures
from app.spec.data import PerClass, SplitSpec
from app.spec.models import TaskSpec
from app.spec.training import TrainingSpec
from benchmarks.experiments.jobs import Bench, Clock, Told
from worker.training.experiment.job import Job
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Phase
from worker.training.networks.inheritance import inherit
from worker.training.scores import evaluate
from worker.training.scores.verdict import Cost, Outcome, Scored, judge

COST, PIECES = 560.0, 1
VERDICTS, SEEDS, STEPS, RATE = 200, 5, 60, 1e-3
ALLOWED = 11
"""Of 200 at 2.5 %: more than this many happen once in a hundred such measurements."""


def measure(bench: Bench) -> dict[str, Any]:
    from worker.training.process import device

    device.prepare()
    verdicts = 20 if bench.quick else VERDICTS
    job = Job({}, bench.scratch / "null", Told(Clock(0)), threading.Event())
    found: dict[str, list[Any]] = {"untrained": [], "twins": []}
    for number in range(verdicts):
        for name, verdict in pair_of_verdicts(job, number).items():
            found[name].append(verdict)
        bench.clock.within((number + 1) / verdicts)
    counts = {
        name: {
            word: sum(one["decision"] == word for one in rows)
            for word in ("helped", "hurt", "no_effect", "inconclusive")
        }
        for name, rows in found.items()
    }
    for name, count in counts.items():
        bench.clock.say(f"null, {name}: {count} of {verdicts}; at most {ALLOWED} of 200 helped and {ALLOWED} hurt")
    return {"counts": counts, "verdicts": found, "allowed": math.ceil(ALLOWED * verdicts / VERDICTS)}


def pair_of_verdicts(job: Job, number: int) -> dict[str, Any]:
    """Both verdicts on the data split by `number`. They share one control arm; within a kind no two verdicts share a fit."""
    run = job.run
    split = SplitSpec(train=0.6, validation=0.0, test=0.4, seed=number)
    data = run.data("wine", {"class": TaskSpec(column="class")}, split, PerClass(per_class=10))
    training = TrainingSpec(steps=STEPS)
    architecture = architectures.resolve("mlp")
    outcomes: dict[str, list[Outcome]] = {"treated": [], "control": [], "other": []}
    source = run.fresh(architecture, [data.subset(1_000_000 + number)], 1_000_000 + number)
    for k in range(SEEDS):
        for arm, first in (("treated", 0), ("control", 0), ("other", 500_000)):
            seed = first + 10 * number + k
            subset = data.subset(seed)
            network = run.fresh(architecture, [subset], seed)
            if arm == "treated":
                network = inherit(network, source).network
            loss_spec = LossSpec({"wine": ["class"]}, network.tasks)
            fit_spec = run.fit_spec(loss_spec, {"wine": run.batch_source(network, subset, training, seed)}, [subset])
            trained = job.fit(f"{number}-{k}-{arm}", network, fit_spec, [Phase(STEPS, RATE)], training, seed)
            outcomes[arm].append(Outcome(10 * number + k, {"class": scored(job, trained.network, data)}))
    return {
        "untrained": short(judge(outcomes["treated"], outcomes["control"], seeds=SEEDS)),
        "twins": short(judge(outcomes["other"], outcomes["control"], seeds=SEEDS)),
    }


def scored(job: Job, network: Any, data: Any) -> Scored:
    test = data.split.test
    measured = evaluate.measure(
        "multiclass",
        job.answers(network, data.table.inputs[test])["class"],
        data.table.columns["class"][test],
        metric="accuracy",
        units=data.test_units,
    )
    return Scored(measured, Cost(STEPS, RATE, 0.0))


def short(verdict: dict[str, Any]) -> dict[str, Any]:
    task = verdict["tasks"]["class"]
    return {
        "decision": verdict["decision"],
        "delta": task["delta"]["mean"],
        "interval": verdict["interval"],
        "control": task["control"]["mean"],
    }
