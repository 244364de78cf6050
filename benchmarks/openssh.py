"""The lane of OpenSSH: `ssh -R` from the host's side to an sshd of our own, plain HTTP through it.

The sshd listens on a free port of 127.0.0.1 and knows one key, made for this run; nothing of the machine's
own configuration is read or changed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lanes import _PATIENCE, OPENSSH, Bench
from benchmarks.processes import Process, free_port, until
from benchmarks.servers import Servers
from uaihost.test.integration.node import node

_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""

_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"

# sshd wants this folder, which the system otherwise makes when it starts it.
_SEPARATION = Path("/run/sshd")


def missing() -> str | None:
    """What to do so that OpenSSH can be measured; None when it can."""
    if shutil.which("ssh") is None or shutil.which("sshd", path=_PATH) is None:
        return "OpenSSH is not installed: apt-get install openssh-client openssh-server"
    if os.geteuid() == 0 and not _SEPARATION.is_dir():
        _SEPARATION.mkdir(mode=0o755)
    return None


class Forwarded:
    """A lane: the `ssh` process stands where a host does."""

    kind = OPENSSH

    def __init__(self, bench: Bench, servers: Servers) -> None:
        folder = Path(tempfile.mkdtemp(prefix="openssh", dir=bench.folder))
        for name in ("host_key", "user_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(words, check=True)
        port = free_port()
        config = folder / "sshd_config"
        config.write_text(_SSHD.format(port=port, folder=folder))
        sshd = shutil.which("sshd", path=_PATH)
        assert sshd is not None
        self._processes = [Process([sshd, "-D", "-e", "-f", str(config)], folder / "sshd.log")]
        try:
            until("sshd", 10, lambda: _listens(port))
            forwards = {name: free_port() for name in servers.ports}
            self._ssh = Process(_client(folder, port, forwards, servers.ports), folder / "ssh.log")
            self._processes.append(self._ssh)
            until("ssh -R", 10, lambda: all(map(_listens, forwards.values())))
            words = [f"{name}={number}" for name, number in forwards.items()]
            script = str(bench.packages / "direct.mjs")
            self._clients = Process([node(), script, *words], folder / "clients.log", talks=True)
            self._processes.append(self._clients)
            self._clients.line(30)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._ssh.pid

    def call(self, measure: str, **arguments: Any) -> dict[str, Any]:
        return self._clients.ask({"do": measure, **arguments}, _PATIENCE + arguments.get("seconds", 0))

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()


def _client(folder: Path, port: int, forwards: dict[str, int], targets: dict[str, int]) -> list[str]:
    """The words that start `ssh`."""
    words = ["ssh", "-N", "-F", "none", "-p", str(port), "-i", str(folder / "user_key")]
    options = {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
        "ExitOnForwardFailure": "yes",
        "LogLevel": "ERROR",
    }
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    for name, number in forwards.items():
        words += ["-R", f"127.0.0.1:{number}:127.0.0.1:{targets[name]}"]
    return [*words, f"{getpass.getuser()}@127.0.0.1"]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
