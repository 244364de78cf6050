"""The product as people run it: `twistd uaibridge` and `twistd uaihost`, each with a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from uaihost.cli.client import BridgeClient, wait_for

T = TypeVar("T")

BIN = Path(sys.executable).parent
TOKEN = "token-of-a-test"


class Daemons:
    """Bridge and host of one test. Every process started here is ended by `stop`, by its own id.

    image: what tasks run in; the small one where nothing of the standard image is looked at.
    """

    def __init__(self, folder: Path, docker_host: str, roots: list[Path], image: str = "small") -> None:
        self.folder = folder
        self.port = free_port()
        self.host_data = folder / "host"
        self.bridge_data = folder / "bridge"
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "UAI_BASE_IMAGE") if name in os.environ},
            "UAI_HOST_TOKEN": TOKEN,
            "UAI_HOST_BRIDGE_PORT": str(self.port),
            "UAI_TASK_IMAGE": image,
            "UAI_LOCAL_REPOSITORIES": os.pathsep.join(str(root) for root in roots),
            "DOCKER_HOST": docker_host,
            "UAI_HOST_UI_PORT": str(free_port()),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_bridge(self) -> BridgeClient:
        self._start("uaibridge", self.bridge_data)
        key = self.bridge_data / "bridge.key"
        wait_for("the bridge's key", lambda: key.exists() or None, 30)
        client = BridgeClient(self.port, key.read_text().strip())
        wait_for("the bridge", lambda: client.alive() or None, 30)
        return client

    def start_host(self) -> None:
        self._start("uaihost", self.host_data)

    def wait_connected(self, client: BridgeClient) -> str:
        """The id of the host, once the bridge sees it."""

        def look() -> str | None:
            assert self.processes["uaihost"].poll() is None, self.log("uaihost")
            for host in client.call("GET", "/api/state")["hosts"]:
                if host["connected"]:
                    return str(host["id"])
            return None

        return wait_for("the host at the bridge", look, 60)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Signal one process and wait for its end; its exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(timeout=60)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name, signal.SIGTERM)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-6000:]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the `uaihost` command as the host's owner would."""
        env = {**self.env, "UAI_DATA_DIR": str(self.host_data)}
        return subprocess.run(
            [str(BIN / "uaihost"), *words], env=env, capture_output=True, text=True, check=False, timeout=60
        )

    def _start(self, service: str, data: Path) -> None:
        log = (self.folder / f"{service}.log").open("ab")
        self.processes[service] = subprocess.Popen(
            [str(BIN / "twistd"), "-n", "--pidfile=", service],
            env={**self.env, "UAI_DATA_DIR": str(data)},
            cwd=self.folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()


def free_port() -> int:
    """A port that is free now on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(what: str, look: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something true."""
    return wait_for(what, lambda: look() or None, seconds)
