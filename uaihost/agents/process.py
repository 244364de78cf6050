"""The host's end of an agent: its keeper's socket, kept connected, lines in and out by number and offset.

It knows the keeper's protocol (uaihost/shim/agentd.py) and no agent's language. The folder that holds the
socket can be written by the agent: nothing in it is followed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.agents.framing import BadKeeper, Hello, KeeperReader, LineSplitter, Out, is_status
from uaihost.errors import HostError
from uaihost.unix import hostile_socket_endpoint

log = Logger()

# Waits between attempts to reach the socket, seconds. The first connects to a keeper that is there; after it
# the starter runs, which takes a container's exec (0.1 s) and a Python (0.05 s), more on a busy machine.
ATTEMPTS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
# For connecting and for the keeper's first message, seconds; both are local.
PATIENCE = 10.0
# Lines of the log about what one keeper says.
COMPLAINTS = 20
# Added to the grace of a stop before it is given up, seconds.
STOP_SLACK = 2.0
# Output between two acknowledgements, bytes: the keeper drops its log in segments of some megabytes.
ACK_STEP = 1 << 20

Starter = Callable[[], Awaitable[None]]


class Listener(Protocol):
    """Whom the process tells; each returns at once."""

    def greeted(self, hello: Hello) -> None:
        """Connected, before any line of this connection."""

    def line_received(self, line: bytes | None, end: int) -> None:
        """A line of output and the offset after it; None for one that was too long to keep."""

    def agent_exited(self, status: int, err: str) -> None:
        """The agent has ended, after its last line; `err` is the end of its stderr."""

    def process_lost(self, reason: str) -> None:
        """It cannot be started or reached. Nothing more is tried."""


class Process(Protocol):
    """What a session uses of AgentProcess."""

    @property
    def connected(self) -> bool: ...
    def attach(self, offset: int) -> None: ...
    def write_line(self, number: int, line: bytes) -> None: ...
    def holds(self, number: int) -> bool: ...
    def first_unacknowledged(self, default: int) -> int: ...
    def forget_lines(self) -> None: ...
    def acknowledge(self, offset: int) -> None: ...
    def signal(self, name: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def renew(self) -> None: ...
    def quit(self) -> None: ...
    def detach(self) -> None: ...
    async def stop(self, grace: float) -> None: ...


class AgentProcess:
    """One agent's keeper, from `attach` until `detach`, `quit` or `process_lost`.

    run_folder: the host's path of the task's run folder, whose own path is trusted; what is in it is not.
    starter: starts the keeper in the container; does nothing harmful if it is there already.
    """

    def __init__(
        self, reactor: Any, run_folder: Path, agent_id: str, starter: Starter, listener: Listener
    ) -> None:
        self._reactor = reactor
        self._run_folder = run_folder
        # The layout of paths.Folders: <task>/run.
        self._task = run_folder.parent.name
        self._agent_id = agent_id
        self._starter = starter
        self._listener = listener
        self._splitter = LineSplitter(0)
        self._cursor = 0
        self._unacknowledged: dict[int, bytes] = {}
        self._connection: _Connection | None = None
        self._attempt = 0
        self._timer: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None
        self._paused = False
        self._wanted = False
        self._acknowledged = 0
        # What the keeper says is the agent's to write, and the log is on the host's disk.
        self._complaints = 0

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def attach(self, offset: int) -> None:
        """Connect, starting the keeper if need be; deliver every line that begins at `offset` or after."""
        self._cursor = offset
        self._wanted = True
        self._attempt = 0
        self._spawn(self._connect())

    def write_line(self, number: int, line: bytes) -> None:
        """Give the agent a line. It is sent again after a reconnect until the keeper has acknowledged it."""
        self._unacknowledged[number] = line
        if self._connection is not None:
            self._connection.say({"stdin": number, "line": line.decode("utf-8", "replace")})

    def holds(self, number: int) -> bool:
        """Whether that line was given but has not been acknowledged."""
        return number in self._unacknowledged

    def first_unacknowledged(self, default: int) -> int:
        """The lowest number that the keeper has not acknowledged, or `default`."""
        return min(self._unacknowledged, default=default)

    def forget_lines(self) -> None:
        """Do not send again what the keeper has not acknowledged."""
        self._unacknowledged.clear()

    def acknowledge(self, offset: int) -> None:
        """All output before `offset` has been stored for good: the keeper may drop it. Told now and then."""
        if self._connection is not None and offset >= self._acknowledged + ACK_STEP:
            self._acknowledged = offset
            self._connection.say({"ack": offset})

    def signal(self, name: str) -> None:
        """INT, TERM or KILL to the agent's process group, if it can be reached."""
        if self._connection is not None:
            self._connection.say({"signal": name})

    def pause(self) -> None:
        self._paused = True
        if self._connection is not None:
            self._connection.hold(True)

    def resume(self) -> None:
        self._paused = False
        if self._connection is not None:
            self._connection.hold(False)

    async def stop(self, grace: float) -> None:
        """TERM, after `grace` seconds KILL; then the keeper ends too. Bounded in time, never fails."""
        self._wanted = False
        if self._connection is not None:
            self._connection.say({"stop": grace})
            await self._news(grace + STOP_SLACK)
        if self._connection is not None:
            self._connection.say({"quit": True})
            await self._news(STOP_SLACK)
        self.detach()

    def renew(self) -> None:
        """End this keeper, then start and reach a new one."""
        if self._connection is not None:
            self._connection.say({"quit": True})

    def quit(self) -> None:
        """End the keeper and what is left of the agent, and let go."""
        if self._connection is not None:
            self._connection.say({"quit": True})
        self.detach()

    def detach(self) -> None:
        """Let go; the agent lives on."""
        self._wanted = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()
        self._stopped()

    # ---- connecting

    async def _connect(self) -> None:
        try:
            path = self._run_folder / "agents" / self._agent_id / "ctl.sock"
            endpoint = hostile_socket_endpoint(self._reactor, path, self._run_folder)
            await endpoint.connect(Factory.forProtocol(lambda: _Connection(self, self._reactor)))
        except (HostError, error.ConnectError) as failure:
            if self._wanted:
                await self._not_reached(str(failure) or type(failure).__name__)

    async def _not_reached(self, reason: str) -> None:
        attempt, self._attempt = self._attempt, self._attempt + 1
        if attempt == 0:
            try:
                await self._starter()
            except HostError as failure:
                self._give_up(failure.message)
                return
        if attempt >= len(ATTEMPTS):
            self._give_up(f"its keeper in the container does not answer ({reason})")
        elif self._wanted:
            self._timer = self._reactor.callLater(ATTEMPTS[attempt], lambda: self._spawn(self._connect()))

    def _give_up(self, reason: str) -> None:
        if self._wanted:
            self.detach()
            self._listener.process_lost(reason)

    def _spawn(self, work: Any) -> None:
        ensureDeferred(work).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        log.failure("agent {agent} cannot be attached", failure, agent=self._agent_id, task=self._task)
        self._give_up("an internal error; the daemon's log says more")

    # ---- called by the connection

    def _opened(self, connection: _Connection, hello: Hello) -> None:
        if not self._wanted:
            connection.leave()
            return
        self._attempt = 0
        self._connection = connection
        # A log that is shorter than what was read has been tampered with; go on at its end.
        self._cursor = min(max(self._cursor, hello.base), hello.out_end)
        self._acknowledged = hello.base
        self._splitter = LineSplitter(self._cursor)
        for number in [number for number in self._unacknowledged if number < hello.stdin_next]:
            del self._unacknowledged[number]
        connection.say({"attach": self._cursor})
        connection.hold(self._paused)
        held = sorted(self._unacknowledged)
        self._listener.greeted(hello)
        for number in held:
            if self._connection is connection and number in self._unacknowledged:
                self.write_line(number, self._unacknowledged[number])

    def _received(self, out: Out) -> None:
        if out.offset != self._splitter.offset:
            raise BadKeeper("output with a gap")
        for line, end in self._splitter.feed(out.data):
            self._cursor = end
            self._listener.line_received(line, end)

    def _told(self, message: dict[str, Any]) -> None:
        status, number = message.get("exited"), message.get("stdin")
        if isinstance(number, int):
            self._unacknowledged.pop(number, None)
        elif is_status(status):
            self._stopped()
            err = message.get("err")
            # JSON can name lone halves of surrogate pairs, which can be neither stored nor sent.
            said = err.encode("utf-8", "replace").decode("utf-8") if isinstance(err, str) else ""
            self._listener.agent_exited(status, said)
        elif "error" in message:
            self._complain(f"its keeper says {message['error']!r:.200}")

    def _complain(self, what: str) -> None:
        """Into the log, a few times; more is a flood."""
        self._complaints += 1
        if self._complaints <= COMPLAINTS:
            last = "; no more of this agent is logged" if self._complaints == COMPLAINTS else ""
            log.warn(
                "agent {agent}: {what}{last}", agent=self._agent_id, task=self._task, what=what, last=last
            )

    def _dropped(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._stopped()
        if self._wanted and self._timer_done():
            self._timer = self._reactor.callLater(ATTEMPTS[0], lambda: self._spawn(self._connect()))

    def _timer_done(self) -> bool:
        return self._timer is None or not self._timer.active()

    async def _news(self, patience: float) -> None:
        """Wait for the agent's end or the connection's, at most `patience` seconds."""
        self._stopping = Deferred()
        late = self._reactor.callLater(patience, self._stopped)
        await self._stopping
        if late.active():
            late.cancel()

    def _stopped(self) -> None:
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.callback(None)


class _Connection(StreamProtocol):
    """One connection to the keeper; everything after its hello goes to the process."""

    def __init__(self, process: AgentProcess, reactor: Any) -> None:
        self._process = process
        self._reader = KeeperReader()
        self._greeted = False
        self._left = False
        self._deadline = reactor.callLater(PATIENCE, self._abort)

    def say(self, message: dict[str, Any]) -> None:
        assert self.transport is not None
        self.transport.write(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def hold(self, paused: bool) -> None:
        transport: Any = self.transport
        if paused:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def leave(self) -> None:
        """Nothing more is told; what was said is still sent."""
        self._left = True
        transport: Any = self.transport
        transport.resumeProducing()
        transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        try:
            for item in self._reader.feed(data):
                if self._left:
                    return
                self._take(item)
        except BadKeeper as fault:
            self._process._complain(f"its keeper is dropped: {fault}")
            self._abort()

    def _take(self, item: dict[str, Any] | Out) -> None:
        if not self._greeted:
            if isinstance(item, Out):
                raise BadKeeper("output before the hello")
            hello = Hello.read(item)
            self._greeted = True
            self._deadline.cancel()
            self._process._opened(self, hello)
        elif isinstance(item, Out):
            self._process._received(item)
        else:
            self._process._told(item)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        self._process._dropped(self)
