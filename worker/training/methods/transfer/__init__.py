"""Transfer learning: a model trained on a source task gives the target model its numbers, which then learn the target data.

Strategies: `fine_tuning` trains all layers at a small rate; `feature_extraction` the head alone, on a frozen trunk; `lp_ft` first
the head, then all (Kumar et al. 2022); `gradual_unfreezing` first the head, then one group of layers more at a time, from the top
(Howard and Ruder 2018); `lora` the head and low-rank adapters beside the trunk's frozen kernels (Hu et al. 2021), merged into them
in the model that is kept; `initialize` copies whatever fits into any architecture and trains all of it at the from-scratch rate.
BatchNorm of an inherited trunk stays as it is unless `batch_norm` says trainable. Every stage has a new optimizer. Pictures of
another size, or one channel for three, are shown to the trunk at the source's size. The control is the same architecture from
scratch, on the same pictures, for as many steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.training.methods.transfer.spec import EXAMPLE, REPORT, Spec, held_out, inputs, resolve

if TYPE_CHECKING:
    from worker.training.experiment import Experiment

__all__ = ["EXAMPLE", "REPORT", "Spec", "experiment", "held_out", "inputs", "resolve"]


def experiment(spec: Spec, run: Any) -> Experiment:
    """Imports Keras."""
    from worker.training.methods.transfer.train import Experiment

    return Experiment(spec, run)
