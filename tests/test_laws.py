"""What the design promises about the source, held by reading it. The layers are import-linter's, in pyproject.toml."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from app.errors import PROBLEMS
from app.settings import Settings
from app.spec.failures import FAILURES

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("app", "worker")
MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "service", "handler", "misc"}

# The first on the import path: whoever asks for Keras, or for what brings it, fails at once.
WITHOUT_KERAS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"jax", "keras", "tensorflow", "torch"}:
            raise ImportError(f"{name} is blocked by a test")

sys.meta_path.insert(0, Blocked())
"""


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "vendor" not in path.parts)


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def python(code: str) -> subprocess.CompletedProcess[str]:
    # Addresses where nobody listens: to start, a program needs no database to be up.
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "BROKER_URL": "redis://127.0.0.1:9/0"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- what starts without Keras ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("from app.main import create_app; create_app()", id="the API"),
        pytest.param("from app import methods; assert methods.kinds()", id="the catalog of methods"),
        pytest.param("import app.cli", id="the command line"),
        pytest.param("import worker.main", id="the Celery app"),
        pytest.param("import worker.supervisor, worker.trainers, worker.reports", id="the supervisor"),
    ],
)
def test_starts_with_keras_and_tensorflow_blocked(code: str) -> None:
    answer = python(WITHOUT_KERAS + code)
    assert answer.returncode == 0, answer.stderr


def test_the_block_blocks() -> None:
    answer = python(WITHOUT_KERAS + "import keras")
    assert answer.returncode != 0
    assert "keras is blocked by a test" in answer.stderr


# --- who imports, commits and writes ---------------------------------------------------------------------------------


def test_the_import_contracts_hold() -> None:
    line = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    answer = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_training_imports_from_us_only_specs_data_durable_files_and_reports() -> None:
    allowed = re.compile(r"(app\.(spec|data|durable)|worker\.(reports|training))(\.|$)")
    strangers = [
        f"{place(path, node)} imports {name}"
        for path in sources("worker/training")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
        if name.partition(".")[0] in PROGRAMS and not allowed.match(name)
    ]
    assert not strangers, strangers


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports; `from app import data` is app.data."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        if node.module in (*PROGRAMS, "worker.training"):
            return [f"{node.module}.{alias.name}" for alias in node.names]
        return [node.module]
    return []


def circle(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a ring, the first one again at the end; [] where there is none. `texts`: source by module.

    Every import counts: within a function, and for types alone.
    """
    graph = {
        name: {module for node in ast.walk(ast.parse(text)) for module in modules_of(node, texts)} - {name}
        for name, text in texts.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def modules_of(node: ast.AST, known: Mapping[str, str]) -> set[str]:
    """The `known` modules that a statement imports: `from app import data` is app.data, and `from app.data import load` too."""
    names = set[str]()
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports name the whole module"
        names = {one if (one := f"{node.module}.{alias.name}") in known else str(node.module) for alias in node.names}
    return names & known.keys()


def test_no_files_import_each_other_in_a_circle() -> None:
    texts = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in sources(*PROGRAMS)
    }
    assert len(texts) > 100
    assert not circle(texts)


@pytest.mark.parametrize(
    "back",
    [
        "import app.a",
        "from app.a import one",
        "from app import a",
        "def late() -> None:\n    from app.a import one",
        "if TYPE_CHECKING:\n    from app.a import one",
    ],
)
def test_a_circle_is_found_whichever_way_it_is_closed(back: str) -> None:
    texts = {"app": "", "app.a": "from app.b import two", "app.b": "from app import c", "app.c": back}
    assert sorted(circle(texts)[1:]) == ["app.a", "app.b", "app.c"]
    assert circle({**texts, "app.c": ""}) == []


def test_only_the_database_module_commits() -> None:
    commits = [
        place(path, node)
        for path in sources(*PROGRAMS)
        if path != ROOT / "app/db.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]
    assert not commits, f"only app/db.py may commit: {commits}"
    assert ".commit()" in (ROOT / "app/db.py").read_text()


def test_only_jobs_writes_a_state() -> None:
    # worker/training has no jobs, and its models and generators have states of their own.
    files = [path for path in sources(*PROGRAMS) if ROOT / "worker/training" not in path.parents]
    writes = [
        place(path, node)
        for path in files
        if path != ROOT / "app/jobs.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if writes_state(node)
    ]
    assert not writes, f"only app/jobs.py may write a job's state: {writes}"
    assert any(writes_state(node) for node in ast.walk(ast.parse((ROOT / "app/jobs.py").read_text())))


def writes_state(node: ast.AST) -> bool:
    """`job.state = …`, setattr(job, "state", …), Job(state=…), update(Job).values(state=…), or SET state in SQL."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        flat = [inner for target in targets for inner in (target.elts if isinstance(target, ast.Tuple) else [target])]
        return any(isinstance(target, ast.Attribute) and target.attr == "state" for target in flat)
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called == "setattr":
            return any(isinstance(argument, ast.Constant) and argument.value == "state" for argument in node.args)
        return called in {"Job", "values"} and any(keyword.arg == "state" for keyword in node.keywords)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.search(r"\bset\s+state\s*=", node.value, re.IGNORECASE) is not None
    return False


@pytest.mark.parametrize(
    ("statement", "writes"),
    [
        ("job.state = 'failed'", True),
        ("job.stage, job.state = None, new", True),
        ("setattr(job, 'state', new)", True),
        ("update(Job).values(state='queued')", True),
        ("tables.Job(id=1, state='queued')", True),
        ("text('UPDATE jobs SET state = 1')", True),
        ("job.state == 'failed'", False),
        ("jobs.page(session, state='queued')", False),
        ("state = job.state", False),
    ],
)
def test_a_write_of_a_state_is_told_from_a_look_at_it(statement: str, writes: bool) -> None:
    assert any(writes_state(node) for node in ast.walk(ast.parse(statement))) is writes


# What renames or syncs besides `durable`: content whose name is its hash, whole folders, and moves of what is only passed on.
RENAMING = {
    "app/artifacts.py",
    "app/durable.py",
    "app/data/uploads.py",
    "app/embedded.py",
    "app/model_files/upload.py",
    "worker/folders.py",
    "worker/training/fitting/checkpoint.py",
}


def test_files_that_must_be_whole_are_written_by_one_function() -> None:
    renaming = {
        str(path.relative_to(ROOT))
        for path in sources(*PROGRAMS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and renames(node)
    }
    assert renaming == RENAMING


def renames(call: ast.Call) -> bool:
    """`path.rename(other)`, `path.replace(other)`, `os.replace(…)`, `os.fsync(…)`; a text's `replace` has two arguments."""
    match call.func:
        case ast.Attribute(attr="rename" | "fsync"):
            return True
        case ast.Attribute(value=ast.Name(id="os"), attr="replace"):
            return True
        case ast.Attribute(attr="replace"):
            return len(call.args) == 1 and not call.keywords
    return False


def branches(tree: ast.AST, words: set[str]) -> Iterator[ast.expr]:
    """Where a program does one thing or another by one of `words`: in a comparison, a pattern of `match`, or the key of a table."""
    for node in ast.walk(tree):
        parts: list[ast.expr | None] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = list(node.keys)
        for part in parts:
            among = part.elts if isinstance(part, ast.Tuple | ast.List | ast.Set) else [part]
            yield from (one for one in among if isinstance(one, ast.Constant) and one.value in words)


VARIANTS = {
    "task type": ("app/spec/tasks", "worker/training/tasks"),
    "input kind": ("app/data/inputs", "worker/training/data/inputs"),
}
"""What has a module for each name, in two halves."""


@pytest.mark.parametrize("what", VARIANTS)
def test_nothing_outside_its_modules_branches_on_a(what: str) -> None:
    free, learning = (ROOT / folder for folder in VARIANTS[what])
    names = {path.stem for path in free.glob("[a-z]*.py")}
    assert len(names) > 1
    assert all((learning / f"{name}.py").is_file() for name in names), "each has both halves"
    found = [
        f"{place(path, node)}: {node.value!r}"
        for path in sources(*PROGRAMS)
        if not (path.stem in names and path.parent in (free, learning))
        for node in branches(ast.parse(path.read_text()), names)
        if isinstance(node, ast.Constant)
    ]
    assert not found, found


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("task.type == 'binary'", 1),
        ("task.type not in ('binary', 'multiclass')", 2),
        ("match kind:\n    case 'binary' | 'multiclass':\n        pass", 2),
        ("{'binary': 1, 'regression': 2}.get(kind)", 1),
        ("Task('binary')", 0),
        ("form = {'format': 'binary'}", 0),
        ("kind == other", 0),
    ],
)
def test_a_branch_is_told_from_a_mention(statement: str, count: int) -> None:
    assert len(list(branches(ast.parse(statement), {"binary", "multiclass"}))) == count


# --- how the source is kept ------------------------------------------------------------------------------------------


def test_no_file_is_longer_than_one_sitting() -> None:
    files = [*sources("app", "worker", "tests", "benchmarks"), ROOT / "dev"]
    long = {
        str(path.relative_to(ROOT)): lines for path in files if (lines := path.read_text().count("\n")) > MOST_LINES
    }
    assert not long, f"over {MOST_LINES} lines: {long}"


def test_what_tests_share_does_not_live_in_a_test() -> None:
    shared = [
        f"{place(path, node)} imports {name}"
        for path in sources("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported_anywhere(node)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]
    assert not shared, shared


def imported_anywhere(node: ast.AST) -> list[str]:
    """The modules that a statement imports, and those whose names it might: `from tests import test_laws` is tests.test_laws."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def test_no_function_is_longer_than_a_page() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": lines
        for path in [*sources("app", "worker", "tests", "benchmarks"), ROOT / "dev"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long, f"over {MOST_LINES_OF_A_FUNCTION} lines: {long}"


def test_both_packages_say_that_they_are_typed() -> None:
    assert all((ROOT / name / "py.typed").is_file() for name in PROGRAMS)


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [str(path) for path in sources(*PROGRAMS) if VAGUE_NAMES & set(path.stem.split("_"))]
    assert not vague, vague


def test_no_path_of_somebodys_machine_is_in_the_source() -> None:
    path_of_a_machine = re.compile(r"(?<![\w.}/])/(?:home|root|Users|work|mnt|workspace)/[\w.]")
    names = ["dev", "Dockerfile", "docker-compose.yml", "README.md", "pyproject.toml", ".ci/run"]
    files = [*sources("app", "worker", "migrations", "tests", "benchmarks"), *(ROOT / "docs").rglob("*.md")]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in [*files, *(ROOT / name for name in names)]
        for match in path_of_a_machine.finditer(path.read_text())
    ]
    assert not found, found


# --- what is documented ----------------------------------------------------------------------------------------------


def documentation() -> str:
    return "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def test_every_setting_is_documented() -> None:
    text = documentation()
    names = [field.alias for field in Settings.model_fields.values()]
    assert all(names), "every setting has the name of its environment variable as its alias"
    missing = [name for name in names if name and f"`{name}`" not in text]
    assert not missing, f"neither in README.md nor in docs/: {missing}"


def test_no_text_or_program_names_a_variable_that_is_not_documented() -> None:
    """A hint that says "raise BEQUEST_MAX_SOMETHING" must name a variable that there is."""
    text = documentation()
    found = {
        (name, str(path.relative_to(ROOT)))
        for path in [*sources(*PROGRAMS), ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
        for name in re.findall(r"\bBEQUEST_[A-Z_]*[A-Z]\b", path.read_text())
    }
    assert found
    unknown = sorted((name, path) for name, path in found if f"`{name}`" not in text)
    assert not unknown, unknown


def test_every_documented_setting_exists() -> None:
    names = {field.alias for field in Settings.model_fields.values()}
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert rows
    assert set(rows) == names


def test_every_error_code_is_documented_with_its_status_or_blame() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    refused, failed = page.split("## Why a job failed")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", refused, re.MULTILINE))
    assert rows == {code: str(problem.status) for code, problem in PROBLEMS.items()}
    blames = {
        code: (blame, retry == "yes")
        for code, blame, retry in re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \|", failed, re.MULTILINE)
    }
    assert blames == {code: (str(failure.blame), failure.retryable) for code, failure in FAILURES.items()}


# --- what is locked --------------------------------------------------------------------------------------------------

LOCKS = sorted(ROOT.glob("requirements*.lock"))


def pins(lock: Path) -> set[str]:
    """{"name==version ; marker"} of a lock."""
    return {line.removesuffix("\\").strip() for line in lock.read_text().splitlines() if re.match(r"[a-z0-9]", line)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_host_and_has_a_hash_for_everything(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(#|--(?!hash=sha256:)|-\w)", text, re.MULTILINE)
    requirements = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(requirements) >= 5
    unpinned = [
        line
        for line in requirements
        if not re.match(r"[a-z0-9.-]+(\[[\w,-]+\])?==", line) or "--hash=sha256:" not in line
    ]
    assert not unpinned


def test_a_package_has_one_version_in_all_locks() -> None:
    tested = {pin.partition("==")[0]: set() for pin in pins(ROOT / "requirements.lock")}
    for pin in pins(ROOT / "requirements.lock"):
        tested[pin.partition("==")[0]].add(pin.partition(" ;")[0])
    differing = {
        f"{lock.name}: {pin}"
        for lock in LOCKS
        for pin in pins(lock)
        if (name := pin.partition("==")[0]) in tested and pin.partition(" ;")[0] not in tested[name]
    }
    assert len(LOCKS) == 5
    assert not differing


def test_only_the_worker_images_hold_tensorflow() -> None:
    holding = {lock.name for lock in LOCKS if any(pin.startswith("tensorflow==") for pin in pins(lock))}
    assert holding == {"requirements.lock", "requirements-worker.lock", "requirements-gpu.lock"}
