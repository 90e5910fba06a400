"""POST /v1/architectures: a network in Keras's JSON as an architecture that jobs take."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.api import deps
from app.api.bodies import object_body
from app.api.threads import apart
from app.errors import refused
from app.model_files import adopt, upload
from app.settings import settings
from app.spec.architectures.keras_graph import Spec
from app.spec.base import plain
from app.spec.faults import Invalid, validate

router = APIRouter(prefix="/v1/architectures", tags=["models"])


EXAMPLE = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "name": "mine",
        "layers": [
            {"module": "keras.layers", "class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 4]}},
            {
                "module": "keras.layers",
                "class_name": "Dense",
                "config": {"name": "wide", "units": 8, "activation": "relu"},
            },
            {"module": "keras.layers", "class_name": "Dense", "config": {"name": "out", "units": 3}},
        ],
    },
}


class ArchitectureShape(BaseModel):
    architecture: dict[str, Any] = Field(description="as `architecture`, `student` or `trunk` of a job")
    notes: list[str] = Field(description="what was decided, or left behind, without being asked for")


@router.post(
    "",
    responses=deps.problem_responses("malformed_body", "unsupported_media_type", "invalid"),
    openapi_extra=deps.body_in_openapi(
        {"type": "object", "description": "what `model.to_json()` gives: of stock layers, their shapes known"},
        example=EXAMPLE,
    ),
    summary="Read a network as an architecture",
)
async def read_architecture(request: Request) -> ArchitectureShape:
    """`python -c "print(model.to_json())" | curl --json @- $S/v1/architectures`. The network's last dense layer is left off: the heads
    are the job's. Nothing is kept; the answer's `architecture` goes into a job as it is, and its first numbers are drawn by the job."""
    return await apart("uploads", _read, await object_body(request))


def _read(body: dict[str, Any]) -> ArchitectureShape:
    folder = settings().store / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="network-", dir=folder) as work:
            raw = Path(work) / "config.json"
            raw.write_bytes(to_json(body))
            read = upload.read_model(raw, Path(work) / "arrays.npz", form="config")
        trunk, notes = adopt.network(validate(Spec, read.graph), read.outputs)
    except Invalid as invalid:
        faults = [replace(fault, pointer=fault.pointer.removeprefix("/file")) for fault in invalid.faults]
        raise refused(faults, code="invalid") from None
    return ArchitectureShape(architecture=plain(trunk), notes=[*read.notes, *notes])
