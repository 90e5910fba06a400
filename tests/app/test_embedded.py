"""The servers that come in wheels: started, found again after a kill, stopped, refused where they cannot work."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from app import embedded
from app.embedded import Refused
from app.programs import runs


@pytest.fixture
def home(run_dir: Path, request: pytest.FixtureRequest) -> Path:
    return run_dir / request.node.name[:40].replace("[", "-").replace("]", "")


def test_postgres_keeps_what_was_committed_over_a_kill_of_everything(home: Path) -> None:
    with embedded.folder(home) as folder:
        server = embedded.start_postgres(folder)
        with psycopg.connect(embedded.database_url(folder)) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (42)")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        assert (home / "postgres" / "postmaster.pid").exists(), "a stale file, as after a crash"
        again = embedded.start_postgres(folder)
        try:
            with psycopg.connect(embedded.database_url(folder)) as connection:
                assert connection.execute("SELECT n FROM kept").fetchall() == [(42,)]
        finally:
            again.stop(10)
        assert again.process.returncode == 0


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(home: Path) -> None:
    with embedded.folder(home) as folder:
        embedded.start_postgres(folder).stop(10)
        (home / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{home}/postgres\n")
        (home / "valkey").mkdir(mode=0o700, exist_ok=True)
        (home / "valkey" / "pid").write_text(str(os.getpid()))
        server, broker = embedded.start_postgres(folder), embedded.start_valkey(folder)
        server.stop(10)
        broker.stop(5)


def test_valkey_keeps_messages_over_a_restart_and_starts_empty_where_it_cannot_read_them(home: Path) -> None:
    with embedded.folder(home) as folder:
        socket = str(folder.run / "valkey.sock")
        broker = embedded.start_valkey(folder)
        with Redis(unix_socket_path=socket) as client:
            client.rpush("queue", "wake")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert stat.S_IMODE(Path(socket).stat().st_mode) == 0o700
        broker.stop(5)
        broker = embedded.start_valkey(folder)
        with Redis(unix_socket_path=socket) as client:
            assert client.llen("queue") == 1
        broker.stop(5)
        for file in (home / "valkey" / "appendonlydir").glob("*.aof"):
            file.write_bytes(b"no append-only file at all\r\n" * 10)
        broker = embedded.start_valkey(folder)
        with Redis(unix_socket_path=socket) as client:
            assert client.llen("queue") == 0
        broker.stop(5)


def test_sockets_lie_elsewhere_where_the_folder_s_path_is_long_or_odd(home: Path) -> None:
    for name in ("d" * 90, "with space"):
        with embedded.folder(home / name) as folder:
            assert folder.run.parent != folder.home
            assert stat.S_IMODE(folder.run.stat().st_mode) in (0o700, 0o711)
            broker = embedded.start_valkey(folder)
            with Redis.from_url(embedded.broker_url(folder).replace("redis+socket", "unix")) as client:
                assert client.ping()
            broker.stop(5)


def test_a_second_service_on_the_folder_is_refused_with_the_first_one_s_number(home: Path) -> None:
    with embedded.folder(home):
        code = f"from app import embedded\nfrom pathlib import Path\nwith embedded.folder(Path({str(home)!r})): pass"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"another bequest (process {os.getpid()})" in answer.stderr
    with embedded.folder(home):
        pass


def test_the_data_folder_is_closed_to_others(home: Path) -> None:
    with embedded.folder(home) as folder:
        assert not stat.S_IMODE(folder.home.stat().st_mode) & 0o066, (
            "others may pass through for Postgres, and read nothing"
        )
        for part in ("store", "jobs", "logs"):
            assert stat.S_IMODE((folder.home / part).stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_refused_in_one_sentence(home: Path) -> None:
    home.write_text("a file")
    with (
        pytest.raises(Refused, match=r"cannot be used \(.*\): choose another with --data"),
        embedded.folder(home / "data"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres is another user")
def test_as_root_a_folder_behind_a_closed_one_is_refused_and_nothing_is_opened(home: Path) -> None:
    home.mkdir()
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Refused, match="may not enter"), embedded.folder(closed / "data"):
        pass
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert not (closed / "data").exists()


def test_nothing_outlives_the_program_that_started_it(home: Path) -> None:
    code = f"""
import time
from pathlib import Path
from app import embedded
with embedded.folder(Path({str(home)!r})) as folder:
    print(embedded.start_postgres(folder).process.pid, embedded.start_valkey(folder).process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        postgres, valkey = map(int, parent.stdout.readline().split())
        assert runs(postgres, str(home / "postgres"))
        parent.kill()
    until = time.monotonic() + 15
    while runs(postgres, str(home / "postgres")) or runs(valkey, str(home / "valkey")):
        assert time.monotonic() < until
        time.sleep(0.05)
