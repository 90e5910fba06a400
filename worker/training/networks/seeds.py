"""Seeds of single draws. Equal in every process and on every machine."""

from __future__ import annotations

import hashlib


def derive(seed: int, name: str) -> int:
    """A 31-bit seed of its own for every (seed, name), the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest(), "big") >> 1
