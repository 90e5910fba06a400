"""/v1/workers: who trains, on what, and when it was last heard of."""

from __future__ import annotations

from fastapi import APIRouter

from app import workers
from app.api import deps, shapes
from app.api.deps import InTransaction
from app.api.shapes import Workers

router = APIRouter(prefix="/v1/workers", tags=["service"])


@router.get("", responses=deps.problem_responses(), summary="Workers online")
def list_workers(session: InTransaction) -> Workers:
    return Workers(data=[shapes.of_worker(worker) for worker in workers.online(session)])
