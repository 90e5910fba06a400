"""An upload as a client sends it."""

from __future__ import annotations

import httpx


def upload(client: httpx.Client, content: bytes, filename: str = "flowers.csv", **fields: str) -> httpx.Response:
    return client.post("/v1/datasets", files={"file": (filename, content)}, data=fields)
