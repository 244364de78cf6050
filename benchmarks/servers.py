"""What stands behind the tunnels: files that nginx serves, an echo, a sink for uploads."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

from benchmarks.processes import Process, free_port, until
from uaihost.test.integration.node import node, node_folder

MIB = 1 << 20

# Bytes of text, at least, that are repeated to make such a file: many times deflate's window of 32 KiB.
_TEXT = MIB

# What the text files hold: npm's own sources and pages. The ending is also theirs.
TEXTS = {"js": "npm/**/*.js", "html": "npm/docs/**/*.html", "json": "npm/**/*.json"}

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; keepalive_timeout 600;
  types {{ application/javascript js; text/html html; application/json json;
           application/octet-stream bin; text/plain txt; }}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


class Servers:
    """nginx where it is installed, else Node, and our own echo and sink.

    ports: name of the preview to port of 127.0.0.1; static: what serves the files.

    Args:
        folder: theirs is made in it.
        prefix: words before each command, which say where it runs.
    """

    def __init__(self, folder: Path, files: Path, packages: Path, prefix: tuple[str, ...] = ()) -> None:
        folder = Path(tempfile.mkdtemp(prefix="servers", dir=folder))
        words = [*prefix, node(), str(packages / "upstream.mjs"), str(files)]
        self.processes = [Process(words, folder / "upstream.log", talks=True)]
        port = int(self.processes[0].line(30)["port"])
        self.ports = {"web": port, "node": port}
        self.static = "node"
        nginx = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
        if nginx is not None:
            self.ports["web"] = free_port()
            config = folder / "nginx.conf"
            text = _NGINX.format(folder=folder, files=files, port=self.ports["web"])
            if os.geteuid() == 0:
                text = f"user root;{text}"
            config.write_text(text)
            words = [*prefix, nginx, "-c", str(config), "-e", "stderr"]
            self.processes.append(Process(words, folder / "nginx.out"))
            pid = folder / "nginx.pid"
            until("nginx", 10, lambda: pid.exists() and pid.read_text().strip())
            self.static = "nginx"

    def stop(self) -> None:
        for process in self.processes:
            process.stop()


def write_files(folder: Path, size: int) -> None:
    """noise.bin does not compress; text.js, .html and .json are npm's own, again and again; small.txt.

    size: bytes of each but the last, whole MiB.
    """
    folder.mkdir(mode=0o755)
    noise = random.Random(1)
    with (folder / "noise.bin").open("wb") as file:
        for _ in range(size // MIB):
            file.write(noise.randbytes(MIB))
    base = node_folder()
    modules = (Path(node()).resolve().parents[1] if base is None else base) / "lib/node_modules"
    for ending, pattern in TEXTS.items():
        text = b"".join(path.read_bytes() for path in sorted(modules.glob(pattern)))
        if not text:
            raise FileNotFoundError(f"no {pattern} in {modules}")
        if len(text) < _TEXT:
            text = text * (1 + _TEXT // len(text))
        with (folder / f"text.{ending}").open("wb") as file:
            while file.tell() < size:
                file.write(text[: size - file.tell()])
    (folder / "small.txt").write_bytes(b"s" * 1024)
