"""Real servers behind a real tunnel: a bridge, a host without an engine, programs that the host exposes."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.client import wait_for
from uaihost.test.integration.processes import Daemons

# The task that the host exposes; its names at the bridge begin with it.
TASK = "shop"


class Tunnel:
    """Bridge and host, connected, with ports of this machine exposed by name: `editor`, and any preview's.

    `preview` (of the port `web`) and `editor` are addresses for a browser, without a path. Blocks until both
    are there.
    """

    def __init__(self, folder: Path, **ports: int) -> None:
        # Nothing here needs an engine, and one that runs on this machine is not ours to use.
        self._daemons = Daemons(folder, f"unix://{folder}/no-engine.sock", [])
        try:
            words = ["expose", "--task", TASK, *(f"{name}={port}" for name, port in ports.items())]
            done = self._daemons.command(*words)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
            self._bridge = self._daemons.start_bridge()
            self.start_host()
        except BaseException:
            self.stop()
            raise
        self.preview = f"http://{TASK}-web.preview.localhost:{self._bridge.port}"
        self.editor = f"http://{TASK}.editor.localhost:{self._bridge.port}"

    def start_host(self) -> None:
        self._daemons.start_host()
        self._daemons.wait_connected(self._bridge)

    def stop_host(self) -> None:
        self._daemons.kill("uaihost", signal.SIGTERM)

    def pid(self, service: str) -> int:
        """The process of `uaibridge` or `uaihost`."""
        return self._daemons.processes[service].pid

    def stop(self) -> None:
        self._daemons.stop()


async def tunnel(case: TestCase, folder: Path, **ports: int) -> Tunnel:
    """A tunnel that ends with the test."""
    made = await deferToThread(Tunnel, folder, **ports)
    case.addCleanup(deferToThread, made.stop)
    return made


class Program:
    """A server of a test as a process; what it prints goes to a file, which its failures show."""

    def __init__(self, words: list[str], folder: Path, log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath), **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_printed(self, words: str, seconds: float = 60) -> None:
        """Wait until it has said this.

        Raises:
            AssertionError: it ended.
        """

        def look() -> bool | None:
            printed = self._log.read_text(errors="replace")
            assert self._process.poll() is None, printed
            return words in printed or None

        wait_for(words, look, seconds)

    def stop(self) -> None:
        """End it and what it started, and wait for its end; again is nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=30)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
