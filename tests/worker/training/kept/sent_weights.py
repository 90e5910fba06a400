"""Weights alone for a named architecture, sent without the service: read without walls, matched and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from app.model_files import named
from app.model_files.config import walk
from app.model_files.named import Named
from app.spec.adopted import Order
from app.spec.architectures.keras_graph import Spec
from app.spec.faults import validate
from app.spec.imports import Origin, StoredArray
from app.spec.models import Manifest
from app.spec.named_weights import WeightsOptions, WeightsOrder
from tests.app.model_files import saved
from worker.training.kept import imported
from worker.training.networks import trunk


def described(**options: Any) -> Named:
    return named.described(validate(WeightsOptions, options), None)


def send(file: bytes, folder: Path, **options: Any) -> Manifest:
    """The manifest of `folder`/model.keras. Raises Invalid."""
    said, network = validate(WeightsOptions, options), described(**options)
    answer, arrays = saved.read(file, form="weights")
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    weights = WeightsOrder(
        arrays=[StoredArray.model_validate(array) for array in answer["arrays"]],
        partial=said.partial,
        leftover=not network.heads,
        seed=said.seed,
    )
    order = Order(
        candidates=network.candidates(whole(network)),
        arrays=str(folder / "arrays.npz"),
        out=str(folder / "model.keras"),
        origin=Origin(file="w", sha256="0" * 64, bytes=1),
        weights=weights,
    )
    return imported.write(Order.model_validate_json(order.model_dump_json()))


def whole(network: Named) -> Spec | None:
    """As `model_intake` has it of the inference program."""
    if not network.has_other_pixels:
        return None
    walked = walk(json.loads(trunk.config(network.architecture, network.seen)))
    ((_, features),) = walked.outputs
    return validate(Spec, {**walked.graph, "features": features["tensor"]})
