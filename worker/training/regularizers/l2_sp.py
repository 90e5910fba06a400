"""L2-SP: α/2·‖w − w₀‖² on the trunk, w₀ the source's numbers, and β/2·‖w‖² on the head (Li, Grandvalet and Davoine 2018, equation 3).

Of all trained numbers: kernels, biases, γ and β. It is 0 on the trunk before the first step. A step of SGD overshoots where
rate·α ≥ 2; Adam divides by its gradients' size, so the pull jitters instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid
from worker.training.regularizers import About, Regularizer


class Spec(SpecModel):
    name: Literal["l2_sp"] = "l2_sp"
    alpha: float = Field(0.001, ge=0, le=1e4, description="pull of the trunk towards the source")
    beta: float = Field(0.0001, ge=0, le=1e4, description="pull of the head towards 0")


EXAMPLE: dict[str, Any] = {"name": "l2_sp", "alpha": 0.001, "beta": 0.0001}


def resolve(spec: Spec, about: About) -> Spec:
    """Raises Invalid where nothing would be pulled, or where it would diverge."""
    faults = []
    if about.strategy == "lora":
        faults.append(
            Fault("", "lora keeps the source's numbers as they are: there is nothing to pull back", "leave it out")
        )
    if about.optimizer == "sgd":
        faults += [
            Fault(
                f"/{name}",
                f"{rate:g} × {value:g} is 2 or more: each step would overshoot further",
                f"choose less than {2 / rate:g}",
            )
            for name, value, rate in (
                ("alpha", spec.alpha, about.rate),
                ("beta", spec.beta, max(about.rate, about.head_rate)),
            )
            if rate * value >= 2
        ]
    if faults:
        raise Invalid(faults)
    return spec


class Term(Regularizer):
    names: ClassVar[tuple[str, ...]] = ("l2_sp", "l2_head")

    def build(self, learner: Any) -> None:
        self._pairs = [
            (layer.name, place, variable, learner.add_weight(
                shape=tuple(variable.shape), initializer="zeros", trainable=False, dtype="float32", name=f"source_{number}"
            ))
            for number, (layer, place, variable) in enumerate(_trained(self.trunk))
        ]  # fmt: skip

    def start(self, weights: Mapping[str, Any]) -> None:
        for name, place, _, source in self._pairs:
            source.assign(weights[name][place])

    def __call__(self, features: Any) -> dict[str, Any]:  # noqa: ARG002 - it is of the numbers alone
        from keras import ops

        zero = ops.zeros((), "float32")
        far = sum((ops.sum(ops.square(variable - source)) for _, _, variable, source in self._pairs), zero)
        large = sum(
            (ops.sum(ops.square(ops.convert_to_tensor(variable))) for _, _, variable in _trained(self.head)), zero
        )
        return {"l2_sp": 0.5 * self.spec.alpha * far, "l2_head": 0.5 * self.spec.beta * large}


def _trained(layers: Mapping[str, Any]) -> list[tuple[Any, int, Any]]:
    return [
        (layer, place, variable)
        for layer in layers.values()
        for place, variable in enumerate(layer.weights)
        if variable.trainable
    ]
