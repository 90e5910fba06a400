"""Every way in which a job can fail, for the service and the trainer alike.

The list is closed. Titles and hints here are the only words that reach a client besides the message that the raiser writes: never
the client's own input, the text of an exception, or a stack trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class FailureType:
    """A way in which a job can fail: who is to blame, whether another attempt may help, and what to do next."""

    code: str
    title: str
    blame: Literal["user", "system"]
    retryable: bool
    hint: str


def _failures(*types: FailureType) -> Mapping[str, FailureType]:
    return {kind.code: kind for kind in types}


FAILURES: Mapping[str, FailureType] = _failures(
    FailureType(
        "out_of_memory",
        "The device or the machine ran out of memory",
        "user",
        False,
        "Halve training.batch_size and double training.optimizer.gradient_accumulation_steps, or choose a smaller architecture.",
    ),
    FailureType(
        "loss_not_finite",
        "The loss became NaN or infinite",
        "user",
        False,
        "Lower training.optimizer.learning_rate, or set training.optimizer.global_clipnorm to 1.0.",
    ),
    FailureType(
        "dataset_invalid",
        "The data set cannot be used for this job",
        "user",
        False,
        "Look at GET /v1/datasets/{id}/preview and correct the data set or the split.",
    ),
    FailureType(
        "label_mismatch",
        "Labels of the data and of the model differ",
        "user",
        False,
        "Use data whose class names equal the model's, or give the task a fresh head.",
    ),
    FailureType(
        "data_overlap",
        "Test rows were used to train a model that this job builds on",
        "user",
        False,
        'Train the source or teacher inside this job with {"train": …}, which drops those rows, or give both jobs one split '
        "with `by: random` (a stratified one follows the first target).",
    ),
    FailureType(
        "teacher_incompatible",
        "The teacher's answers do not fit the student's",
        "user",
        False,
        "Use a teacher trained on the same columns with the same classes.",
    ),
    FailureType(
        "weights_unavailable",
        "The weights to start from cannot be had",
        "user",
        False,
        'Use the model of a job (job:ID), or train the source inside this job with {"train": …}.',
    ),
    FailureType(
        "export_failed",
        "A file that `export` asks for could not be written, or does not answer as the model does",
        "system",
        False,
        "Submit the job again without that format; model.keras needs none of them.",
    ),
    FailureType(
        "time_limit",
        "The job ran longer than its max_seconds",
        "user",
        False,
        "Raise max_seconds, or lower training.epochs. What it had learnt by then is job:ID, if there was time to save it.",
    ),
    FailureType(
        "worker_lost",
        "The worker that ran the job vanished, more often than max_attempts allows",
        "system",
        True,
        "Look at GET /v1/workers and the worker's log, then submit the job again.",
    ),
    FailureType(
        "stalled",
        "Training stood still for too long",
        "system",
        True,
        "Look at GET /v1/jobs/{id}/logs; where a step takes so long, raise BEQUEST_STALL_SECONDS. Then submit the job again.",
    ),
    FailureType(
        "memory_limit",
        "The trainer used more main memory than it may",
        "user",
        False,
        "Lower training.batch_size, use a smaller data set, or raise BEQUEST_MAX_MEMORY_BYTES.",
    ),
    FailureType(
        "disk_limit",
        "The job's files took more disk than one job may",
        "user",
        False,
        "Choose a smaller architecture or fewer control seeds, or raise BEQUEST_MAX_JOB_BYTES.",
    ),
    FailureType(
        "model_too_large",
        "The model has more parameters than the limit allows",
        "user",
        False,
        "Choose a smaller architecture, or raise BEQUEST_MAX_PARAMETERS.",
    ),
    FailureType(
        "metric_limit",
        "The job reported more metric rows than the limit allows",
        "user",
        False,
        "Train fewer epochs or fewer control seeds, or raise BEQUEST_MAX_METRIC_ROWS.",
    ),
    FailureType(
        "architecture_changed",
        "The network's layers are others on the worker than those that the job was checked against",
        "system",
        False,
        "The worker has another version of Keras, or of a plugin, than the service had. Submit the job again; run one version of both.",
    ),
    FailureType(
        "model_unsafe",
        "A model holds something that this service does not load",
        "user",
        False,
        "Use a model that this service trained.",
    ),
    FailureType(
        "disk_full",
        "There was no room to store checkpoints or artifacts",
        "system",
        True,
        "Free space on the disk of the data folder (GET /readyz shows it), then submit the job again.",
    ),
    FailureType(
        "internal",
        "The trainer failed for a reason of our own",
        "system",
        True,
        "Look at GET /v1/jobs/{id}/logs and report the fault with the job's id.",
    ),
)


def failure(code: str, message: str | None = None, *, stage: str | None = None) -> dict[str, Any]:
    """A job's error as clients see it; `message` None: the failure's title."""
    kind = FAILURES[code]
    return {
        "code": code,
        "message": message or kind.title,
        "hint": kind.hint,
        "blame": kind.blame,
        "retryable": kind.retryable,
        "stage": stage,
        "param": None,
    }
