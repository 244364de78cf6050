"""A real relay on this machine, and servers on its loopback, for tests. Everything here blocks."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import short_folder

SHIM = Path(__file__).parents[2] / "shim"
# A test that waits longer than this, seconds, has found a fault.
PATIENCE = 20.0


class Program:
    """A relay, started as its container starts it, listening when this returns.

    changed: assignments to constants of its modules, so that a test need not wait for the real ones.
    """

    def __init__(
        self, case: SynchronousTestCase, folder: Path | None = None, changed: str = "", **environment: str
    ) -> None:
        self.folder = folder or short_folder(case)
        self.path = self.folder / "relay.sock"
        words = [sys.executable, "-E", "-s", str(SHIM / "relay.py")]
        if changed:
            code = f"import sys\nfrom shim import relay, sockets, pairs\n{changed}\nsys.exit(relay.main())"
            words = [
                sys.executable,
                "-E",
                "-s",
                "-c",
                f"import sys\nsys.path.append({str(SHIM.parent)!r})\n{code}",
            ]
        before = self.path.lstat().st_ino if self.path.exists() else None
        self.process = subprocess.Popen(
            words, env={"UAI_RUN": str(self.folder), "UAI_HOST_DIR": str(self.folder), **environment}
        )
        case.addCleanup(self.kill)
        until(lambda: self.path.exists() and self.path.lstat().st_ino != before)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def open(self, line: bytes) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        peer.connect(str(self.path))
        peer.sendall(line)
        return peer

    def connect(self, port: int) -> socket.socket:
        """A connection to the server at `port`."""
        peer = self.open(b"connect %d\n" % port)
        answer = exactly(peer, 3)
        assert answer == b"ok\n", answer
        return peer


class Watch:
    """What a relay says of its ports."""

    def __init__(self, program: Program) -> None:
        self.peer = program.open(b"watch\n")
        self._lines = self.peer.makefile("rb")

    def next(self) -> dict[int, bool]:
        """Of the next line: each port, and whether only loopback reaches it."""
        line: dict[str, Any] = json.loads(self._lines.readline())
        return {one["port"]: one["loopback"] for one in line["ports"]}

    def until(self, condition: Callable[[dict[int, bool]], bool]) -> dict[int, bool]:
        while not condition(found := self.next()):
            pass
        return found

    def close(self) -> None:
        self._lines.close()
        self.peer.close()


def serve(
    case: SynchronousTestCase, talk: Callable[[socket.socket], None], address: str = "127.0.0.1"
) -> int:
    """A server that gives each connection to `talk`, in a thread; its port."""
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    server.bind((address, 0))
    server.listen(256)
    case.addCleanup(server.close)
    threading.Thread(target=_accept, args=(server, talk), daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def _accept(server: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        peer.settimeout(PATIENCE)
        threading.Thread(target=_talk, args=(peer, talk), daemon=True).start()


def _talk(peer: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    # A test may end in the middle.
    with peer, contextlib.suppress(OSError):
        talk(peer)


def echo(peer: socket.socket) -> None:
    """Everything back, then the end."""
    while data := peer.recv(65536):
        peer.sendall(data)


def read(peer: socket.socket) -> bytes:
    """Up to the end."""
    pieces = []
    while data := peer.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


def exactly(peer: socket.socket, size: int) -> bytes:
    """So many bytes, fewer at the end only."""
    got = b""
    while len(got) < size and (data := peer.recv(size - len(got))):
        got += data
    return got


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
