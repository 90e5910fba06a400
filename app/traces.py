"""Networks' traces, kept: a program that has Keras builds an architecture once, and its trace is read here ever after.

A trace is kept by architecture, input and version of Keras. The API knows nothing else of a network and never builds one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import inference
from app.db import transaction
from app.spec import architectures
from app.spec.architectures import Architecture
from app.spec.trace import Trace, key
from app.tables import Traced

MOST = 10_000
"""Kept in the database; the oldest go first. Each is some kilobytes."""

_MOST_AT_HAND = 256

MOST_OF_A_BODY = 64
"""Networks that a body makes known, one try after the other: it may name a few teachers, or one for each task."""

here: Callable[[Architecture, Sequence[int]], Trace] | None = None
"""Builds networks in this very process, where one has been set: outside the service alone, since it needs Keras."""

_cache: OrderedDict[str, Trace | str] = OrderedDict()  # by key; a text: why the architecture does not take such inputs
_lock = threading.Lock()


class Untraced(Exception):
    """A network that was never looked at before: `make` has to be called, without a connection to the database being held."""

    def __init__(self, architecture: dict[str, Any], shape: Sequence[int]):
        super().__init__(f"{architecture.get('arch')} on {list(shape)}")
        self.architecture, self.shape = architecture, list(shape)


def find(session: Session, architecture: Architecture, shape: Sequence[int]) -> Trace:
    """The trace of an architecture on inputs of `shape`.

    Raises:
        ValueError: it does not take such inputs.
        Untraced: it has to be looked at first.
    """
    trunk_shape = architectures.trunk_shape(architecture, shape)
    about = architectures.as_data(architecture)
    name = key(about, trunk_shape)
    entry = _at_hand(name)
    if entry is None:
        query = select(Traced.trace).where(Traced.key == name).order_by(Traced.created_at.desc()).limit(1)
        if version := keras_version():
            query = query.where(Traced.keras == version)
        stored = session.scalars(query).one_or_none()
        entry = None if stored is None else Trace.model_validate(stored)
        if entry is None:
            if here is None:
                raise Untraced(about, trunk_shape)
            entry = here(architecture, trunk_shape)
        _keep_at_hand(name, entry)
    if isinstance(entry, str):
        raise ValueError(entry)
    return entry


def make(missing: Untraced) -> None:
    """Has a network traced, and keeps the trace. Takes seconds at worst; no connection may be held meanwhile.

    Raises:
        Unavailable: 503, the inference program does not answer.
    """
    name = key(missing.architecture, missing.shape)
    try:
        trace = inference.trace(missing.architecture, missing.shape)
    except ValueError as refusal:
        _keep_at_hand(name, str(refusal))
        return
    with transaction() as session:
        row = insert(Traced).values(key=name, keras=keras_version() or "", trace=trace.model_dump(mode="json"))
        session.execute(row.on_conflict_do_update(index_elements=["key", "keras"], set_={"trace": row.excluded.trace}))
        oldest = select(Traced.created_at).order_by(Traced.created_at.desc()).offset(MOST).limit(1).scalar_subquery()
        session.execute(delete(Traced).where(Traced.created_at <= oldest))
    _keep_at_hand(name, trace)


@cache
def keras_version() -> str | None:
    """Of the Keras that is installed beside the API; None where there is none, as in its own image."""
    try:
        return metadata.version("keras")
    except metadata.PackageNotFoundError:
        return None


def forget() -> None:
    """Forgets all traces at hand; those in the database stay."""
    with _lock:
        _cache.clear()


def _at_hand(name: str) -> Trace | str | None:
    with _lock:
        if name in _cache:
            _cache.move_to_end(name)
        return _cache.get(name)


def _keep_at_hand(name: str, entry: Trace | str) -> None:
    with _lock:
        _cache[name] = entry
        _cache.move_to_end(name)
        while len(_cache) > _MOST_AT_HAND:
            _cache.popitem(last=False)
