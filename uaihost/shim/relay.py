"""The way into a task's container: joins a Unix socket to servers that only the container itself reaches.

    python3 relay.py        listens on $UAI_RUN/relay.sock (/run/uai), in place of a socket that is there

The first line of a connection says what it is for, at most LINE_LIMIT bytes of ASCII:

    connect PORT    the answer is `ok` and a line end, from then on the server's bytes both ways, each way
                    ended by itself; or `error TEXT` and the end. 127.0.0.1 is tried, then ::1, then whatever
                    address PORT listens on
    watch           a JSON object a line, one at once and one for every change of what listens here:
                    {"ports": [{"port": 5173, "loopback": true}, ...]}, by number, 1024 at most; loopback: no
                    published port would reach it

With UAI_EGRESS=proxy it also takes connections on 127.0.0.1:3128 and joins each to the proxy outside,
$UAI_HOST_DIR/egress.sock (/run/host). That port is never listed.

A server's reset is an end of file to whoever came by the Unix socket, which cannot say more. Standard library
only, Python 3.9 and later. It must not know what the bytes mean.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if not __package__:
    # Started as a program, its folder is the package of its parts.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

from . import leftovers, listening, pairs, sockets

# Bytes of a first line.
LINE_LIMIT = 32
# Connections of each kind at a time: a browser with an editor and a few previews has some dozens.
CONNECTION_LIMIT = 512
# Seconds between two looks at what listens, while somebody watches.
INTERVAL = 1.0
# Descriptors for everything that is no connection.
SPARE = 32

PROXY_PORT = 3128
SOCKET = "relay.sock"


def asked_port(line: bytes) -> int:
    """The port of a `connect` line; 0 when it is no such line."""
    found = re.match(rb"connect ([0-9]{1,5})\Z", line)
    port = int(found[1]) if found else 0
    return port if port < 65536 else 0


class Watcher:
    """A guest that is told what listens; one that does not read is let go. left: called when it goes."""

    def __init__(self, guest: sockets.Guest, left: Callable[[Watcher], None]) -> None:
        self._guest = guest
        self._left = left
        guest.loop.want(guest.sock, sockets.IN, self._ready)

    def tell(self, line: bytes) -> None:
        try:
            whole = self._guest.sock.send(line) == len(line)
        except OSError:
            whole = False
        if not whole:
            self._leave()

    def _ready(self, events: int) -> None:
        try:
            gone = not self._guest.sock.recv(pairs.CHUNK)
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        if gone:
            self._leave()

    def _leave(self) -> None:
        self._left(self)
        self._guest.leave()


class Greeting:
    """A guest whose first line is awaited. greeted: is given the line and what came after it."""

    def __init__(self, guest: sockets.Guest, greeted: Callable[[sockets.Guest, bytes, bytes], None]) -> None:
        self._guest = guest
        self._greeted = greeted
        self._got = b""
        self._done = False
        guest.loop.later(sockets.PATIENCE, self._late)
        guest.loop.want(guest.sock, sockets.IN, self._ready)

    def _ready(self, events: int) -> None:
        try:
            data = self._guest.sock.recv(LINE_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._got += data
        line, end, rest = self._got.partition(b"\n")
        if not data:
            self._done = True
            self._guest.leave()
        elif end or len(self._got) > LINE_LIMIT:
            self._done = True
            self._guest.loop.want(self._guest.sock, None, self._ready)
            self._greeted(self._guest, line, rest)

    def _late(self) -> None:
        if not self._done:
            self._done = True
            self._guest.refuse("no first line came")


class Relay:
    """What is behind the doors.

    run: where its own socket is made; host: where the proxy's is; egress: whether there is a proxy.
    """

    def __init__(self, run: Path, host: Path, egress: bool) -> None:
        self._run = run
        self._host = host
        self._egress = egress
        self._loop = sockets.Loop()
        self._room = memoryview(bytearray(pairs.CHUNK))
        self._watchers: set[Watcher] = set()
        self._looking = False
        self._said = b""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # Two kinds of connections, two descriptors each.
        self._limit = max(1, min(CONNECTION_LIMIT, (files - SPARE) // 4))

    def run(self) -> None:
        """For ever. OSError: the socket cannot be made."""
        path = self._run / SOCKET
        fresh = path.with_suffix(".new")
        leftovers.put_aside(fresh)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(fresh))
        fresh.chmod(0o660)
        sockets.Door(self._loop, sock, self._limit, self._greet)
        # In one step, so that there is always one who listens.
        if path.is_dir():
            leftovers.put_aside(path)
        fresh.replace(path)
        if self._egress:
            self._open_proxy()
        self._loop.run()

    # ---- connections from the host

    def _greet(self, guest: sockets.Guest) -> None:
        Greeting(guest, self._greeted)

    def _greeted(self, guest: sockets.Guest, line: bytes, rest: bytes) -> None:
        port = asked_port(line)
        if port:
            self._dial(guest, port, rest)
        elif line == b"watch":
            self._watch(guest)
        else:
            guest.refuse("the first line must be `connect PORT` or `watch`")

    def _dial(self, guest: sockets.Guest, port: int, early: bytes) -> None:
        def joined(server: socket.socket) -> None:
            with contextlib.suppress(OSError):
                # Three bytes into an empty buffer.
                guest.sock.send(b"ok\n")
            self._join(guest, server, early)

        sockets.Dial(self._loop, self._targets(port), joined, guest.refuse)

    def _join(self, guest: sockets.Guest, server: socket.socket, early: bytes = b"") -> None:
        pairs.Pair(guest, server, self._room, early)

    def _targets(self, port: int) -> Iterator[sockets.Target]:
        yield socket.AF_INET, ("127.0.0.1", port)
        yield socket.AF_INET6, ("::1", port)
        for one in listening.bound():
            if one.port == port:
                yield socket.AF_INET6 if ":" in one.address else socket.AF_INET, (one.address, port)

    # ---- what listens

    def _report(self) -> bytes:
        return listening.report(listening.bound(), (PROXY_PORT,) if self._egress else ())

    def _watch(self, guest: sockets.Guest) -> None:
        watcher = Watcher(guest, self._watchers.discard)
        self._watchers.add(watcher)
        if not self._looking:
            self._looking = True
            self._said = self._report()
            self._loop.later(INTERVAL, self._look)
        watcher.tell(self._said)

    def _look(self) -> None:
        self._looking = bool(self._watchers)
        if not self._looking:
            return
        self._loop.later(INTERVAL, self._look)
        line = self._report()
        if line != self._said:
            self._said = line
            for watcher in list(self._watchers):
                watcher.tell(line)

    # ---- connections to the proxy

    def _open_proxy(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", PROXY_PORT))
        except OSError as error:
            print(f"127.0.0.1:{PROXY_PORT}: {error.strerror}; tried again", file=sys.stderr, flush=True)
            sock.close()
            self._loop.later(INTERVAL, self._open_proxy)
            return
        sockets.Door(self._loop, sock, self._limit, self._pass_out)

    def _pass_out(self, guest: sockets.Guest) -> None:
        proxy = socket.AF_UNIX, str(self._host / "egress.sock")
        sockets.Dial(
            self._loop,
            iter([proxy]),
            lambda server: self._join(guest, server),
            lambda _: guest.leave(),
        )


def main() -> int:
    run = Path(os.environ.get("UAI_RUN", "/run/uai"))
    host = Path(os.environ.get("UAI_HOST_DIR", "/run/host"))
    try:
        Relay(run, host, os.environ.get("UAI_EGRESS") == "proxy").run()
    except OSError as error:
        print(f"the relay cannot listen in {run}: {error.strerror}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
