"""Batch spectral shrinkage: α·Σ σᵢ² over the k smallest singular values of a batch's features (Chen et al. 2019, equation 4).

F is (batch, width), the trunk's output; its small singular directions are what transfers badly. With Uₖ the left singular vectors
of the k smallest, Σ σᵢ² = ‖Uₖᵀ F‖², whose gradient at fixed Uₖ, 2·Uₖ Uₖᵀ F = Σ 2σᵢ uᵢ vᵢᵀ, is that of the values themselves: no
gradient of the decomposition is needed, which does not exist where singular values are equal.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid
from worker.training.regularizers import About, Regularizer


class Spec(SpecModel):
    name: Literal["bss"] = "bss"
    alpha: float = Field(0.001, ge=0, le=1e4)
    k: int = Field(1, ge=1, le=4096, description="how many singular values")


EXAMPLE: dict[str, Any] = {"name": "bss", "alpha": 0.001, "k": 1}


def resolve(spec: Spec, about: About) -> Spec:
    """Raises Invalid where there are fewer singular values than k."""
    most = min(about.width, about.batch_size)
    if spec.k > most:
        size = f"batches of {about.batch_size} rows and {about.width} features"
        raise Invalid([Fault("/k", f"{size} have {most} singular values, not {spec.k}", f"at most {most}")])
    return spec


class Term(Regularizer):
    names: ClassVar[tuple[str, ...]] = ("bss",)
    features: ClassVar[bool] = True

    def __call__(self, features: Any) -> dict[str, Any]:
        return {"bss": self.spec.alpha * penalty(features, self.spec.k)}


def penalty(features: Any, k: int) -> Any:
    """Σ σ² of the k smallest singular values of (batch, width) features; of all where there are fewer."""
    from keras import ops

    features = ops.cast(features, "float32")
    u, _, _ = ops.svd(ops.stop_gradient(features), full_matrices=False)  # largest first
    smallest = ops.stop_gradient(u[:, -k:])
    return ops.sum(ops.square(ops.matmul(ops.transpose(smallest), features)))
