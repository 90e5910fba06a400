"""The command that goes on from an answer, for people at a shell. $S is the service's address."""

from __future__ import annotations

import json

from app.data.readers import ARCHIVES
from app.datasets import DatasetEntry


def after_upload(entry: DatasetEntry) -> str | None:
    """Waiting, or a job that the data set is enough for; None where there is nothing to learn."""
    if entry.state == "preparing":
        return f"curl $S/v1/datasets/{entry.id}"
    if entry.schema is None or not entry.schema.columns:
        return None
    learnt = [name for name in entry.schema.columns if name not in ("split", "group")]
    if not learnt:
        return None
    body: dict[str, object] = {"kind": "multitask", "dataset": entry.id}
    if len(learnt) > 1:
        body["tasks"] = {name: {"column": name} for name in learnt[:4]}
    else:
        body = {"kind": "distillation", "dataset": entry.id, "teacher": {"train": {"dataset": entry.id}}}
    if "split" in entry.schema.columns:
        parts = entry.schema.columns["split"].classes or []
        body["split"] = {"by": "column", "column": "split"} | ({} if "validation" in parts else {"validation": 0})
    elif "group" in entry.schema.columns and entry.format in ARCHIVES:
        body["split"] = {"by": "group", "column": "group"}
    return f"curl --json '{json.dumps(body | {'control': {'seeds': 5}}, ensure_ascii=False)}' $S/v1/jobs"
