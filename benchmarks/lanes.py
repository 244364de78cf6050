"""The processes of a benchmark: what serves, the bridge, and the host that is measured between them.

A lane is one bridge with one host. All lanes use the same servers, and wait idle while another is measured.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from uaihost.test.integration.node import installed, node, node_folder

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
TASK = "bench"

MIB = 1 << 20

# Bytes of the files that are downloaded again and again.
FILE_SIZE = 64 * MIB

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; keepalive_timeout 600;
  types {{ application/javascript js; application/octet-stream bin; text/plain txt; }}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


class Process:
    """A child that ends with us, or when told."""

    def __init__(self, words: list[str], log: Path, cwd: Path | None = None, **env: str) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.child = subprocess.Popen(
                words,
                cwd=cwd,
                env=os.environ | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if words[0] == node() else errors,
                stderr=errors,
            )

    def line(self) -> dict[str, Any]:
        """The next line that it prints, which is JSON."""
        assert self.child.stdout is not None
        text = self.child.stdout.readline()
        if not text:
            raise RuntimeError(f"{self.child.args} ended:\n{self.log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(text)
        return found

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Servers:
    """What the hosts reach: nginx with the files where it is installed, and our own echo and sink.

    ports: name of the preview to port; static: what serves the files.
    """

    def __init__(self, folder: Path, packages: Path) -> None:
        files = folder / "files"
        files.mkdir(mode=0o755)
        _write_files(files)
        self.processes = [
            Process([node(), str(packages / "upstream.mjs"), str(files)], folder / "upstream.log")
        ]
        port = int(self.processes[0].line()["port"])
        self.ports = {"web": port, "node": port}
        self.static = "node"
        nginx = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
        if nginx is not None:
            self.ports["web"] = _free_port()
            config = folder / "nginx.conf"
            text = NGINX.format(folder=folder, port=self.ports["web"])
            if os.geteuid() == 0:
                text = f"user root;{text}"
            config.write_text(text)
            self.processes.append(Process([nginx, "-c", str(config), "-e", "stderr"], folder / "nginx.log"))
            self.static = "nginx"

    def stop(self) -> None:
        for process in self.processes:
            process.stop()


class Lane:
    """A bridge and the host that dialled it.

    subject: `uaihost` or `reference`; deflate: whether the bridge negotiates permessage-deflate.
    """

    def __init__(
        self,
        subject: str,
        deflate: bool,
        folder: Path,
        packages: Path,
        servers: Servers,
        reference: Path | None,
    ) -> None:
        self.subject = subject
        self.deflate = deflate
        self.name = f"{subject}, deflate {'negotiated' if deflate else 'off'}"
        data = folder / f"{subject}-{deflate}"
        data.mkdir(mode=0o700)
        words = [node(), str(packages / "bridge.mjs"), "on" if deflate else "off"]
        self.bridge = Process(words, data / "bridge.log")
        env = {
            "UAI_HOST_TOKEN": "benchmark",
            "UAI_CLOUD_URL": f"ws://127.0.0.1:{self.bridge.line()['port']}/host",
            "UAI_HOST_UI_PORT": str(_free_port()),
        }
        if subject == "uaihost":
            self.host = self._uaihost(data, servers, env)
        else:
            assert reference is not None
            ports = ",".join(f"{name}={port}" for name, port in servers.ports.items())
            words = [node(), "--import", "tsx", "src/main.ts"]
            more = {"REFERENCE_PORTS": ports, "TMPDIR": str(data)}
            self.host = Process(words, data / "host.log", cwd=reference, **env, **more)
        self.call("ready")

    def _uaihost(self, data: Path, servers: Servers, env: dict[str, str]) -> Process:
        env = env | {"UAI_DATA_DIR": str(data)}
        ports = [f"{name}={port}" for name, port in servers.ports.items()]
        words = [str(BIN / "uaihost"), "expose", "--task", TASK, *ports]
        subprocess.run(words, env=os.environ | env, check=True, stdout=subprocess.DEVNULL)
        return Process(
            [str(BIN / "twistd"), "-n", "--pidfile=", "uaihost"], data / "host.log", cwd=data, **env
        )

    def call(self, measure: str, **arguments: Any) -> dict[str, Any]:
        """Have the bridge take a measure; blocks until it is done."""
        assert self.bridge.child.stdin is not None
        self.bridge.child.stdin.write(json.dumps({"do": measure, **arguments}).encode() + b"\n")
        self.bridge.child.stdin.flush()
        answer = self.bridge.line()
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {measure}: {answer['error']}")
        value: dict[str, Any] = answer["value"]
        return value

    def cpu(self) -> float:
        """Seconds of processor time that the host has used, its kernel time too."""
        fields = Path(f"/proc/{self.host.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, field: str) -> float:
        """MiB of a field of the host's /proc/PID/status."""
        text = Path(f"/proc/{self.host.child.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        self.host.stop()
        self.bridge.stop()


def packages() -> Path:
    """The folder with the bridge, its server and their packages."""
    return installed(HERE)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_files(folder: Path) -> None:
    """noise.bin does not compress; text.js is JavaScript: npm's own sources, again and again; small.txt."""
    noise = random.Random(1)
    with (folder / "noise.bin").open("wb") as file:
        for _ in range(FILE_SIZE // MIB):
            file.write(noise.randbytes(MIB))
    base = node_folder()
    sources = Path(node()).resolve().parents[1] if base is None else base
    text = b"".join(path.read_bytes() for path in sorted((sources / "lib/node_modules/npm").rglob("*.js")))
    if len(text) < MIB:
        raise RuntimeError(f"no JavaScript sources of npm below {sources}")
    with (folder / "text.js").open("wb") as file:
        while file.tell() < FILE_SIZE:
            file.write(text[: FILE_SIZE - file.tell()])
    (folder / "small.txt").write_bytes(b"s" * 1024)


def settle(seconds: float = 0.3) -> None:
    """Let the processes finish what the last measure left."""
    time.sleep(seconds)
