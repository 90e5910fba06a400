"""The same arrays, batches, seeds, network, optimizer and steps in other libraries: torchdistill, TorchJD and Keras's own Distiller.

Each is run twice: from its own initialisation, as its users would, and from ours, so that nothing but the library differs. The
difference ours − theirs is judged as a treated arm against its control: over seeds and test rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.spec import architectures
from app.spec.faults import validate
from app.spec.registry import modules
from benchmarks.experiments import distillation, multitask
from benchmarks.experiments.jobs import Bench, Job, examined, shortened
from worker.training.scores import evaluate
from worker.training.scores.verdict import Cost, Outcome, Scored, judge
from worker.training.tasks import heads

COST, PIECES = 700.0, 8
REQUIRED = ("torch", "torchdistill==1.1.5", "torchjd[cagrad,quadprog-projector]==0.18.0", "numpy")
TORCH_SIDE = Path(__file__).parents[1] / "rivals" / "torch_side.py"
INITS = ("own", "ours")
DISTILLED = ("1000", "100", "100_unlabelled")
COUNTERPARTS = {
    "sum": "equal",
    "uw": "uncertainty",
    "uw_log": "uncertainty",
    "pcgrad": "pcgrad",
    "cagrad": "cagrad",
    "upgrad": "pcgrad",
}
"""TorchJD's method: our weighting beside it. UPGrad has none; the nearest is PCGrad. `uw_log`: its UW begun where ours begins."""


def measure(bench: Bench) -> dict[str, Any]:
    python = environment(bench.rivals)
    found: dict[str, Any] = {"versions": versions(python), "distillation": {}, "multitask": {}}
    words = distillation.settings(bench)
    teacher: dict[str, Any] = {}
    for name in DISTILLED[:2] if bench.quick else DISTILLED:
        job = bench.run(f"distillation-{name}", distillation.body(bench, words[name]), teacher)
        teacher = job.kept("teacher")
        found["distillation"][name] = distilled(bench, job, python, keras=name != "100_unlabelled")
    first: Job | None = None
    for weighting in multitask.WEIGHTINGS:
        job = multitask.digits(bench, weighting, first)
        first = first or job
        theirs = [one for one, ours in COUNTERPARTS.items() if ours == weighting]
        found["multitask"] |= weighted(bench, job, python, theirs)
    return found


def environment(place: Path) -> Path:
    """The rivals' interpreter, in a virtual environment that is made once. Plain pip: whichever index this machine uses."""
    python, stamp = place / "bin" / "python", place / "bequest-rivals.txt"
    wanted = "\n".join(REQUIRED)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIRED], check=True)
        stamp.write_text(wanted)
    return python


def versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    names = ("torch", "torchdistill", "torchjd")
    told = subprocess.run([str(python), "-c", code % (names,)], check=True, capture_output=True, text=True)
    import keras

    return {**json.loads(told.stdout), "keras": keras.__version__}


def distilled(bench: Bench, job: Job, python: Path, *, keras: bool) -> dict[str, Any]:
    """One distillation job beside the libraries: {arm: ours against it}."""
    from worker.training.methods._teachers import Teachers

    again, spec = job.again(), _spec(job)
    run = again.run
    (data,) = examined(run, job)
    ours = job.outcomes(again, [data], "treated")
    unlabelled = run.unlabelled(spec.unlabelled, data.held_out) if spec.unlabelled else None
    teacher = again.kept("teacher", "teacher")
    lessons = []
    for outcome in ours:
        subset = data.subset(outcome.seed)
        network = run.fresh(spec.student, [subset], outcome.seed, {spec.target: spec.head})
        batch_source = Teachers(run, [teacher], [1.0], online=True).batch_source(
            network, subset, unlabelled, spec.training, outcome.seed
        )
        told = run.logits(teacher.network, batch_source.inputs)[spec.target]
        lessons.append(_lesson(job, data, network, batch_source, outcome.seed, told))
    found: dict[str, Any] = {}
    for init in INITS:
        arms = {f"torchdistill KDLoss, {init} init": torch_fits(bench, python, lessons, "kd", init)}
        if keras:
            arms[f"keras Distiller, {init} init"] = keras_fits(lessons, teacher.network, "class", init)
        if keras and init == "ours":
            arms["keras Distiller as it comes"] = keras_fits(lessons, teacher.network, "default", init)
        for name, answers in arms.items():
            found[name] = against(bench, job, data, ours, answers, name)
    return found


def weighted(bench: Bench, job: Job, python: Path, methods: Sequence[str]) -> dict[str, Any]:
    """One multi-task job beside TorchJD's counterparts of its weighting."""
    again, spec = job.again(), _spec(job)
    run = again.run
    (data,) = examined(run, job)
    ours = job.outcomes(again, [data], "treated")
    head = {name: words.head for name, words in spec.tasks.items()}
    lessons = []
    for outcome in ours:
        subset = data.subset(outcome.seed)
        network = run.fresh(spec.trunk, [subset], outcome.seed, head)
        lessons.append(
            _lesson(job, data, network, run.batch_source(network, subset, spec.training, outcome.seed), outcome.seed)
        )
    found = {}
    for method in methods:
        for init in INITS:
            answers = torch_fits(bench, python, lessons, method, init)
            name = f"torchjd {method}, {init} init"
            found[name] = {"ours": spec.weighting.name, **against(bench, job, data, ours, answers, name)}
    return found


def torch_fits(bench: Bench, python: Path, lessons: Sequence[Any], method: str, init: str) -> list[dict[str, Any]]:
    """The test logits of each seed's network, from processes of one thread in the rivals' environment."""
    plan = []
    for lesson in lessons:
        answers = lesson["path"].with_suffix(f".{method}.{init}.npz")
        plan.append(
            {
                "lesson": str(lesson["path"]),
                "method": method,
                "init": init,
                "seed": lesson["seed"],
                "answers": str(answers),
            }
        )
    missing = [one for one in plan if not Path(one["answers"]).exists()]
    share = max(1, min(os.cpu_count() or 1, len(missing)))
    running = []
    for place in range(share if missing else 0):
        path = bench.scratch / f"plan-{os.getpid()}-{place}.json"
        path.write_text(json.dumps(missing[place::share]))
        command = [str(python), str(TORCH_SIDE), str(path)]
        running.append(subprocess.Popen(command, start_new_session=True))
    if any(process.wait() for process in running):
        raise RuntimeError(f"{TORCH_SIDE.name} failed with {method}; what it said is above")
    found = [dict(np.load(one["answers"])) for one in plan]
    for answers, lesson in zip(found, lessons, strict=True):
        assert int(answers.pop("parameters")) == lesson["network"].parameters, "the networks differ in size"
    return found


def keras_fits(lessons: Sequence[Any], teacher: Any, loss: str, init: str) -> list[dict[str, Any]]:
    """Keras's Distiller over the same batches. "class": with the loss object that it computes rightly; "default": as it comes."""
    import keras

    from worker.training.networks import build

    def one_output(keras_layers: Any) -> Any:
        return keras.Model(keras_layers.forward.inputs, keras_layers.forward.outputs[0])

    found = []
    for lesson in lessons:
        kept = lesson["path"].with_suffix(f".keras-{loss}.{init}.npz")
        if kept.exists():
            found.append(dict(np.load(kept)))
            continue
        keras.utils.set_random_seed(lesson["seed"])
        network = lesson["network"]
        keras_layers = build.keras_layers(network) if init == "ours" else _as_keras_begins(network)
        student = one_output(keras_layers)
        given = {"loss": keras.losses.KLDivergence()} if loss == "class" else {}
        distiller = keras.distillation.Distiller(
            teacher=one_output(build.keras_layers(teacher)),
            student=student,
            distillation_losses=keras.distillation.LogitsDistillation(temperature=4.0, **given),
            student_loss_weight=0.1,
        )
        distiller.compile(
            optimizer=keras.optimizers.Adam(lesson["about"]["rate"]),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        arrays = lesson["arrays"]
        for rows in arrays["order"]:
            x = network.scaling(arrays["inputs"][rows])
            distiller.train_on_batch(x, arrays["label digit"][rows])
        found.append({"digit": student.predict_on_batch(network.scaling(arrays["test"]))})
        np.savez(kept, **found[-1])
        keras.backend.clear_session()
    return found


def against(
    bench: Bench, job: Job, data: Any, ours: Sequence[Outcome], answers: Sequence[dict[str, Any]], name: str
) -> dict[str, Any]:
    """Ours as the treated arm, theirs as its control."""
    spec = job.assignment["spec"]
    theirs = []
    for outcome, logits in zip(ours, answers, strict=True):
        tasks = {}
        for task in data.tasks.values():
            measured = evaluate.measure(
                task.type,
                heads.answers(task, logits[task.name]),
                data.table.columns[task.column][data.split.test],
                metric=data.metric(task.name),
                units=data.test_units,
                dataset=data.ref,
            )
            tasks[task.name] = Scored(measured, Cost(spec["training"]["steps"], 1e-3, 0.0))
        theirs.append(Outcome(outcome.seed, tasks))
    primary = spec["control"]["primary"]
    verdict = judge(ours, theirs, seeds=bench.seeds, primary=primary, arm=name)
    bench.clock.say(f"  {job.name} against {name}: {verdict['sentence']}")
    return {
        "decision": verdict["decision"],
        "sentence": verdict["sentence"],
        "on": verdict["on"],
        "interval": verdict["interval"],
        "tasks": {task: shortened(one) for task, one in verdict["tasks"].items()},
    }


def _lesson(
    job: Job, data: Any, network: Any, batch_source: Any, seed: int, teacher: np.ndarray | None = None
) -> dict[str, Any]:
    """What one seed's arm is trained on, as arrays and as a file: its very batches, in their order, and its first numbers."""
    steps = job.assignment["spec"]["training"]["steps"]
    words = architectures.as_data(network.architecture)
    about = {
        "tasks": {name: task.type for name, task in network.tasks.items()},
        "units": {name: task.units for name, task in network.tasks.items()},
        "filters": words["filters"],
        "dense": words["dense"],
        "rate": job.assignment["spec"]["training"]["optimizer"]["learning_rate"],
    }
    arrays: dict[str, Any] = {
        "inputs": batch_source.inputs[:],
        "test": data.table.inputs[data.split.test],
        "order": np.stack(
            [np.concatenate([line.batch(step) for line in batch_source.samplers]) for step in range(steps)]
        ),
    }
    for name in network.tasks:
        arrays[f"label {name}"], arrays[f"known {name}"] = (
            batch_source.given[name],
            batch_source.given[f"{name}/labelled"],
        )
    if teacher is not None:
        arrays["teacher"] = teacher
    for layer, numbers in network.weights.items():
        arrays |= {f"weight {layer} {place}": array for place, array in enumerate(numbers)}
    path = job.out / "rivals" / f"lesson-{seed}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, about=json.dumps(about), **arrays)
    return {"path": path, "seed": seed, "arrays": arrays, "network": network, "about": about}


def _as_keras_begins(network: Any) -> Any:
    """Layers as Keras itself initialises them."""
    from dataclasses import replace

    from worker.training.networks import build

    return build.keras_layers(replace(network, weights={}))


def _spec(job: Job) -> Any:
    return validate(modules("methods")[job.assignment["kind"]].Spec, job.assignment["spec"])
