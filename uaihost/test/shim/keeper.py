"""A real agentd with a real child, on this machine, and a client of its socket for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.test.support import short_folder

SHIM = Path(__file__).parents[2] / "shim"
# A test that waits longer than this, seconds, has found a fault.
PATIENCE = 20.0


class Client:
    """One connection; `out` is every byte of output it was sent, checked to be without a gap."""

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while True:
            self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.peer.connect(str(path))
                break
            except OSError:
                self.peer.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self.peer.settimeout(patience)
        self.file = self.peer.makefile("rb")
        self.out = b""
        self.offset = -1
        self.hello = self.read()

    def send(self, **request: Any) -> None:
        self.peer.sendall(json.dumps(request).encode() + b"\n")

    def attach(self, offset: int = 0) -> None:
        self.offset = offset
        self.send(attach=offset)

    def read(self) -> dict[str, Any]:
        """The next message; the bytes of an `out` are added to `out`."""
        line = self.file.readline()
        if not line:
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        if "out" in message:
            assert message["out"] == self.offset, (message, self.offset)
            data = self.file.read(message["size"])
            self.out += data
            self.offset += len(data)
        return message

    def until(self, key: str) -> dict[str, Any]:
        """The next message that has `key`."""
        while True:
            message = self.read()
            if key in message:
                return message

    def until_out(self, text: bytes) -> bytes:
        while text not in self.out:
            self.until("out")
        return self.out

    def close(self) -> None:
        self.file.close()
        self.peer.close()


class KeeperCase(TestCase):
    """Starts keepers and ends what the test leaves."""

    def setUp(self) -> None:
        self.folder = short_folder(self) / "agents" / "a"
        self.environment: dict[str, str] = {}

    def start(self, *argv: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        where = ["--cwd", str(cwd)] if cwd else []
        keeper = subprocess.Popen(
            [sys.executable, str(SHIM / "agentd.py"), "--dir", str(self.folder), *where, "--", *argv],
            stdin=subprocess.DEVNULL,
            env=os.environ | self.environment,
        )
        self.addCleanup(self.end, keeper)
        return keeper

    def start_python(self, program: str) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-u", "-c", program)

    def client(self) -> Client:
        client = Client(self.folder / "ctl.sock")
        self.addCleanup(client.close)
        return client

    def end(self, keeper: subprocess.Popen[bytes]) -> None:
        if keeper.poll() is None:
            keeper.terminate()
            try:
                keeper.wait(PATIENCE)
            finally:
                if keeper.poll() is None:
                    keeper.kill()
                    keeper.wait()

    def gone(self, pid: int) -> bool:
        """Whether the process has ended, waiting a while for it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            time.sleep(0.01)
        return False
