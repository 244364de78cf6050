"""What uai-init reported, for everybody who asks, however late: the container's end of /run/uai/init.sock.

Every line so far, then each new one, JSON objects `{"step", "state": "started"|"done"|"failed", "message"?,
"elapsedMs"?}`. After the last line, which is `{"state": "ready", "failed": [step, ...], "ports": [{"port",
"name"}, ...]}` or `{"state": "failed", "message"}`, the connection is closed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import leftovers


class Failed(Exception):
    """A step failed; its text, for people, says why."""


class Progress:
    """The lines, told to every listener and printed into the container's log."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._closed = False
        self._changed = threading.Condition()
        self.failed: list[str] = []

    def report(self, step: str, state: str, message: str | None = None, elapsed: float = -1) -> None:
        """elapsed: seconds; negative where nothing was measured."""
        entry: dict[str, Any] = {"step": step, "state": state}
        if message:
            entry["message"] = message
        if elapsed >= 0:
            entry["elapsedMs"] = round(elapsed * 1000)
        if state == "failed":
            self.failed.append(step)
        self.tell(entry)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """What is done inside as a step: started, then done or, for `Failed` and OSError, failed.

        The list takes lines that are told with the end.
        """
        self.report(name, "started")
        began, lines = time.monotonic(), list[str]()
        try:
            yield lines
        except (Failed, OSError) as error:
            self.report(name, "failed", "\n".join([str(error), *lines]), time.monotonic() - began)
        else:
            self.report(name, "done", "\n".join(lines), time.monotonic() - began)

    def tell(self, entry: dict[str, Any], last: bool = False) -> None:
        text = json.dumps(entry)
        print(text, flush=True)
        with self._changed:
            self._lines.append(text.encode() + b"\n")
            self._closed = self._closed or last
            self._changed.notify_all()

    def follow(self, connection: socket.socket) -> None:
        """Write every line to `connection`, until the last one or until its peer is gone."""
        sent = 0
        with connection, contextlib.suppress(OSError):
            while True:
                with self._changed:
                    while sent == len(self._lines) and not self._closed:
                        self._changed.wait()
                    fresh, over = self._lines[sent:], self._closed
                connection.sendall(b"".join(fresh))
                sent += len(fresh)
                if over and sent == len(self._lines):
                    return

    def serve(self, path: Path) -> None:
        """Listen at `path`, in threads of its own."""
        leftovers.put_aside(path)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(16)

        def accept() -> None:
            while True:
                connection, _ = server.accept()
                connection.settimeout(30)
                threading.Thread(target=self.follow, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
