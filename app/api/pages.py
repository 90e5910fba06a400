"""Pages of lists: bounded in entries and in bytes, whatever the entries hold."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from app.api import deps
from app.api.shapes import Page

Item = TypeVar("Item")
Shape = TypeVar("Shape", bound=BaseModel)

MOST_BYTES = 4 * 2**20


def page(
    request: Request,
    response: Response,
    items: Generator[Item],
    limit: int,
    ids: Callable[[Item], str],
    shape: Callable[[Item], Shape],
) -> Page[Shape]:
    """The first `limit` of `items`, or fewer where those fill `MOST_BYTES`, but one at least. One more item means a next page.

    `items` are read no further, so nothing beyond the page is held in memory.
    """
    names: list[str] = []
    entries: list[Shape] = []
    size = 0
    with closing(items):
        for item in items:
            names.append(ids(item))
            if len(entries) == limit or size >= MOST_BYTES:
                break
            entries.append(shape(item))
            size += len(entries[-1].model_dump_json(by_alias=True))
    _, following = deps.turn(request, response, names, len(entries), str)
    return Page(data=entries, next_cursor=following)
