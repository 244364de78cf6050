"""What a container's relay costs beside a published port: one server, reached both ways in one run.

    python -m benchmarks.relay [--rounds N] [--out FILE]

The server runs in a container of the small image, which its first process' relay leads to, and on a port that
the engine publishes on 127.0.0.1. A round takes both lanes, A B A B; the first does not count. What counts
is the ratio of the medians. The client speaks over plain sockets, without the tunnel, so that only the way to
the server differs.

- request: a small one on a connection that is kept, the median of many; and one on a connection of its own.
- download, upload: a body each way, from its first byte to its last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uaihost.cli.local import settings
from uaihost.containers.client import connect
from uaihost.containers.images import owner
from uaihost.rooms import engine_address
from uaihost.test.integration import relay_servers

ROOT = Path(__file__).resolve().parent.parent
LABEL = "uaihost.benchmark"
PORT = 5173
# Requests of one sample, and bytes of one body.
REQUESTS = 1000
BODY = 256 << 20
# Seconds for the container to come up.
PATIENCE = 30
# With their units.
MEASURES = {
    "request, kept connection": "ms",
    "request, new connection": "ms",
    "download": "MB/s",
    "upload": "MB/s",
    "relay's memory": "MB",
}

Dial = Callable[[], socket.socket]


def published(port: int) -> Dial:
    """The way by the port that the engine published."""

    def dial() -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", port), PATIENCE)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer

    return dial


def relayed(path: Path) -> Dial:
    """The way by the relay's socket."""

    def dial() -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        peer.connect(str(path))
        peer.sendall(b"connect %d\n" % PORT)
        if peer.recv(3) != b"ok\n":
            raise OSError("the relay does not lead to the server")
        return peer

    return dial


def ask(peer: socket.socket, head: bytes = b"GET /hello HTTP/1.1\r\n\r\n") -> bytes:
    """The answer's first bytes."""
    peer.sendall(head)
    return peer.recv(65536)


def median(work: Callable[[], object], times: int) -> float:
    """Milliseconds."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


def sample(dial: Dial) -> dict[str, float]:
    """One of each measure."""
    with dial() as peer:
        kept = median(lambda: ask(peer), REQUESTS)

    def alone() -> None:
        with dial() as peer:
            ask(peer)

    return {
        "request, kept connection": kept,
        "request, new connection": median(alone, REQUESTS),
        "download": download(dial),
        "upload": upload(dial),
    }


def download(dial: Dial) -> float:
    """MB/s."""
    room = bytearray(1 << 18)
    with dial() as peer:
        # The first bytes come when all of the body has been made.
        got = len(ask(peer, b"GET /bulk/%d HTTP/1.1\r\n\r\n" % BODY).partition(b"\r\n\r\n")[2])
        begun = time.perf_counter()
        first = got
        while got < BODY:
            got += peer.recv_into(room)
        return (BODY - first) / (time.perf_counter() - begun) / 1e6


def upload(dial: Dial) -> float:
    """MB/s."""
    block = bytes(1 << 18)
    with dial() as peer:
        begun = time.perf_counter()
        peer.sendall(b"POST /sink HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % BODY)
        for _ in range(BODY // len(block)):
            peer.sendall(block)
        peer.recv(65536)
        return BODY / (time.perf_counter() - begun) / 1e6


@contextmanager
def container(client: Any, reference: str) -> Iterator[tuple[Dial, Dial, Callable[[], float]]]:
    """The two ways to its server, and what tells the relay's resident memory, in MB."""
    folder = Path(tempfile.mkdtemp(prefix="uai-", dir="/tmp"))
    uid, gid = owner()
    (folder / "run").mkdir()
    os.chown(folder / "run", uid, gid)
    shutil.copy(relay_servers.__file__, folder / "servers.py")
    folder.chmod(0o755)
    made = client.create_container(
        reference,
        user=f"{uid}:{gid}",
        labels={LABEL: "1"},
        ports=[PORT],
        host_config=client.create_host_config(
            binds=[f"{folder}/run:/run/uai", f"{folder}/servers.py:/servers.py:ro"],
            port_bindings={PORT: ("127.0.0.1", None)},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,
        ),
    )
    try:
        client.start(made)
        words = ["python3", "/servers.py", "0.0.0.0", str(PORT)]
        client.exec_start(client.exec_create(made, words), detach=True)
        (bound,) = client.port(made["Id"], PORT)
        ways = published(int(bound["HostPort"])), relayed(folder / "run" / "relay.sock")
        for way in ways:
            wait(way)

        def memory() -> float:
            words = ["sh", "-c", "grep VmRSS /proc/$(pgrep -f '[r]elay.py')/status"]
            said = client.exec_start(client.exec_create(made, words))
            return int(said.split()[1]) / 1000

        yield *ways, memory
    finally:
        client.remove_container(made, force=True)
        shutil.rmtree(folder, ignore_errors=True)


def wait(way: Dial) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with way() as peer:
                if ask(peer):
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError("the server in the container does not answer")
        time.sleep(0.05)


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """All samples: `{lane: {measure: [value]}}`."""
    words = [sys.executable, "-m", "uaihost.cli", "image", "build", "--kind", "small", "--json"]
    built = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    client = connect(engine_address(settings()))
    found: dict[str, dict[str, list[float]]] = {"published port": {}, "relay": {}}
    try:
        with container(client, str(json.loads(built.stdout)["reference"])) as (*ways, memory):
            for number in range(rounds + 1):
                for lane, way in zip(found, ways, strict=True):
                    took = sample(way)
                    if lane == "relay":
                        took["relay's memory"] = memory()
                    for name, value in took.items() if number else ():
                        found[lane].setdefault(name, []).append(value)
    finally:
        client.close()
    return found


def report(found: dict[str, dict[str, list[float]]]) -> str:
    """The medians and their ratio, relay through published port, as a Markdown table."""
    lines = ["| measure | unit | published port | relay | ratio |", "|---|---|---:|---:|---:|"]
    for name, unit in MEASURES.items():
        middle = {lane: statistics.median(taken[name]) for lane, taken in found.items() if name in taken}
        beside = middle.get("published port")
        ratio = "" if beside is None else f"{middle['relay'] / beside:.2f}"
        shown = "" if beside is None else f"{beside:.3g}"
        lines.append(f"| {name} | {unit} | {shown} | {middle['relay']:.3g} | {ratio} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write all samples there as JSON")
    given = parser.parse_args()
    found = measure(given.rounds)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
