"""The HTTP side of the scripted model API: who asks, what is logged, bytes in and out. It knows no vendor."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import anthropic, openai
from .script import Turn, turn, words

# A key that begins so is refused.
BAD = "bad"


@dataclass
class Asked:
    """One request, for tests. key: the proof that came with it."""

    path: str
    key: str
    text: str
    model: str
    results: int
    body: dict[str, Any] = field(repr=False, default_factory=dict)


class ModelApi:
    """The server, in threads of its own. Use as `with ModelApi() as api: api.url`.

    well: no script fails or meets a limit any more. otherwise: the script of a text that has none.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.asked: list[Asked] = []
        self.seen: dict[str, int] = {}
        self.well = False
        self.otherwise = ""
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._host = host
        api = self

        class Bound(_Handler):
            owner = api

        self._server = _Server((host, port), Bound)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def turn(self, text: str, results: list[str]) -> Turn:
        made = turn(text, results, self.seen, self.otherwise)
        if self.well and (made.fail or made.limit):
            return Turn(words("well again"))
        return made

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ModelApi:
        self.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Programs are killed while they ask; any other defect is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ModelApi

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/asked":
            self._json(200, [vars(each) | {"body": None} for each in self.owner.asked])
        elif path.endswith("/models"):
            self._json(200, {"object": "list", "data": [{"id": "scripted", "object": "model"}], "models": []})
        else:
            self._json(404, {"error": {"message": f"nothing at {path}"}})

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self._body()
        vendor: Any = anthropic if path.endswith(("/messages", "/count_tokens")) else openai
        if path.endswith("/count_tokens"):
            self._json(200, {"input_tokens": 100})
        elif path.endswith(("/messages", "/responses", "/chat/completions")):
            self._answer(vendor, path, body)
        else:
            self._json(404, {"error": {"message": f"nothing at {path}"}})

    def _answer(self, vendor: Any, path: str, body: dict[str, Any]) -> None:
        text, results = vendor.read(path, body)
        key = self.headers.get("x-api-key") or (self.headers.get("Authorization") or "").partition(" ")[2]
        with self.owner.lock:
            asked = Asked(path, key, text, str(body.get("model")), len(results), body)
            self.owner.asked.append(asked)
            known = key and not key.startswith(BAD)
            made = self.owner.turn(text, results) if known else Turn(fail=401)
        if made.fail or made.limit:
            status, headers, error = vendor.failure(made)
            self._json(status, error, headers)
            return
        if made.hang and self.owner.stopping.wait(made.hang):
            return
        if not body.get("stream"):
            self._json(200, vendor.whole(path, body, made))
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._stream(vendor.stream(path, body, made), made)

    def _stream(self, events: Iterator[tuple[str, Any]], made: Turn) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for name, data in events:
            if name == "pause":
                if self.owner.stopping.wait(made.pause):
                    return
                continue
            if name == "cut":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            head = f"event: {name}\n" if name else ""
            text = data if isinstance(data, str) else json.dumps(data)
            self._chunk(f"{head}data: {text}\n\n".encode())
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        unpack: dict[str, Callable[[bytes], bytes]] = {"gzip": lambda raw: zlib.decompress(raw, 31)}
        data = unpack.get(self.headers.get("Content-Encoding", ""), bytes)(data)
        try:
            found = json.loads(data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


def main(argv: list[str]) -> None:
    """`--port N`: serve until ended; the first line printed is `READY PORT`."""
    port = int(argv[argv.index("--port") + 1]) if "--port" in argv else 0
    api = ModelApi(port=port)
    api.start()
    print("READY", api.port, flush=True)
    while True:
        time.sleep(3600)
