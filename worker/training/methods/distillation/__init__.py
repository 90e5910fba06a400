"""Knowledge distillation: a student learns what its teachers say about every row, beside the labels (Hinton et al. 2015).

Teachers are kept models or trained first, from the same kind of input, with a head of the same classes; one that sees pictures of
another size is shown the student's, resized. Their logits are computed once (`teacher_outputs: cached`) or with each batch.
`unlabelled` rows train the objectives only, half of each batch. The article's own way, copying the teacher's numbers, is
`student_init: from_teacher`. The control is the same student on labels alone. With `generations` the student becomes the teacher of
the next one, which begins anew (Born-Again Networks; Furlanello et al. 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.training.methods.distillation.spec import (
    EXAMPLE,
    REPORT,
    SHORTHANDS,
    Spec,
    expand,
    held_out,
    inputs,
    resolve,
)

if TYPE_CHECKING:
    from worker.training.experiment import Experiment

__all__ = ["EXAMPLE", "REPORT", "SHORTHANDS", "Spec", "expand", "experiment", "held_out", "inputs", "resolve"]


def experiment(spec: Spec, run: Any) -> Experiment:
    """Imports Keras."""
    from worker.training.methods.distillation.train import Experiment

    return Experiment(spec, run)
