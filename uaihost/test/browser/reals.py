"""Real servers behind a real tunnel: a bridge, a host without an engine, programs that the host exposes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.integration.processes import Daemons

# The task that the host exposes; its names at the bridge begin with it.
TASK = "shop"


class Tunnel:
    """Bridge and host of a test. `preview` and `editor` are addresses for a browser, without a path."""

    def __init__(self, daemons: Daemons, bridge: BridgeClient) -> None:
        self._daemons = daemons
        self.bridge = bridge
        self.preview = f"http://{TASK}-web.preview.localhost:{bridge.port}"
        self.editor = f"http://{TASK}.editor.localhost:{bridge.port}"

    def pid(self, service: str) -> int:
        """The process of `uaibridge` or `uaihost`."""
        return self._daemons.processes[service].pid


async def tunnel(case: TestCase, folder: Path, **ports: int) -> Tunnel:
    """Bridge and host, connected, with these ports of this machine exposed; ended with the test.

    ports: by name; `editor` is the editor, any other name is a preview.
    """
    # Nothing here needs an engine, and one that runs on this machine is not this test's to use.
    daemons = Daemons(folder, f"unix://{folder}/no-engine.sock", [])
    case.addCleanup(deferToThread, daemons.stop)
    words = ["expose", "--task", TASK, *(f"{name}={port}" for name, port in ports.items())]
    done = await deferToThread(daemons.command, *words)
    case.assertEqual((done.returncode, done.stderr), (0, ""))
    bridge = await deferToThread(daemons.start_bridge)
    daemons.start_host()
    await deferToThread(daemons.wait_connected, bridge)
    return Tunnel(daemons, bridge)


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
        """End it and wait for its end; again is nothing."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(timeout=30)
