"""Pages of lists have a bound in bytes, and lose nothing to it."""

from __future__ import annotations

from contextlib import closing

import httpx
import pytest

from app import datasets, db
from app.api import pages
from app.db import transaction
from tests.app.api.conftest import add_job
from tests.app.api.uploads import upload


def walk(client: httpx.Client, path: str, limit: int) -> list[list[str]]:
    """The ids on each page, as a client that follows `next_cursor` meets them."""
    found: list[list[str]] = []
    cursor = None
    while True:
        answer = client.get(path, params={"limit": limit, **({"cursor": cursor} if cursor else {})})
        found.append([entry["id"] for entry in answer.json()["data"]])
        cursor = answer.json()["next_cursor"]
        assert ("link" in answer.headers) == (cursor is not None)
        if cursor is None:
            return found


def test_a_page_ends_where_it_holds_as_many_bytes_as_it_may(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [add_job(spec={"kind": "light", "note": "x" * 20_000}) for _ in range(7)][::-1]
    assert walk(client, "/v1/jobs", 100) == [made]
    monkeypatch.setattr(pages, "MOST_BYTES", 50_000)
    assert walk(client, "/v1/jobs", 100) == [made[:3], made[3:6], made[6:]]
    assert walk(client, "/v1/jobs", 2) == [made[:2], made[2:4], made[4:6], made[6:]]
    monkeypatch.setattr(pages, "MOST_BYTES", 1)
    assert walk(client, "/v1/jobs", 100) == [[job] for job in made]


def test_a_list_of_data_sets_names_a_few_of_each_and_counts_all(client: httpx.Client) -> None:
    names = [f"c{number}" for number in range(50)]
    head = ",".join([*names, "word", "sort"])
    rows = [
        ",".join([f"{(number + k) % 3}.5" for k in range(50)] + [f"w{number % 30}", f"s{number % 40}"])
        for number in range(120)
    ]
    targets = ",".join([f"c{number}:number" for number in range(25)] + ["sort:category"])
    csv = "\n".join([head, *rows]).encode()
    answer = upload(client, csv, "wide.csv", targets=targets)
    assert answer.status_code == 201, answer.text
    whole = answer.json()["schema"]
    assert (len(whole["columns"]), len(whole["columns"]["sort"]["classes"])) == (26, 40)
    (entry,) = [entry for entry in client.get("/v1/datasets").json()["data"] if not entry["builtin"]]
    listed = entry["schema"]
    assert (listed["columns_count"], len(listed["columns"])) == (26, 20)
    assert (listed["features_count"], len(listed["input"]["features"])) == (len(whole["input"]["features"]), 20)
    assert (whole["input"]["features"][-1]["column"], len(whole["input"]["features"][-1]["classes"])) == ("word", 30)
    assert listed["target"] in listed["columns"]
    alone = {"progress", "errors", "intake", "next"}
    assert entry == {name: value for name, value in answer.json().items() if name not in alone} | {"schema": listed}
    first = upload(client, csv, "wide.csv", targets=f"sort:category,{targets.removesuffix(',sort:category')}")
    sort = client.get("/v1/datasets?limit=1").json()["data"][0]["schema"]["columns"]["sort"]
    full = first.json()["schema"]["columns"]["sort"]
    assert sort == {**full, "classes": full["classes"][:20], "counts": full["counts"][:20], "classes_count": 40}
    assert client.get(f"/v1/datasets/{first.json()['id']}").json()["schema"]["columns"]["sort"] == full


def test_what_a_page_does_not_hold_is_not_read_either(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_AT_A_TIME", 1)
    for number in range(3):
        upload(client, f"a,y\n{number}.5,0\n2,1\n".encode())
    with transaction() as session, closing(datasets.page(session, limit=100)) as found:
        assert next(found).format == "csv"
        assert len(session.identity_map) <= 1
