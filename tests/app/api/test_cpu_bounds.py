"""No request holds the process: whatever a spec says, to check it takes less than a second of the processor.

Every field of every kind's schema is given the worst that its type can hold, up to the limit of a body.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app import methods
from app.api.deps import InTransaction
from app.spec.registry import Kind, modules
from tests.app.api.conftest import problem

CPU_SECONDS = 1.0
BODY_BYTES = 250_000  # of 256 kB
JSON = {"content-type": "application/json"}


FAMILIES: dict[str, tuple[Kind, str]] = {
    "architecture": ("architectures", "arch"),
    "objectives": ("objectives", "type"),
    "regularizer": ("regularizers", "name"),
    "sharing": ("sharing", "name"),
    "student": ("architectures", "arch"),
    "trunk": ("architectures", "arch"),
    "weighting": ("weighting", "name"),
}
"""Of a field that takes one of several modules' words: whose they are, and which of them is the name."""


@dataclass(frozen=True)
class Place:
    """A field of a kind's spec. `put` is a whole body with a value there; `inner` a sound element of a list or a map."""

    pointer: str
    type: str
    put: Callable[[Any], dict[str, Any]]
    inner: Any = 0


def sound(node: dict[str, Any], defs: dict[str, Any]) -> Any:
    """Some value that fits, or nearly."""
    node = defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    for way in ("anyOf", "oneOf"):
        if way in node:
            return sound(node[way][0], defs)
    if "const" in node or "enum" in node:
        return node.get("const", node.get("enum", [None])[0])
    match node.get("type"):
        case "object":
            return {name: sound(node["properties"][name], defs) for name in node.get("required", ())}
        case "array":
            return [sound(node.get("items", {}), defs)] * node.get("minItems", 1)
        case "string":
            return "digits"
        case "boolean":
            return True
    return node.get("minimum", 1)


def places(kind: str) -> Iterator[Place]:
    module = methods.kinds()[kind]
    schema = module.Spec.model_json_schema()
    defs, seen = schema.get("$defs", {}), set[str]()

    def walk(node: dict[str, Any], at: str, put: Callable[[Any], Any]) -> Iterator[Place]:
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            if name in seen:
                return
            seen.add(name)
            node = defs[name]
        field = at.removesuffix("/0").rpartition("/")[2]
        if "discriminator" in node and field in FAMILIES:
            yield Place(at, "string", put)
            yield Place(at, "object", put)
            yield from variants(at, put, *FAMILIES[field])
            return
        for way in ("anyOf", "oneOf"):
            for branch in node.get(way, ()):
                yield from walk(branch, at, put)
        match node.get("type"):
            case "object" if node.get("properties"):
                for name, inner in node["properties"].items():
                    yield from walk(inner, f"{at}/{name}", inside(put, sound(node, defs), name))
            case "object":
                more = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
                inner = more if isinstance(more, dict) else {}
                yield Place(at, "object", put, sound(inner, defs))
                yield from walk(inner, f"{at}/*", lambda value: put({"a": value}))
            case "array":
                yield Place(at, "array", put, sound(node.get("items", {}), defs))
                yield from walk(node.get("items", {}), f"{at}/0", lambda value: put([value]))
            case "string" if "enum" not in node and "const" not in node:
                yield Place(at, "string", put)
            case "integer" | "number" as type_:
                yield Place(at, type_, put)

    def inside(put: Callable[[Any], Any], whole: dict[str, Any], name: str) -> Callable[[Any], Any]:
        return lambda value: put({**whole, name: value})

    def variants(at: str, put: Callable[[Any], Any], family: Kind, key: str) -> Iterator[Place]:
        """The fields of all modules that an object may name."""
        for name, module in modules(family).items():
            for field, inner in module.Spec.model_json_schema()["properties"].items():
                if field != key:
                    yield from walk(inner, f"{at}/{name}/{field}", inside(put, {key: name}, field))

    for name, node in schema["properties"].items():
        whole = {**module.EXAMPLE, **({"strategy": "lora"} if name == "lora" else {})}
        yield from walk(node, f"/{name}", inside(lambda body: body, whole, name))


def alike(number: int) -> str:
    """One of many long names that differ in their ends. Their many equal letters are the worst for whoever compares them."""
    return f"{'banana' * 20}{number:05d}"


def nested(make: Callable[[Any], Any], depth: int = 25) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = make(value)
    return value


def cut(value: Any) -> Any:
    """`value` within the limit of a body."""
    while len(json.dumps(value, ensure_ascii=False).encode()) > BODY_BYTES:
        value = dict(list(value.items())[: len(value) // 2]) if isinstance(value, dict) else value[: len(value) // 2]
    return value


STRINGS = [
    ".?" * 48 + "#",
    "(c+)+" * 20,
    alike(1),
    "\N{CYRILLIC SMALL LETTER ZHE}" * (BODY_BYTES // 2),
    "job:job_a" + "/a" * (BODY_BYTES // 2 - 10),
]
LISTS = [
    [[]] * (BODY_BYTES // 4),
    [alike(number) for number in range(BODY_BYTES // 135)],
    [1e308, -1, 2**63] * (BODY_BYTES // 32),
    nested(lambda value: [value]),
    nested(lambda value: [value] * 4, 7),
]
MAPS = [
    {f"k{number}": number for number in range(10_000)},
    {alike(number): 1 for number in range(BODY_BYTES // 135)},
    nested(lambda value: {alike(0): value}),
    {"name": alike(1), "type": alike(2), "arch": alike(3), "train": {alike(4): alike(5)}},
]
STRINGS, LISTS, MAPS = ([cut(value) for value in family] for family in (STRINGS, LISTS, MAPS))
NUMBERS = [1e308, 2**63, -1]


def values(place: Place) -> list[Any]:
    match place.type:
        case "string":
            return STRINGS
        case "array":
            return [*LISTS, cut([place.inner] * 10_000)]
        case "object":
            similar = {alike(number): place.inner for number in range(1_500)}
            return [*MAPS, cut(similar), {f"a{number}": place.inner for number in range(64)}]
        case _:
            return NUMBERS


@contextmanager
def application() -> Iterator[Callable[[Any], tuple[int, str, float]]]:
    """Asks the service to check a body: the status, the text, and the seconds of the processor that the answer took.

    Without a socket: some systems hold each answer back for 40 ms.
    """
    from app.main import create_app

    transport = httpx.ASGITransport(create_app(), raise_app_exceptions=False)
    with asyncio.Runner() as runner:
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

        def check(body: Any) -> tuple[int, str, float]:
            content = json.dumps(body, ensure_ascii=False).encode()
            before = time.process_time()  # of all threads: the service's are this process's
            answer = runner.run(client.post("/v1/jobs/validate", content=content, headers=JSON))
            return answer.status_code, answer.text, time.process_time() - before

        check({})  # what is loaded and drawn once is not the body's cost
        for module in methods.kinds().values():
            check(module.EXAMPLE)
        gc.collect()
        gc.freeze()  # nor is the search of what other tests have left in this process
        yield check
        gc.unfreeze()
        runner.run(client.aclose())


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(methods.kinds()))
@pytest.mark.usefixtures("database")
def test_no_field_of_a_spec_takes_a_second_of_the_processor(kind: str) -> None:
    with application() as check:
        for place in places(kind):
            for number, value in enumerate(values(place)):
                status, said, seconds = check(place.put(value))
                assert status in (200, 400, 422), (place.pointer, number, said)
                assert seconds < CPU_SECONDS, (place.pointer, number, seconds)


@pytest.mark.parametrize("kind", sorted(methods.kinds()))
def test_the_walk_reaches_the_fields_at_which_it_aims(kind: str) -> None:
    found = {place.pointer for place in places(kind)}
    aims = {
        "transfer": {
            "/freeze/regex",
            "/unfreeze/0/layers/0",
            "/lora/target_modules/0",
            "/source/weights",
            "/metadata/*",
        },
        "multitask": {"/tasks", "/tasks/*/column", "/sharing/ple/levels", "/weighting", "/trunk/cnn/filters"},
        "distillation": {"/teachers/0/weight", "/objectives/0/hint/layers", "/student/mlp/units/0", "/split/column"},
    }
    assert found >= aims.get(kind, set())


@pytest.mark.usefixtures("database")
def test_any_json_at_any_field_is_answered_within_a_second_of_the_processor() -> None:
    everywhere = [place for kind in sorted(methods.kinds()) for place in places(kind)]
    words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60)
    leaf = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | words
    tree = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=20)

    with application() as check:

        @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(everywhere), tree, st.sampled_from([1, 100, 10_000]))
        def answered(place: Place, value: Any, times: int) -> None:
            many = [value] * times if place.type == "array" else {f"k{number}": value for number in range(times)}
            for body in (place.put(value), place.put(cut(many))):
                status, said, seconds = check(body)
                assert status in (200, 400, 422), said
                assert seconds < CPU_SECONDS

        answered()


# --- a hundred columns with long, similar names


@pytest.fixture
def wide(client: httpx.Client) -> str:
    """A data set of 100 targets with long, similar names; its id."""
    names = [alike(number) for number in range(100)]
    lines = [",".join(["x", *names]), *(",".join([f"{row}.5", *[str(row % 2)] * 100]) for row in range(20))]
    answer = client.post(
        "/v1/datasets", files={"file": ("wide.csv", "\n".join(lines))}, data={"targets": ",".join(names)}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def misspelt(dataset: str) -> dict[str, Any]:
    """A spec of some 11 kB with 64 columns that are nearly there."""
    return {
        "kind": "multitask",
        "dataset": dataset,
        "tasks": {f"t{number}": {"column": alike(number).replace("ban", "bam", 3)} for number in range(64)},
    }


def test_sixty_four_misspelt_columns_take_a_second_of_the_processor_at_most(client: httpx.Client, wide: str) -> None:
    with application() as check:
        status, said, seconds = check(misspelt(wide))
    assert status == 422
    assert seconds < CPU_SECONDS
    errors = json.loads(said)["errors"]
    assert {error["pointer"] for error in errors} == {f"/tasks/t{number}/column" for number in range(64)}
    hints = {error["pointer"]: error["hint"] for error in errors}
    assert hints["/tasks/t7/column"] == f"did you mean {alike(7)!r}?"


def test_eight_misspelt_specs_at_once_are_eight_422(client: httpx.Client, address: str, wide: str) -> None:
    """Each comparison of the names once held the only thread that runs, until the transactions of the others were cut off."""

    def send(_: int) -> httpx.Response:
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as own:
            return own.post("/v1/jobs/validate", json=misspelt(wide))

    before = time.process_time()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    for answer in answers:
        assert len(problem(answer, 422, "invalid")["errors"]) == 64
    assert time.process_time() - before < 8 * CPU_SECONDS


@pytest.mark.usefixtures("database")
def test_a_transaction_that_the_database_cuts_off_is_503() -> None:
    from app.main import create_app

    app = create_app()

    @app.get("/cut")
    def cut(session: InTransaction) -> None:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
        time.sleep(1)
        session.execute(text("SELECT 1"))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/cut")

    answer = asyncio.run(ask())
    problem(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"]
