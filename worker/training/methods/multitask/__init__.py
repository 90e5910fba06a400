"""Multi-task learning: one trunk (or several copies of it), a head for each task, all trained at once, θ ← θ − α ∇ Σ L.

Tasks are columns of one data set (a missing label masks its row for that task alone), or have data sets of their own: each step
then takes one batch of every data set, and an epoch is the longest. The control is one single-task model for each task, on the
rows labelled for it, for as many steps as the shared model.

Tasks may have a teacher each, with `weight_schedule: linear_anneal` as in BAM (Clark et al. 2019): the weighting then weighs all of
such a task's loss, labels and objectives, on every row. What is asked then is whether teaching helps: the control is the same
multi-task model on labels alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.training.methods.multitask.spec import EXAMPLE, REPORT, Spec, held_out, inputs, resolve

if TYPE_CHECKING:
    from worker.training.experiment import Experiment

__all__ = ["EXAMPLE", "REPORT", "Spec", "experiment", "held_out", "inputs", "resolve"]


def experiment(spec: Spec, run: Any) -> Experiment:
    """Imports Keras."""
    from worker.training.methods.multitask.train import Experiment

    return Experiment(spec, run)
