"""Model files that were made to do harm, sent where models are sent. One function a family, by chance; the files are the tests'."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from tests.app.model_files.hostile import CANARY as FILE
from tests.app.model_files.hostile import files
from tests.app.pretrained import hostile
from tests.faults.hostile_npz import Hostile, Lair, Make

CANARY = Path(FILE)
"""Appears where code of one of these files has run."""


def _of(family: str, chance: random.Random) -> Hostile:
    made = _made()
    name = chance.choice([name for name in made if name.startswith(family)])
    return Hostile(made[name], "model.keras", path="/v1/models")


@cache
def _made() -> dict[str, bytes]:
    return files()


def advisory(chance: random.Random, lair: Lair) -> Hostile:
    """Code, a module's function or a foreign file, named in a layer's config: the public ways in."""
    return _of("advisory", chance)


def bomb(chance: random.Random, lair: Lair) -> Hostile:
    """A config of a few bytes for a network of more numbers, names or levels than there is room for."""
    return _of("bomb", chance)


def arrays(chance: random.Random, lair: Lair) -> Hostile:
    """HDF5 that points elsewhere, lies about its shapes or is packed in another way."""
    return _of("h5", chance)


def archive(chance: random.Random, lair: Lair) -> Hostile:
    """A zip that is none, is cut off, lies about sizes or has members that belong elsewhere."""
    return _of("archive", chance)


def folder(chance: random.Random, lair: Lair) -> Hostile:
    """A model's folder in a zip or tar, of links, bombs, pickles or noise."""
    return Hostile(hostile.ALL[chance.choice(list(hostile.ALL))](), "model.tar", path="/v1/models")


ALL: list[Make] = [advisory, bomb, arrays, archive, folder]
