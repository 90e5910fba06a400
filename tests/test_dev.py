"""./dev, run as a person runs it, on a copy of its own whose Python and packages are fakes: nothing is installed."""

from __future__ import annotations

import ast
import contextlib
import importlib.machinery
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

# Stands for any python and any program of .venv: it writes down how it was called and does what little is asked of it.
FAKE = """#!{python} -IS
import os, sys, time
with open({calls!r}, "a") as calls:
    calls.write(" ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
line = " ".join(sys.argv[1:])
if "python_version" in line:
    print({version!r})
elif line == "-c import venv, ensurepip":
    sys.exit(int(os.environ.get("FAKE_NO_VENV", "0")))
elif line.startswith("-m venv"):
    folder = os.path.join(sys.argv[-1], "bin")
    os.makedirs(folder, exist_ok=True)
    for name in ("python", "bequest", "ruff", "mypy", "lint-imports"):
        with open(os.path.join(folder, name), "w") as copy:
            copy.write(open(__file__).read())
        os.chmod(os.path.join(folder, name), 0o755)
elif line.startswith("-m pip"):
    time.sleep(float(os.environ.get("FAKE_PIP_SECONDS", "0")))
    print(os.environ.get("FAKE_PIP_SAYS", ""), end="\\n" * ("FAKE_PIP_SAYS" in os.environ), file=sys.stderr)
    sys.exit(1 if "FAKE_PIP_SAYS" in os.environ else 0)
else:
    print("pid", os.getpid())
    sys.exit(int(os.environ.get("FAKE_" + os.path.basename(sys.argv[0]), "0")))
"""


def _hear_interrupts() -> None:
    """As at a terminal: what a shell starts in the background inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Checkout:
    """A folder with `dev` in it, and what a machine around it looks like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.folder.mkdir()
        shutil.copy(ROOT / "dev", self.folder / "dev")
        (self.folder / "requirements.lock").write_text("nothing==1.0 --hash=sha256:" + 64 * "0" + "\n")
        (self.folder / "pyproject.toml").write_text("[project]\nname = 'nothing'\n")
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.calls_file = folder / "calls"
        self.environment = {"PATH": str(self.programs), "HOME": str(folder / "home"), "LANG": "C.UTF-8"}

    def has(self, name: str, version: str) -> Path:
        path = self.programs / name
        path.write_text(FAKE.format(python=sys.executable, calls=str(self.calls_file), version=version))
        path.chmod(0o755)
        return path

    def start(self, *arguments: str, running: str = "/nowhere/python3.9", **environment: str) -> subprocess.Popen[str]:
        """`./dev ARGUMENTS` under a Python that calls itself `running`, which does not suit unless it is said to."""
        run = (
            "import runpy, sys; sys._base_executable = sys.argv.pop(1); sys.argv.pop(0);"
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        return subprocess.Popen(
            [sys.executable, "-c", run, running, str(self.folder / "dev"), *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_interrupts,  # noqa: PLW1509 - one system call, no lock taken
        )

    def dev(self, *arguments: str, **options: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def calls(self) -> list[str]:
        """What was called since the last look, but for the questions after a version."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [line for line in lines if "python_version" not in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    """Set up already, with a Python 3.12."""
    checkout.has("python3.12", "3.12.4")
    assert checkout.dev("setup")[0] == 0
    checkout.calls()
    return checkout


def refusal(answer: tuple[int, str, str]) -> str:
    """The one sentence on stderr of a run that was refused."""
    code, _, err = answer
    assert code == 1
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("dev: ")
    return last


# --- which Python


def test_an_old_python_can_read_the_script() -> None:
    ast.parse((ROOT / "dev").read_text(), feature_version=(3, 9))


def test_without_a_suitable_python_it_says_which_it_needs(checkout: Checkout) -> None:
    checkout.has("python3.10", "3.10.1")
    sentence = refusal(checkout.dev("setup"))
    assert "needs Python 3.11, 3.12 or 3.13" in sentence
    assert "BEQUEST_PYTHON=" in sentence
    assert checkout.calls() == []


def test_a_name_that_lies_about_its_version_is_passed_over(checkout: Checkout) -> None:
    checkout.has("python3.13", "3.14.0")
    checkout.has("python3.11", "3.11.9")
    code, out, _ = checkout.dev("setup")
    assert code == 0
    assert f"$ {checkout.programs}/python3.11 -m venv --clear .venv" in out


def test_a_name_that_leads_nowhere_does_not_hide_a_good_one_later_on_path(checkout: Checkout, tmp_path: Path) -> None:
    """As pyenv's shims do for versions that are not chosen."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "python3.13").write_text("#!/bin/sh\nexit 127\n")
    (shims / "python3.13").chmod(0o755)
    good = checkout.has("python3.13", "3.13.2")
    assert f"$ {good} -m venv" in checkout.dev("setup", PATH=f"{shims}:{checkout.programs}")[1]


def test_the_running_python_comes_first_and_then_the_newest_on_path(checkout: Checkout) -> None:
    for minor in ("3.11", "3.12"):
        checkout.has(f"python{minor}", f"{minor}.2")
    running = str(checkout.programs / "python3.11")
    assert "/python3.11 -m venv" in checkout.dev("setup", running=running)[1]
    shutil.rmtree(checkout.folder / ".venv")
    assert "/python3.12 -m venv" in checkout.dev("setup")[1]


def test_the_python_asked_for_is_taken_or_refused_but_not_replaced(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    mine = checkout.has("mine", "3.13.1")
    assert "/bin/mine -m venv" in checkout.dev("setup", BEQUEST_PYTHON=str(mine))[1]
    old = checkout.has("old", "3.10.2")
    assert "Python 3.10.2" in refusal(checkout.dev("setup", BEQUEST_PYTHON=str(old)))
    assert "does not run" in refusal(checkout.dev("setup", BEQUEST_PYTHON="/nowhere/python"))


def test_a_python_without_venv_gets_debians_remedy(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    assert "apt install python3.12-venv" in refusal(checkout.dev("setup", FAKE_NO_VENV="1"))
    assert not (checkout.folder / ".venv").exists()


# --- whether there is room, and where


def test_too_little_disk_is_said_before_anything_is_done(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    sentence = refusal(checkout.dev("setup", BEQUEST_DEV_VENV_GIB="1000000"))
    assert "too little disk" in sentence
    assert "1000000.0 GiB are needed" in sentence
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's home is closed to the embedded database's user")
def test_a_checkout_in_roots_home_is_refused_with_the_reason(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    sentence = refusal(checkout.dev("test", HOME=str(checkout.folder.parent)))
    assert "lies in root's home" in sentence
    assert "Move the checkout" in sentence
    assert checkout.calls() == []


# --- setting up, and not again


def test_setting_up_installs_the_lock_by_hash_and_then_the_checkout(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    code, out, err = checkout.dev("setup")
    assert (code, err) == (0, "")
    assert checkout.calls() == [
        "python3.12 -c import venv, ensurepip",
        f"python3.12 -m venv --clear {checkout.folder}/.venv",
        "python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock",
        "python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --quiet -e .",
    ]
    assert "$ .venv/bin/python -m pip install" in out


def test_what_is_set_up_is_not_set_up_again(ready: Checkout) -> None:
    code, out, _ = ready.dev("setup")
    assert code == 0
    assert out == "dev: ready: .venv\n"
    assert ready.calls() == []


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_file_updates_what_stands(ready: Checkout, name: str) -> None:
    path = ready.folder / name
    path.write_text(path.read_text() + "# changed\n")
    assert ready.dev("setup")[0] == 0
    calls = ready.calls()
    assert any("--require-hashes" in call for call in calls)
    assert not any("-m venv" in call for call in calls)


def test_another_python_makes_it_anew(ready: Checkout) -> None:
    newer = ready.has("newer", "3.13.0")
    assert ready.dev("setup", BEQUEST_PYTHON=str(newer))[0] == 0
    assert any(call.startswith("newer -m venv --clear") for call in ready.calls())


def test_an_interrupted_set_up_is_done_again_from_nothing(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    process = checkout.start("setup", FAKE_PIP_SECONDS="60")
    until = time.monotonic() + 30
    while "pip install" not in (checkout.calls_file.read_text() if checkout.calls_file.exists() else ""):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f'File "{checkout.folder}/dev"' not in err
    checkout.calls()
    assert checkout.dev("setup")[0] == 0
    assert any("-m venv --clear" in call for call in checkout.calls())


def test_an_update_that_failed_is_no_longer_ready(ready: Checkout) -> None:
    lock = ready.folder / "requirements.lock"
    lock.write_text(lock.read_text() + "\n")
    assert "pip failed" in refusal(ready.dev("setup", FAKE_PIP_SAYS="something unheard of"))
    ready.calls()
    assert ready.dev("setup")[0] == 0
    assert any("-m venv --clear" in call for call in ready.calls())


def test_two_at_once_wait_for_each_other_and_set_up_once(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    both = [checkout.start("setup", FAKE_PIP_SECONDS="1") for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("another ./dev is setting up" in out for out, _ in answers) == 1
    assert sum("-m venv" in call for call in checkout.calls()) == 1


# --- pip's troubles, each in a sentence


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "the disk filled up",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "not the one that requirements.lock names",
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("WARNING: Retrying … NameResolutionError: Temporary failure in name resolution", "no network"),
        ("ERROR: No matching distribution found for tensorflow==2.21.0", "no build of it for this machine"),
        ("ERROR: something unheard of", "pip failed (exit 1"),
    ],
)
def test_what_pip_says_becomes_one_sentence(checkout: Checkout, said: str, sentence: str) -> None:
    checkout.has("python3.12", "3.12.4")
    answer = checkout.dev("setup", FAKE_PIP_SAYS=said)
    assert sentence in refusal(answer)
    assert said in answer[2]


@pytest.mark.slow
def test_no_network_is_said_with_what_to_do(checkout: Checkout) -> None:
    """With a real environment and a real pip, whose index is a port where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        answer = checkout.dev(
            "setup",
            running=sys._base_executable,  # type: ignore[attr-defined]
            PIP_INDEX_URL=index,
            PIP_RETRIES="1",
            PIP_CONFIG_FILE=os.devnull,
        )
    assert "no network" in refusal(answer)
    assert "PIP_INDEX_URL" in refusal(answer)


# --- the commands


def test_the_arguments_of_test_go_to_pytest_and_its_status_comes_back(ready: Checkout) -> None:
    process = ready.start("test", "-k", "one or two", "--maxfail=1", FAKE_python="5")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 5
    assert ready.calls() == ["python -m pytest -k one or two --maxfail=1"]
    assert "$ .venv/bin/python -m pytest -k 'one or two' --maxfail=1" in out


def test_the_long_tests_are_asked_for_by_a_word_of_pytest(ready: Checkout, pytestconfig: pytest.Config) -> None:
    assert ready.dev("test", "--all")[0] == 0
    assert ready.calls() == ["python -m pytest --all"]
    assert pytestconfig.getoption("--all") in (True, False)


@pytest.mark.parametrize("command", ["demo", "examples", "serve"])
def test_demo_and_serve_become_the_program_so_that_signals_reach_it(ready: Checkout, command: str) -> None:
    process = ready.start(command, "--port", "8123")
    out, _ = process.communicate(timeout=60)
    assert ready.calls() == [f"bequest {command} --port 8123"]
    assert f"pid {process.pid}\n" in out


def test_demo_sets_up_by_itself(checkout: Checkout) -> None:
    checkout.has("python3.12", "3.12.4")
    assert checkout.dev("demo", "--quick")[0] == 0
    assert checkout.calls()[-1] == "bequest demo --quick"


def test_lint_runs_every_tool_even_after_one_found_faults(ready: Checkout) -> None:
    assert refusal(ready.dev("lint", FAKE_mypy="1")) == "dev: lint found faults: mypy (see above)."
    assert ready.calls() == ["ruff check", "ruff format --check", "mypy", "lint-imports"]
    assert ready.dev("lint")[0] == 0


def test_pre_commit_runs_what_lint_runs(ready: Checkout) -> None:
    assert ready.dev("lint")[0] == 0
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"], "no host is asked for hooks"
    entries = [hook["entry"].removeprefix(".venv/bin/") for repo in config["repos"] for hook in repo["hooks"]]
    assert ready.calls() == entries


def test_what_it_does_not_know_it_says(checkout: Checkout) -> None:
    assert "'tset' is no command" in refusal(checkout.dev("tset"))
    assert "takes no arguments" in refusal(checkout.dev("setup", "--fast"))
    assert "needs uv" in refusal(checkout.dev("lock"))
    assert checkout.calls() == []


def test_help_names_every_command(checkout: Checkout) -> None:
    code, out, _ = checkout.dev()
    assert code == 0
    for command in ("demo", "examples", "serve", "test", "setup", "lint", "lock"):
        assert f"./dev {command}" in out


def test_a_lock_loses_the_lines_that_name_an_index_and_may_name_no_other_host() -> None:
    dev = loaded()
    text = "--index-url https://mirror.test/simple\n# note\na==1 \\\n    --hash=sha256:00\n"
    assert dev.without_hosts(text) == "a==1 \\\n    --hash=sha256:00\n"
    with pytest.raises(dev.Refused, match="would hold a host"):
        dev.without_hosts("a @ https://files.test/a.whl\n")


@pytest.mark.parametrize(("system", "refused"), [("linux", False), ("darwin", True), ("win32", True)])
def test_other_systems_than_linux_are_refused(system: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's parent-death signal, /proc and a clock that counts sleep are needed everywhere."""
    script = loaded()
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(script.Refused, match="runs on Linux") if refused else contextlib.nullcontext():
        script.refuse_other_systems()


def loaded() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("dev_script", str(ROOT / "dev"))
    spec = importlib.util.spec_from_loader("dev_script", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
