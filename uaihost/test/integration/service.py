"""The host's service as a process: `twistd -n uaihost` with settings from the environment alone."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

BIN = Path(sys.executable).parent
TOKEN = "a-token-of-the-tests"


class Service(ProcessProtocol):
    """A running host.

    output: all that it printed; status: its exit status once it ended (negative: the signal's number).
    """

    def __init__(self, reactor: Any, url: str, data: Path) -> None:
        self.reactor = reactor
        self.data = data
        self.output = b""
        self.status: int | None = None
        self.ended: list[Deferred[int]] = []
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(data),
            "UAI_HOST_TOKEN": TOKEN,
            "UAI_CLOUD_URL": url,
            "UAI_DATA_DIR": str(data),
            "UAI_TASK_IMAGE": "small",
            # Nothing here needs an engine, and one that runs on this machine is not these tests' to use.
            "DOCKER_HOST": f"unix://{data}/no-engine.sock",
        }

    def start(self) -> None:
        program = str(BIN / "twistd")
        words = [program, "-n", "--pidfile=", "uaihost"]
        self.status = None
        self.reactor.spawnProcess(self, program, words, env=self.env, path=str(self.data))

    @property
    def pid(self) -> int:
        assert self.transport is not None and self.transport.pid is not None
        return int(self.transport.pid)

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    async def exit(self, timeout: float = 30.0) -> int:
        """Wait for its end; the exit status.

        Raises:
            twisted.internet.defer.TimeoutError: it goes on.
        """
        if self.status is None:
            ended: Deferred[int] = Deferred()
            self.ended.append(ended)
            await ended.addTimeout(timeout, self.reactor)
        assert self.status is not None, self.output.decode(errors="replace")
        return self.status

    async def stop(self) -> None:
        """End it however it is, so that a failed test leaves nothing running."""
        if self.transport is not None and self.status is None:
            self.signal(signal.SIGKILL)
            await self.exit()

    async def expose(self, task: str, ports: Sequence[tuple[str, int]]) -> None:
        """`uaihost expose`: a task without a container whose previews are these ports of this machine."""
        await self.command("expose", "--task", task, *(f"{name}={port}" for name, port in ports))

    async def command(self, *words: str) -> str:
        """What `uaihost words...` prints on this host; RuntimeError when it fails."""
        out, err, status = await getProcessOutputAndValue(
            str(BIN / "uaihost"), words, env=self.env, path=str(self.data), reactor=self.reactor
        )
        if status != 0:
            raise RuntimeError(f"uaihost {' '.join(words)}: {status}: {(out + err).decode(errors='replace')}")
        return str(out.decode())

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of a field of /proc/PID/status: VmRSS is what it holds now, VmHWM the most it ever held."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    # ---- ProcessProtocol ------------------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        if isinstance(value, ProcessDone):
            self.status = 0
        else:
            self.status = -value.signal if value.signal else value.exitCode
        waiting, self.ended = self.ended, []
        for ended in waiting:
            ended.callback(self.status)
