"""Programs that another one starts: where their code and files come from, their logs, and the end of one that is frozen."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import programs
from app.programs import NotOurs, Program, Running, open_own, own_folder, safe_path
from app.serve import _Child, _Service

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
STRANGER = 12_345


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a piece of Python as a program, which is gone at the end."""
    started: list[Running] = []

    def run(code: str, ready: Callable[[], bool] | None = None, **more: Any) -> Running:
        environment = safe_path(os.environ | {"PYTHONFAULTHANDLER": "1"})
        log = tmp_path / "logs" / "it.log"
        patience = None if ready is None else 4 * programs.ROUND_SECONDS
        program = Program("it", (sys.executable, "-c", code), environment, log, ready, patience, **more)
        started.append(programs.start(program))
        return started[-1]

    yield run
    for running in started:
        running.kill()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.02)


# --- whose code and whose files --------------------------------------------------------------------------------------


def test_modules_come_from_our_folder_and_absolute_ones_that_were_named_never_from_where_one_stands(
    tmp_path: Path,
) -> None:
    for name in ("queue", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('another project')")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "own.py").write_text("import queue, app.programs; print(app.programs.__file__)")
    environment = safe_path(os.environ | {"PYTHONPATH": f":.:plugins:{plugins}:"})
    command = [sys.executable, "-m", "own"]
    said = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == programs.__file__
    assert not (tmp_path / "ran").exists()
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(programs.CODE), str(plugins)]


def test_a_program_works_in_the_folder_of_its_log_which_is_closed_to_others(start: Callable[..., Running]) -> None:
    running = start("import os; print(os.getcwd())")
    running.process.wait(30)
    log = running.program.log
    assert log.read_text().strip() == str(log.parent)
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_that_is_a_link_is_refused_and_what_it_leads_to_stays_as_it_is(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "it.log").symlink_to(precious)
    with pytest.raises(NotOurs, match=r"it\.log is a link"):
        start("print('for the log')")
    assert precious.read_text() == "mine"


def test_a_link_is_no_folder_of_ours_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    for name, target in {"to_ours": "real", "to_nothing": "nothing"}.items():
        (tmp_path / name).symlink_to(target)
        with pytest.raises(NotOurs, match="is a link"):
            own_folder(tmp_path / name)
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o755


@AS_ROOT
def test_what_belongs_to_somebody_else_is_refused_with_his_name(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir(mode=0o755)
    file.touch(mode=0o644)
    for path, open_it in ((folder, own_folder), (file, open_own)):
        os.chown(path, STRANGER, STRANGER)
        before = path.stat()
        with pytest.raises(NotOurs, match=f"belongs to user {STRANGER}, and this is root: run as user {STRANGER}"):
            open_it(path)
        assert path.stat() == before


def test_what_is_ours_and_open_to_others_is_closed(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir(mode=0o755)
    file.write_text("kept\n")
    file.chmod(0o644)
    own_folder(folder)
    with open_own(file) as opened:
        opened.write(b"more\n")
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    assert file.read_text() == "kept\nmore\n"


def test_what_is_started_may_open_many_files_and_dumps_no_core() -> None:
    code = (
        "import resource; from app.programs import set_limits; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1])); set_limits(); "
        "import subprocess; print(subprocess.check_output(['sh', '-c', 'ulimit -n; ulimit -c'], text=True))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == [str(min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65_536)), "0"]


# --- logs ------------------------------------------------------------------------------------------------------------


def test_a_log_is_bounded_while_it_is_written_and_its_end_is_kept(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 100_000
    monkeypatch.setattr(programs, "LONGEST_LOG", longest)
    running = start(
        "import os, time\nfor n in range(60_000):\n os.write(1, b'%09d\\n' % n)\n if n % 200 == 0: time.sleep(.01)"
    )
    log, older = running.program.log, running.program.log.with_suffix(".1.log")
    lengths = []
    service = _Service(servers=[_Child(running)])
    while running.alive():
        service.tend()
        lengths.append(log.stat().st_size)
        time.sleep(0.005)
    assert max(lengths) < 2 * longest, "600,000 bytes were written"
    assert older.stat().st_size <= longest
    assert stat.S_IMODE(older.stat().st_mode) == 0o600
    numbers = [int(line) for line in (older.read_text().splitlines()[1:] + log.read_text().splitlines())]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 59_999
    assert len(numbers) > 5_000, "the last of them, but for those of a moment"


# --- frozen ----------------------------------------------------------------------------------------------------------


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
            return connection.recv(1) == b"x"
    except OSError:
        return False


def test_a_frozen_program_is_ended_with_its_group_and_started_again(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "ROUND_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = f"""
import socket, subprocess
print(subprocess.Popen(["sleep", "300"]).pid, flush=True)
with socket.create_server(("127.0.0.1", {port})) as server:
    while True:
        with server.accept()[0] as connection:
            connection.sendall(b"x")
"""
    child = _Child(start(code, lambda: answers(port)))
    first = child.running
    wait_for(lambda: first.answered)
    child.tend()
    assert child.running is first
    assert first.alive()

    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: child.tend() or child.running is not first)
        wait_for(lambda: answers(port))
        assert not first.alive()
        assert not programs.runs(int(first.program.log.read_text().split()[0]), "300")
    finally:
        child.running.kill()
    said = capsys.readouterr().out
    assert f"it has not answered for 1 s and was killed; again in 1 s. Log: {first.program.log}" in said


def test_a_program_that_answers_is_left_alone_and_one_that_starts_has_more_time(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "ROUND_SECONDS", 0.01)
    rounds: list[bool] = []

    def ready() -> bool:
        rounds.append(len(rounds) >= 10)
        return rounds[-1]

    running = start("import time; time.sleep(60)", ready)
    while len(rounds) < 100:
        assert not running.is_frozen()
        time.sleep(0.001)


def test_a_program_that_has_answered_once_and_refuses_now_is_not_frozen(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is full, or busy, is alive: killing it would lose what it is about."""
    monkeypatch.setattr(programs, "ROUND_SECONDS", 0.01)
    asked: list[bool] = []
    running = start("import time; time.sleep(60)", lambda: not running_before(asked), silent=lambda: False)
    while len(asked) < 100:
        assert not running.is_frozen()
        time.sleep(0.001)


def running_before(asked: list[bool]) -> bool:
    """False the first time."""
    asked.append(True)
    return len(asked) > 1


def test_a_program_that_never_answers_is_frozen_after_its_start(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "ROUND_SECONDS", 0.01)
    running = start("import time; time.sleep(60)", lambda: False)
    wait_for(running.is_frozen)


def test_a_python_that_is_ended_for_being_frozen_has_written_where_it_hung(start: Callable[..., Running]) -> None:
    running = start("def stuck():\n print('begins', flush=True)\n while True: pass\nstuck()")
    wait_for(lambda: "begins" in running.last_words())
    running.end_frozen()
    assert not running.alive()
    assert "in stuck" in running.program.log.read_text()
