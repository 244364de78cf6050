"""A lane: the host that is measured, and the bridge with the clients that it dialled.

All lanes of a place use the same servers, and wait idle while another is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

import attrs

from benchmarks.processes import PATIENCE, Broken, Process, free_port
from benchmarks.servers import Servers
from uaihost.test.integration.node import node

BIN = Path(sys.executable).parent
TASK = "bench"

# Seconds: until a host has connected, and what a measure may take beside its own length.
_CONNECT = 60
_PATIENCE = 180


@attrs.frozen
class Kind:
    """Which host, and how its bridge speaks to it.

    mux: by mux.1 instead of revision 1; deflate: the bridge negotiates permessage-deflate; compress: it also
    compresses all that it sends, as npm's ws does of itself.
    """

    name: str
    subject: str
    mux: bool = False
    deflate: bool = False
    compress: bool = False

    def words(self) -> list[str]:
        """The arguments of bridge.mjs."""
        more = [word for word, on in (("mux", self.mux), ("compress", self.compress)) if on]
        return ["on" if self.deflate else "off", *more]


# Flags of the bridge's Node. Every piece that it reads is memory outside its heap; by itself it stops for a
# full collection of 5 to 10 ms some twenty times a second, which every host's answers would wait for. With
# these it takes small pieces of garbage away often instead.
_CALM = ("--max-semi-space-size=1", "--initial-old-space-size=512")

MUX = Kind("uaihost, mux.1", "uaihost", mux=True, deflate=True)
PLAIN = Kind("uaihost, revision 1", "uaihost", deflate=True, compress=True)
REFERENCE = Kind("reference", "reference", deflate=True, compress=True)
OPENSSH = Kind("OpenSSH -R", "OpenSSH")
MUX_OFF = Kind("uaihost, mux.1, deflate off", "uaihost", mux=True)
PLAIN_OFF = Kind("uaihost, revision 1, deflate off", "uaihost")
REFERENCE_OFF = Kind("reference, deflate off", "reference")
# A browser instead of a bridge with clients in it.
DIRECT = Kind("Chromium, direct", "direct")
TUNNEL = Kind("Chromium, uaihost", "uaihost")

NEGOTIATED = (MUX, PLAIN, REFERENCE)
OFF = (MUX_OFF, PLAIN_OFF, REFERENCE_OFF)


@attrs.frozen
class Place:
    """Where a lane runs: words before the commands of host and bridge, and where the bridge listens."""

    host: tuple[str, ...] = ()
    bridge: tuple[str, ...] = ()
    address: str = "127.0.0.1"


LOOPBACK = Place()


@attrs.frozen
class Bench:
    """What all lanes share. reference: the reference host's folder; packages: the Node programs'."""

    folder: Path
    packages: Path
    reference: Path | None = None


class Lane(Protocol):
    """kind: what it is; pid: the process on the host's side, whose time and memory count."""

    kind: Kind

    @property
    def pid(self) -> int: ...

    def call(self, measure: str, **arguments: Any) -> dict[str, Any]:
        """Have the clients take a measure; blocks until it is done."""

    def stop(self) -> None: ...


class Bridged:
    """A lane of a host with its bridge. mux: whether the host took mux.1."""

    def __init__(self, kind: Kind, bench: Bench, servers: Servers, place: Place = LOOPBACK) -> None:
        self.kind = kind
        self._place = place
        data = Path(tempfile.mkdtemp(prefix=kind.subject, dir=bench.folder))
        words = [*place.bridge, node(), *_CALM, str(bench.packages / "bridge.mjs"), *kind.words()]
        self.bridge = Process(words, data / "bridge.log", talks=True, env={"BRIDGE_ADDRESS": place.address})
        try:
            env = {
                "UAI_HOST_TOKEN": "benchmark",
                "UAI_CLOUD_URL": f"ws://{place.address}:{self.bridge.line(30)['port']}/host",
                "UAI_HOST_UI_PORT": str(free_port()),
            }
            start = _start_uaihost if kind.subject == "uaihost" else _start_reference
            self.host = start(bench, data, servers, list(place.host), env)
        except BaseException:
            self.bridge.stop()
            raise
        try:
            self.mux = bool(self.call("ready")["mux"])
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.host.pid

    def call(self, measure: str, **arguments: Any) -> dict[str, Any]:
        seconds = _CONNECT if measure == "ready" else _PATIENCE + arguments.get("seconds", 0)
        return self.bridge.ask({"do": measure, **arguments}, seconds)

    def stop(self) -> None:
        # What waits to be sent over a slow link would hold up a host that ends in good order.
        self.host.stop(patience=PATIENCE if self._place == LOOPBACK else 0)
        self.bridge.stop()


def _start_uaihost(
    bench: Bench, data: Path, servers: Servers, prefix: list[str], env: dict[str, str]
) -> Process:
    env = env | {"UAI_DATA_DIR": str(data)}
    ports = [f"{name}={port}" for name, port in servers.ports.items()]
    words = [str(BIN / "uaihost"), "expose", "--task", TASK, *ports]
    done = subprocess.run(words, env=os.environ | env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Broken(f"{' '.join(words)}: {done.stderr[-2000:]}")
    words = [*prefix, str(BIN / "twistd"), "-n", "--pidfile=", "uaihost"]
    return Process(words, data / "host.log", cwd=data, env=env)


def _start_reference(
    bench: Bench, data: Path, servers: Servers, prefix: list[str], env: dict[str, str]
) -> Process:
    assert bench.reference is not None
    ports = ",".join(f"{name}={port}" for name, port in servers.ports.items())
    words = [*prefix, node(), "--import", "tsx", "src/main.ts"]
    more = {"REFERENCE_PORTS": ports, "TMPDIR": str(data)}
    return Process(words, data / "host.log", cwd=bench.reference, env=env | more)
