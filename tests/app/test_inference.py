"""The API's connections to the inference program."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from app import inference
from app.settings import settings

THREADS = 30  # more than httpx keeps idle connections by itself


class Server(ThreadingHTTPServer):
    request_queue_size = THREADS
    together = threading.Barrier(THREADS, timeout=30)
    connections = 0

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.together.wait()
        body = json.dumps({"predictions": {}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(settings(), "inference_url", address)
        client = inference._connected(address)  # before the threads come, each of which might make one
        yield server
        client.close()  # the server waits for its connections to end
        inference._connected.cache_clear()
        server.shutdown()
        thread.join()


def test_no_connection_is_closed_that_another_thread_may_be_taking_up(server: Server) -> None:
    def ask(_: int) -> dict[str, list[object]]:
        return inference.predict(Path("model.keras"), np.ones((1, 1), np.float32))

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(3):
            assert list(threads.map(ask, range(THREADS))) == [{}] * THREADS
    assert server.connections == THREADS
