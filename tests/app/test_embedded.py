"""The servers that come in wheels: started, found again after a kill, stopped, refused where they cannot work."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from app import embedded
from app.embedded import FolderRefused
from app.programs import Program, runs
from app.programs import start as start_program

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
STRANGER = 12_345


NUMBERS = itertools.count()


@pytest.fixture
def home(run_dir: Path) -> Path:
    """The path of a folder that is yet to be made, short enough for sockets in it."""
    return run_dir / f"home-{next(NUMBERS)}"


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
        address = str(folder.run / "valkey.sock")
        broker = embedded.start_valkey(folder)
        with Redis(unix_socket_path=address) as client:
            client.rpush("queue", "wake")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert stat.S_IMODE(Path(address).stat().st_mode) == 0o700
        broker.stop(5)
        broker = embedded.start_valkey(folder)
        with Redis(unix_socket_path=address) as client:
            assert client.llen("queue") == 1
        broker.stop(5)
        for file in (home / "valkey" / "appendonlydir").glob("*.aof"):
            file.write_bytes(b"no append-only file at all\r\n" * 10)
        broker = embedded.start_valkey(folder)
        with Redis(unix_socket_path=address) as client:
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
        assert not folder.run.exists(), "nothing is left behind"


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
        pytest.raises(FolderRefused, match=r"cannot be used \(.*\): choose another with --data"),
        embedded.folder(home / "data"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres is another user")
def test_as_root_a_folder_behind_a_closed_one_is_refused_and_nothing_is_opened(home: Path) -> None:
    home.mkdir()
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(FolderRefused, match="may not enter"), embedded.folder(closed / "data"):
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


# --- whose folder it is ----------------------------------------------------------------------------------------------


def refuse(home: Path, words: str) -> None:
    with pytest.raises(FolderRefused, match=words) as refusal, embedded.folder(home):
        pass
    assert len(str(refusal.value).splitlines()) == 1


@AS_ROOT
def test_somebody_else_s_folder_is_refused_and_nothing_that_its_links_lead_to_is_touched(home: Path) -> None:
    precious = home.with_suffix(".precious")
    precious.write_text("root's own")
    home.mkdir()
    (home / "lock").symlink_to(precious)
    os.chown(home, STRANGER, STRANGER)
    refuse(home, f"belongs to user {STRANGER}, and this is root")
    assert precious.read_text() == "root's own"
    assert (home.stat().st_uid, [path.name for path in home.iterdir()]) == (STRANGER, ["lock"])


@AS_ROOT
@pytest.mark.parametrize("part", ["store", "jobs", "logs", "home", "cache", "run", "lock"])
def test_a_part_that_somebody_else_left_in_our_folder_is_refused(home: Path, part: str) -> None:
    with embedded.folder(home):
        pass
    if part != "lock":
        (home / part).rmdir()
        (home / part).mkdir()
    os.chown(home / part, STRANGER, STRANGER)
    with (
        pytest.raises((FolderRefused, PermissionError), match=f"{part} belongs to user {STRANGER}"),
        embedded.folder(home),
    ):
        pass


@pytest.mark.parametrize("part", ["store", "jobs", "logs", "home", "cache", "run", "lock"])
def test_a_part_that_is_a_link_is_refused(home: Path, part: str) -> None:
    elsewhere = home.with_suffix(".elsewhere")
    elsewhere.mkdir(mode=0o755)
    home.mkdir()
    (home / part).symlink_to(elsewhere)
    with pytest.raises((FolderRefused, PermissionError), match=f"{part} is a link"), embedded.folder(home):
        pass
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("part", ["postgres", "valkey", "logs/postgres.log", "logs/valkey.log", "run/pg"])
def test_a_server_s_folder_or_log_that_is_a_link_is_refused(home: Path, part: str) -> None:
    elsewhere = home.with_suffix(".elsewhere")
    elsewhere.mkdir()
    with embedded.folder(home) as folder:
        (home / part).symlink_to(elsewhere / "not_made" if part.endswith("log") else elsewhere)
        start = embedded.start_valkey if "valkey" in part else embedded.start_postgres
        with pytest.raises(PermissionError, match="is a link"):
            start(folder)
    assert not list(elsewhere.iterdir())


def test_our_own_link_to_our_own_folder_is_followed(home: Path) -> None:
    real = home.with_suffix(".real")
    home.symlink_to(real)
    with embedded.folder(home) as folder:
        assert folder.home == real


@AS_ROOT
def test_somebody_else_s_link_to_our_own_folder_is_refused(home: Path) -> None:
    real = home.with_suffix(".real")
    real.mkdir()
    home.symlink_to(real)
    os.lchown(home, STRANGER, STRANGER)
    refuse(home, f"is a link of user {STRANGER}'s")
    assert not list(real.iterdir())


def test_a_folder_that_everybody_could_swap_is_refused_and_one_in_a_sticky_folder_is_not(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    refuse(home / "data", "everybody may put another folder in place of")
    assert not (home / "data").exists()
    home.chmod(0o1777)
    with embedded.folder(home / "data"):
        pass


@AS_ROOT
def test_root_s_folder_on_somebody_else_s_way_is_refused(home: Path) -> None:
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)
    refuse(home / "data", f"user {STRANGER} may put another folder in place of")
    os.chown(home, 0, STRANGER)
    home.chmod(0o2775)
    refuse(home / "data", f"group {STRANGER} may put another folder in place of")
    home.chmod(0o755)
    with embedded.folder(home / "data"):
        pass


def test_a_lock_of_an_earlier_version_is_closed_so_that_nobody_else_can_hold_it(home: Path) -> None:
    with embedded.folder(home):
        pass
    (home / "lock").chmod(0o644)
    with embedded.folder(home):
        assert stat.S_IMODE((home / "lock").stat().st_mode) == 0o600
        assert (home / "lock").read_text() == str(os.getpid())


@AS_ROOT
def test_who_takes_the_place_of_the_sockets_first_keeps_nobody_from_starting(home: Path) -> None:
    with embedded.folder(home / ("d" * 90)) as folder:
        taken = folder.run
    taken.mkdir()
    try:
        os.chown(taken, STRANGER, STRANGER)
        with embedded.folder(home / ("d" * 90)) as folder:
            assert folder.run != taken
            assert folder.run.stat().st_uid == os.geteuid()
        assert not folder.run.exists()
    finally:
        taken.rmdir()


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made_by", ["this version", "an earlier one"])
def test_a_cluster_that_listens_admits_nobody_by_the_network(home: Path, made_by: str) -> None:
    with embedded.folder(home) as folder:
        embedded.start_postgres(folder).stop(10)
        rules = home / "postgres" / "pg_hba.conf"
        if made_by == "an earlier one":
            rules.write_text(rules.read_text().replace("reject", "trust") + "host db me 10.0.0.1/32 scram-sha-256\n")
        again = embedded.start_postgres(folder)
        command = again.program.argv
        again.stop(10)
        assert [line.split()[-1] for line in rules.read_text().splitlines() if line.startswith("host")] == [
            *["reject"] * 4,
            *["scram-sha-256"] * (made_by == "an earlier one"),
        ]
        assert rules.stat().st_uid == (home / "postgres").stat().st_uid

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        by_hand = [part if part != "listen_addresses=" else "listen_addresses=127.0.0.1" for part in command]
        listens = Program(
            "Postgres",
            (*by_hand, "-p", port),
            again.program.env,
            folder.logs / "postgres.log",
            user=again.program.user,
            ready=lambda: "ready to accept connections" in (folder.logs / "postgres.log").read_text()[length:],
        )
        length = len((folder.logs / "postgres.log").read_text())
        running = start_program(listens)
        try:
            running.wait_ready(30)
            with pytest.raises(psycopg.OperationalError, match=r"rejects connection|no pg_hba.conf entry"):
                psycopg.connect(host="127.0.0.1", port=port, user="postgres")
        finally:
            running.kill()
