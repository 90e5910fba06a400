"""A middleman on a Unix socket: between a program and Postgres or Valkey. It may go silent, or strike at a chosen statement.

It lets the harness do what no kill can: deliver a statement, have it executed, and break the connection before the answer
("execute and time out"), or act at the very moment of a claim, a heartbeat or a last word. The programs know nothing of it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

_BLOCK = 1 << 16


def kind_of(sql: str) -> str:
    """A statement's kind: its verb, its table, and the first column that it sets."""
    flat = " ".join(sql.replace('"', "").split())
    if match := re.match(r"(INSERT INTO|UPDATE|DELETE FROM) (\w+)(?: SET (\w+))?", flat, re.IGNORECASE):
        return " ".join(word for word in match.groups() if word)
    if match := re.match(r"SELECT .*? FROM (\w+)", flat, re.IGNORECASE):
        return f"SELECT {match[1]}{' FOR UPDATE' if 'FOR UPDATE' in flat else ''}"
    if match := re.match(r"SELECT (pg_\w+)", flat):
        return f"SELECT {match[1]}"
    return " ".join(flat.split()[:1]) or "ping"


class Proxy:
    """Listens at `path` and passes on to `target`, until `close`.

    `strike` is asked about each statement before it is delivered, by its kind and the client's pid: "pass", "cut" (it is never
    delivered), or "answer" (it is executed, its answer swallowed and the connection broken). It may also act: kill the client, say.
    """

    def __init__(self, path: Path, target: Path, speaks_postgres: bool = False):
        self.seen: Counter[str] = Counter()
        self.strike: Callable[[str, int], str] = lambda kind, pid: "pass"
        self._target, self._speaks_postgres = target, speaks_postgres
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """From now on connections stay open and nothing passes, as when a cable is pulled."""
        self._flowing.clear()

    def resume(self) -> None:
        """New connections pass again; those that were silent are broken, as a dead link's are in the end."""
        self._flowing.set()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection."""
        for end in list(self._open):
            _shut(end)

    def close(self) -> None:
        _shut(self._listener)
        self._flowing.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._target))
            except OSError:  # nobody listens there now
                client.close()
                continue
            self._open |= {client, server}
            _Link(self, client, server, self._speaks_postgres).begin()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, speaks_postgres: bool):
        self._proxy, self._client, self._server, self._speaks_postgres = proxy, client, server, speaks_postgres
        self._pid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self._swallowing = threading.Event()
        self._named: dict[bytes, str] = {}

    def begin(self) -> None:
        requests = self._read_requests if self._speaks_postgres else lambda: self._copy(self._client, self._server)
        for pump in (
            requests,
            self._read_answers if self._speaks_postgres else lambda: self._copy(self._server, self._client),
        ):
            threading.Thread(target=self._until_broken, args=(pump,), daemon=True).start()

    def _until_broken(self, pump: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError, struct.error):
            pump()
        for end in (self._client, self._server):
            _shut(end)
            self._proxy._open.discard(end)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        while block := source.recv(_BLOCK):
            self._proxy._flowing.wait()
            sink.sendall(block)

    def _read_requests(self) -> None:
        length = _exactly(self._client, 4)
        self._server.sendall(length + _exactly(self._client, struct.unpack("!I", length)[0] - 4))
        request, sql = b"", ""
        while True:
            message = _message(self._client)
            request += message
            sql = self._statement(message) or sql
            if message[:1] not in (b"Q", b"S", b"X", b"p"):
                continue  # Parse, Bind, Describe, Execute: the request ends with Sync
            self._proxy._flowing.wait()
            if message[:1] in (b"Q", b"S"):
                kind = kind_of(sql)
                self._proxy.seen[kind] += 1
                verdict = self._proxy.strike(kind, self._pid)
                if verdict == "cut":
                    return
                if verdict == "answer":
                    self._swallowing.set()
            self._server.sendall(request)
            request, sql = b"", ""

    def _statement(self, message: bytes) -> str | None:
        body = message[5:]
        if message[:1] == b"Q":
            return body.rstrip(b"\0").decode(errors="replace")
        if message[:1] == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._named[name] = text.decode(errors="replace")
            return self._named[name]
        if message[:1] == b"B":
            return self._named.get(body.split(b"\0", 2)[1])
        return None

    def _read_answers(self) -> None:
        while True:
            message = _message(self._server)
            if not self._swallowing.is_set():
                self._proxy._flowing.wait()
                self._client.sendall(message)
            elif message[:1] == b"Z":  # ready for the next: the statement has been executed
                return


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(source: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        block = source.recv(length - len(data))
        if not block:
            raise EOFError
        data += block
    return bytes(data)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
