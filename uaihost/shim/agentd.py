"""Keeps one agent's process inside the container, so that the daemon outside may come and go.

    python3 agentd.py --dir DIR [--cwd DIR] -- PROGRAM [ARGUMENT ...]

In DIR: `out.*` (the agent's stdout, shim/outlog.py), `err.log` (the tail of its stderr), `stdin` (the number
of the next line for its stdin), `ctl.sock`, `lock`. A second start in the same DIR while one lives ends at
once with status 0. After the agent's end the keeper stays until told to quit. What the agent has started
ends with it. Its output is read no further than a bound beyond what was acknowledged: then it waits.

Protocol on `ctl.sock`, version 2 (version 1 had neither `base` nor `ack`). Both ways one JSON object a
line. The keeper speaks first:

    {"hello": 2, "run": ID, "start": OFFSET, "pid": N, "exited": null or STATUS, "stdin_next": N,
     "out_end": OFFSET, "base": OFFSET}

`run` names this process of the agent; `start` is where its output begins, `base` the first byte of all output
that is still there. Requests:

    {"attach": OFFSET}          stream the output from there and go on live; takes the right to stdin
    {"ack": OFFSET}             nobody will ask for what lies before it
    {"stdin": N, "line": TEXT}  a line for the agent, applied once: an N below `stdin_next` is acknowledged
    {"signal": "INT"}           INT, TERM or KILL for the agent's process group
    {"stop": SECONDS}           TERM now, KILL after that long
    {"quit": true}              kill what is left of the agent, remove the socket and end

Answers: `{"out": OFFSET, "size": N}` followed by N raw bytes; `{"stdin": N}` once N is stored;
`{"exited": STATUS, "err": TEXT}` to whoever is attached, after the last byte of output (STATUS is minus
the signal's number if one ended it); `{"detached": true}` when another connection has attached;
`{"error": TEXT}`.

Standard library only, Python 3.9 and later. It must not know what the bytes mean.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

if not __package__:
    # Started as a program, its folder is the package of its parts.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

from . import family, kept

VERSION = 2
# One read from a pipe or a socket, bytes.
CHUNK = 65536
# Unsent bytes at which no more of the log is read for a connection.
HIGH_WATER = 1 << 20
# A request: a line of 64 MiB for the agent, escaped by JSON (at worst sixfold).
REQUEST_LIMIT = 400 << 20
# How much of stderr is told with the exit status, bytes.
ERR_TAIL = 4096
# How long a keeper without a socket may hold the lock before it counts as living, seconds.
CLAIM_LIMIT = 5.0
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}


class Connection:
    """One client: its unparsed requests, its unsent answers, and how far it has seen the log."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.requests = bytearray()
        self.searched = 0
        self.unsent = bytearray()
        self.offset: int | None = None
        self.told_exit = False

    def fileno(self) -> int:
        return self.peer.fileno()

    def say(self, message: dict[str, Any]) -> None:
        self.unsent += json.dumps(message).encode() + b"\n"

    def next_request(self) -> bytes | None:
        found = self.requests.find(b"\n", self.searched)
        if found < 0:
            self.searched = len(self.requests)
            return None
        line = bytes(self.requests[:found])
        del self.requests[: found + 1]
        self.searched = 0
        return line

    def stream(self, agent: kept.Agent) -> None:
        """Fill up with what the log holds beyond what this client has; then how the agent ended."""
        if self.offset is None:
            return
        while self.offset < agent.log.end and len(self.unsent) < HIGH_WATER:
            data = agent.log.read(self.offset, min(CHUNK, agent.log.end - self.offset))
            if not data:  # Somebody cut the file; go on where it ends.
                agent.log.cut(self.offset)
                break
            self.say({"out": self.offset, "size": len(data)})
            self.unsent += data
            self.offset += len(data)
        if agent.exited is not None and self.offset >= agent.log.end and not self.told_exit:
            self.told_exit = True
            tail = bytes(agent.err[-ERR_TAIL:]).decode("utf-8", "replace")
            self.say({"exited": agent.exited, "err": tail})


class Keeper:
    """The event loop: the agent's pipes, the listening socket, the clients."""

    def __init__(self, folder: Path, agent: kept.Agent) -> None:
        self.agent = agent
        self.path = folder / "ctl.sock"
        self.selector = selectors.DefaultSelector()
        self.connections: set[Connection] = set()
        self.attached: Connection | None = None
        self.kill_at: float | None = None
        self.running = True
        self.watched: dict[int, tuple[int, Any]] = {}
        self.listener = self._listen()
        self.waker, waking = socket.socketpair()
        for end in (self.waker, waking):
            end.setblocking(False)
        self.waking = waking
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._terminated)

    def _listen(self) -> socket.socket:
        # Bound beside and renamed: a client never finds a socket that nobody listens on yet.
        beside = self.path.with_suffix(".new")
        for stale in (beside, self.path):
            with contextlib.suppress(FileNotFoundError):
                stale.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(8)
        listener.setblocking(False)
        beside.rename(self.path)
        return listener

    def _terminated(self, number: int, frame: object) -> None:
        self.agent.kill(signal.SIGTERM)
        self.running = False

    def serve(self) -> None:
        while self.running:
            if self.agent.reap():
                self.kill_at = None
            self._watch()
            for key, events in self.selector.select(self._timeout()):
                self._ready(key.data, events)
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.kill_at = None
                self.agent.kill(signal.SIGKILL)
        self._flush()
        self.path.unlink()

    def _timeout(self) -> float | None:
        return None if self.kill_at is None else max(0.0, self.kill_at - time.monotonic())

    def _watch(self) -> None:
        """Ask the selector for exactly what can be served now."""
        wanted: dict[int, tuple[int, Any]] = {
            self.listener.fileno(): (selectors.EVENT_READ, self._accept),
            self.waker.fileno(): (selectors.EVENT_READ, self._woken),
        }
        for name, reader in (("stdout", self.agent.read_out), ("stderr", self.agent.read_err)):
            # An agent that prints while nobody takes it waits, instead of filling the disk.
            if self.agent.fileno(name) >= 0 and not (name == "stdout" and self.agent.log.full):
                wanted[self.agent.fileno(name)] = (selectors.EVENT_READ, reader)
        if self.agent.unwritten and self.agent.fileno("stdin") >= 0:
            wanted[self.agent.fileno("stdin")] = (selectors.EVENT_WRITE, self.agent.write_in)
        for connection in self.connections:
            connection.stream(self.agent)
            events = selectors.EVENT_WRITE if connection.unsent else 0
            # An agent that does not read its stdin stops its writer, instead of filling our memory.
            if len(self.agent.unwritten) < HIGH_WATER:
                events |= selectors.EVENT_READ
            if events:
                wanted[connection.fileno()] = (events, connection)
        for descriptor in [number for number in self.watched if number not in wanted]:
            self.selector.unregister(descriptor)
        for descriptor, (events, target) in wanted.items():
            if descriptor not in self.watched:
                self.selector.register(descriptor, events, target)
            elif self.watched[descriptor] != (events, target):
                # Not `modify`: the number may belong to another file than a moment ago.
                self.selector.unregister(descriptor)
                self.selector.register(descriptor, events, target)
        self.watched = wanted

    def _ready(self, target: Any, events: int) -> None:
        if not isinstance(target, Connection):
            target()
            return
        try:
            if events & selectors.EVENT_WRITE:
                sent = target.peer.send(target.unsent[:CHUNK])
                del target.unsent[:sent]
            if events & selectors.EVENT_READ:
                self._receive(target)
        except BlockingIOError:
            pass
        except OSError:
            self._forget(target)

    def _accept(self) -> None:
        try:
            peer, _ = self.listener.accept()
        except OSError:
            return
        peer.setblocking(False)
        connection = Connection(peer)
        self.connections.add(connection)
        agent = self.agent
        connection.say(
            {
                "hello": VERSION,
                "run": agent.run,
                "start": agent.start,
                "pid": agent.pid,
                "exited": agent.exited,
                "stdin_next": agent.stdin_next,
                "out_end": agent.log.end,
                "base": agent.log.base,
            }
        )

    def _woken(self) -> None:
        try:
            self.waker.recv(4096)
        except BlockingIOError:
            pass

    def _receive(self, connection: Connection) -> None:
        data = connection.peer.recv(CHUNK)
        connection.requests += data
        if not data or len(connection.requests) > REQUEST_LIMIT:
            self._forget(connection)
            return
        while (line := connection.next_request()) is not None:
            try:
                self._obey(connection, json.loads(line))
            except kept.Refused as refused:
                connection.say({"error": str(refused)})
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                connection.say({"error": f"bad request: {error}"})

    def _obey(self, connection: Connection, request: Any) -> None:
        if not isinstance(request, dict):
            raise kept.Refused("a request is a JSON object")
        if "stdin" in request:
            if connection is not self.attached:
                raise kept.Refused("attach first: only one connection may write")
            self.agent.apply(int(request["stdin"]), cast(str, request["line"]))
            connection.say({"stdin": int(request["stdin"])})
        elif "attach" in request:
            self._attach(connection, int(request["attach"]))
        elif "ack" in request:
            self._acknowledge(int(request["ack"]))
        elif "signal" in request:
            self.agent.kill(SIGNALS[request["signal"]])
        elif "stop" in request:
            self.agent.kill(signal.SIGTERM)
            self.kill_at = time.monotonic() + float(request["stop"])
        elif request.get("quit") is True:
            self.agent.kill(signal.SIGKILL)
            self.running = False
        else:
            raise kept.Refused("unknown request")

    def _attach(self, connection: Connection, offset: int) -> None:
        log = self.agent.log
        if not log.base <= offset <= log.end:
            raise kept.Refused(f"the log holds bytes {log.base} to {log.end}")
        if self.attached is not None and self.attached is not connection:
            self.attached.offset = None
            self.attached.say({"detached": True})
        self.attached = connection
        connection.offset = offset
        connection.told_exit = False

    def _acknowledge(self, offset: int) -> None:
        """As far as it has been sent: what a client still reads stays."""
        sent = [each.offset for each in self.connections if each.offset is not None]
        self.agent.log.acknowledge(min([offset, *sent]))

    def _forget(self, connection: Connection) -> None:
        if connection.fileno() in self.watched:
            self.selector.unregister(connection.fileno())
            del self.watched[connection.fileno()]
        self.connections.discard(connection)
        if self.attached is connection:
            self.attached = None
        connection.peer.close()

    def _flush(self) -> None:
        """Last words, to those who take them at once."""
        for connection in self.connections:
            try:
                connection.peer.send(connection.unsent[:CHUNK])
            except OSError:
                pass


def claim(folder: Path) -> int | None:
    """The lock of the folder, held until this process ends; None if another keeper lives there.

    One that holds the lock and has no socket is about to make it or has just quit: see which.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + CLAIM_LIMIT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (folder / "ctl.sock").exists() or time.monotonic() > deadline:
                os.close(lock)
                return None
            time.sleep(0.02)
        else:
            return lock


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="agentd.py", description="Keep one agent's process.")
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--cwd")
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args(argv)
    if claim(options.dir) is None:
        return 0
    family.adopt_orphans()
    family.hide_environment()
    agent = kept.Agent(options.dir, options.cwd, options.argv)
    # Secrets among it are the agent's.
    os.environ.clear()
    Keeper(options.dir, agent).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
