"""Kept models as files: a network, its manifest, and the hashes of all rows behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.table import distinct_hashes
from app.spec.models import Manifest
from worker.reports import EdgeReport, Kept
from worker.training.kept import export, golden
from worker.training.networks.network import Network
from worker.training.process.failures import Failure
from worker.training.scores.verdict import Cost

if TYPE_CHECKING:
    from worker.training.data.rows import Data, Subset
    from worker.training.fitting.plan import Trained


@dataclass(frozen=True)
class Model:
    """A kept model: its network, its manifest, and the hashes of every row behind it (None: not recorded).

    `id` names it in the lineage: a role of this job, or `mdl_…`. `bytes`: the size of its file.
    """

    id: str
    network: Network
    manifest: Manifest
    rows: np.ndarray | None
    bytes: int

    @property
    def shapes(self) -> list[list[int]]:
        """The input shapes of all recorded rows behind the model."""
        recorded = self.rows is not None and len(self.rows) > 0
        return (self.manifest.rows_shapes or [self.manifest.input.shape]) if recorded else []

    @property
    def cost(self) -> Cost:
        """Nothing for one that was sent as a file: what it cost is not known."""
        if self.manifest.origin is not None:
            return Cost(0, 0.0, 0.0)
        cost = self.manifest.training
        return Cost(
            cost["steps"], cost["learning_rate"], cost["device_seconds"], cost.get("best_epoch"), cost.get("epochs")
        )


def write(
    out: Path,
    role: str,
    stage: str,
    trained: Trained,
    learnt_from: Sequence[Subset],
    behind: Sequence[Model],
    edges: Sequence[tuple[str, str]],
    unlabelled: Sequence[tuple[Data, np.ndarray]],
    answers: golden.Answers | None = None,
) -> tuple[Model, Kept]:
    """Writes a model's files into `out`, all but its manifest; returns the model and the files' report. Arguments as in `Job.keep`;
    without `answers` no golden rows are kept."""
    trained = replace(trained, network=replace(trained.network, precision="float32"))  # a kept model computes in full
    stem = "" if role == "model" else role.replace("/", "-")
    file = out / (f"{stem}.keras" if stem else "model.keras")
    rows_file = out / f"{stem or 'model'}.rows.npy"
    unknown = any(model.rows is None for model in behind)
    fed = trained.network.input.shape
    shapes = sorted({tuple(shape) for model in behind for shape in model.shapes} | {tuple(fed)})
    if not unknown:
        parts = [(subset.data.table.hashes, subset.train) for subset in learnt_from]
        parts += [(data.table.hashes, free) for data, free in unlabelled]
        inherited = [(model.rows, None) for model in behind if model.rows is not None]
        export.write_rows(distinct_hashes([*parts, *inherited]), rows_file)
    made = None if answers is None else golden.make(trained.network, answers)
    sha256 = export.write(trained.network, file, made)
    manifest = export.manifest(
        trained.network,
        role,
        sha256,
        file=file.name,
        rows_file=None if unknown else rows_file.name,
        dataset={
            "sets": [
                *(_set(subset.data, len(subset.train)) for subset in learnt_from),
                *({**_set(data, len(free)), "labelled": False} for data, free in unlabelled),
            ]
        },
        training=_cost(stage, trained, learnt_from),
        rows_shapes=shapes if len(shapes) > 1 else (),
        edges=edges,
    )
    model = Model(
        role, trained.network, manifest, None if unknown else export.read_rows(rows_file), file.stat().st_size
    )
    refs = dict.fromkeys([*(subset.data.ref for subset in learnt_from), *(data.ref for data, _ in unlabelled)])
    trained_on = [("trained_on", ref) for ref in refs]
    line = Kept(
        role=role,
        model=file.name,
        manifest=f"{stem}.manifest.json" if stem else "manifest.json",
        rows=None if unknown else rows_file.name,
        edges=[EdgeReport(relation=relation, target=target) for relation, target in [*edges, *trained_on]],  # type: ignore[arg-type]
    )
    return model, line


def read(name: str, entry: Mapping[str, Any]) -> Model:
    """The model of an assignment's `entry`, named `name`. Raises Failure: `weights_unavailable`."""
    manifest = Manifest.model_validate(entry["manifest"])
    path = Path(entry["path"])
    if export.file_sha256(path) != manifest.sha256:
        raise Failure("weights_unavailable", f"the file of {name} is not the one that was kept")
    hashes = export.read_rows(Path(entry["rows"])) if entry.get("rows") else None
    return Model(name, export.read(path, manifest), manifest, hashes, path.stat().st_size)


def _set(data: Data, rows: int) -> dict[str, Any]:
    return {"ref": data.ref, "sha256": data.sha256, "rows": rows}


def _cost(stage: str, trained: Trained, subsets: Sequence[Subset]) -> dict[str, Any]:
    return {
        "steps": trained.steps,
        "seed": trained.seed,
        "batch_size": trained.batch_size,
        "learning_rate": trained.rate,
        "device_seconds": round(trained.seconds, 3),
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "best": trained.best,
        "weights": trained.weights,
        **({"unfinished": {"stage": stage, "steps": trained.steps, "of": trained.planned}} if trained.stopped else {}),
        **({"conflicts": trained.conflicts} if trained.conflicts else {}),
        "labels": {name: count for subset in subsets for name, count in subset.labels.items()},
    }
