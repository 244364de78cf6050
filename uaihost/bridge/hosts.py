"""Hosts at the bridge: one WebSocket each, from its `auth` to its close (protocol, sections 1 to 3).

A bad frame of a host is dropped with a warning and the connection kept; a token that is not known ends it
with 4001. It hands events, results and tunnels' frames on and knows none of their meaning.
"""

from __future__ import annotations

import hmac
import re
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.bridge import store
from uaihost.bridge.calls import Calls
from uaihost.bridge.feed import Feed, News, shown
from uaihost.bridge.store import HostRecord
from uaihost.bridge.tunnel import Reading, Traffic
from uaihost.bridge.tunnels import TunnelTable
from uaihost.errors import HostError
from uaihost.interfaces import Store
from uaihost.link import compression
from uaihost.link.heartbeat import Silence
from uaihost.link.outbound import Outbound
from uaihost.link.socket import MessageSocket
from uaihost.wire import codec, frames, mux
from uaihost.wire.codec import BadFrame

log = Logger()

# Seconds from an open socket to its `auth`.
AUTH_TIMEOUT = 10.0

# Close codes: the protocol's own for a refused host (fatal there), and one after which it may come back: this
# connection is of no more use.
REFUSED = 4001
REPLACED = BROKEN = 4002

# Items of the event log that may wait to be stored before the host that sends them is not read for a while.
FEED_LIMIT = 5_000

_HOST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


class Hosts:
    """Every host: those that are connected, and what is remembered of the others.

    tokens: whoever shows one of them is let in.
    """

    def __init__(
        self, tokens: tuple[str, ...], database: Store, feed: Feed, calls: Calls, clock: IReactorTime
    ) -> None:
        self._tokens = [token.encode() for token in tokens]
        self._database = database
        self.feed = feed
        self.calls = calls
        self.clock = clock
        self._known: dict[str, HostRecord] = {}
        self._sessions: dict[str, HostSession] = {}
        self._opened: dict[MessageSocket, HostSession] = {}
        # Since the start: connections that were let in, that were not, and that ended; and all tunnels.
        self.connects = self.refusals = self.losses = 0
        self.traffic = Traffic()

    async def load(self) -> None:
        """Remember the hosts of earlier runs."""
        for record in await self._database.run(store.hosts):
            self._known[record.id] = record

    def opened(self, socket: MessageSocket) -> None:
        """A WebSocket is open (link.protocol)."""
        session = self._opened[socket] = HostSession(self, socket)
        socket.attach(session)

    def lost(self, socket: MessageSocket, code: int | None, reason: str) -> None:
        """It is gone, whether it was opened or not."""
        self._opened.pop(socket, None)

    def shut(self, code: int, reason: str) -> None:
        """End every connection."""
        for session in list(self._opened.values()):
            session.end(code, reason)

    def tunnels(self, host_id: str) -> TunnelTable | None:
        """The tunnels of a host's connection; None while it has none."""
        session = self._sessions.get(host_id)
        return None if session is None else session.tunnels

    def connected(self, host_id: str) -> bool:
        """Whether it is there now."""
        return host_id in self._sessions

    def connected_ids(self) -> list[str]:
        """The hosts that are there now."""
        return sorted(self._sessions)

    @property
    def known(self) -> int:
        """How many were ever there."""
        return len(self._known)

    @property
    def open_tunnels(self) -> int:
        """Of all hosts, now."""
        return sum(len(session.tunnels) for session in self._sessions.values())

    def capabilities(self, host_id: str) -> dict[str, Any]:
        """As it last sent them."""
        record = self._known.get(host_id)
        return {} if record is None else record.capabilities

    def view(self) -> list[dict[str, Any]]:
        """Every host as the API shows it."""
        return [
            {
                "id": record.id,
                "connected": record.id in self._sessions,
                "capabilities": record.capabilities,
                "seenAt": record.seen_at,
            }
            for record in sorted(self._known.values(), key=lambda record: record.id)
        ]

    # ---- for the sessions

    def token_is_known(self, token: str) -> bool:
        """Compared with every token in full, so that the time taken says nothing of them."""
        given = token.encode()
        return sum(hmac.compare_digest(given, known) for known in self._tokens) > 0

    def came(self, session: HostSession, host_id: str) -> None:
        """A session proved to be this host: it takes the place of an earlier one."""
        self.connects += 1
        earlier = self._sessions.get(host_id)
        if earlier is not None:
            log.info("host {host} connected again; its earlier connection ends", host=shown(host_id))
            earlier.end(REPLACED, "replaced by a newer connection of this host")
        self._sessions[host_id] = session
        record = self._known.get(host_id) or HostRecord(host_id, {}, 0)
        self._remember(attrs.evolve(record, seen_at=self._now()))
        log.info("host {host} connected", host=shown(host_id))
        self.calls.connected(host_id, session.send)

    def left(self, session: HostSession, host_id: str) -> None:
        """The session is over."""
        self.losses += 1
        if self._sessions.get(host_id) is session:
            del self._sessions[host_id]
            self.calls.disconnected(host_id)
            self._remember(attrs.evolve(self._known[host_id], seen_at=self._now()))
            log.info("host {host} disconnected", host=shown(host_id))

    def described(self, host_id: str, capabilities: frames.Capabilities) -> None:
        """Its capabilities arrived."""
        self._remember(
            attrs.evolve(self._known[host_id], capabilities=msgspec.to_builtins(capabilities)),
        )

    def _remember(self, record: HostRecord) -> None:
        self._known[record.id] = record
        spawn(self._database.run(lambda db: store.save_host(db, record)), "a host could not be stored")
        self.feed.tell(News("hosts", None, None, codec.encode_value(self.view()).decode()))

    def _now(self) -> int:
        return int(self.clock.seconds() * 1000)


class HostSession:
    """One connection of a host: its socket's receiver, and its reading's brake (interfaces.LinkInput)."""

    def __init__(self, hosts: Hosts, socket: MessageSocket) -> None:
        self._hosts = hosts
        self._socket = socket
        self._host_id: str | None = None
        self._over = False
        self._holds = Reading(self._pause, self._resume)
        self._silence = Silence(hosts.clock, socket)
        self.outbound = Outbound(socket, hosts.clock)
        self.tunnels = TunnelTable(self.outbound, self, hosts.clock, hosts.traffic)
        self._auth_timer: IDelayedCall | None = hosts.clock.callLater(AUTH_TIMEOUT, self._no_auth)

    def send(self, payload: bytes) -> None:
        """A control frame, encoded."""
        self.outbound.control(payload, compression.gains(payload))

    def end(self, code: int, reason: str) -> None:
        """Close from this side; what the host still says is not read."""
        if code == REFUSED and not self._over:
            self._hosts.refusals += 1
        self._finish()
        self._socket.close(code, reason)

    # ---- interfaces.LinkInput

    def hold(self, reason: object) -> None:
        self._holds.hold(reason)

    def release(self, reason: object) -> None:
        self._holds.release(reason)

    def _pause(self) -> None:
        self._silence.hold(True)
        self.outbound.deaf(True)
        self._socket.pause_reading()

    def _resume(self) -> None:
        if not self._over:
            self._silence.hold(False)
            self.outbound.deaf(False)
            self._socket.resume_reading()

    # ---- link.socket.Receiver

    def text(self, payload: bytes) -> None:
        if self._over:
            return
        frame = codec.from_host(payload)
        if self._host_id is None:
            self._authenticate(frame)
        elif isinstance(frame, BadFrame):
            log.warn("a frame of host {host} was dropped: {why}", host=shown(self._host_id), why=frame.why)
        else:
            self._take(self._host_id, frame)

    def binary(self, payload: bytes) -> None:
        if self._over:
            return
        if self._host_id is None:
            self.end(REFUSED, "the first frame must be auth")
            return
        self.tunnels.binary(payload)

    def marked(self, payload: bytes) -> None:
        self.outbound.marked(payload)

    def closed(self, code: int | None, reason: str) -> None:
        self._finish()

    # ---- frames

    def _authenticate(self, frame: frames.FromHost | BadFrame) -> None:
        if not isinstance(frame, frames.Auth):
            self.end(REFUSED, "the first frame must be auth")
        elif not self._hosts.token_is_known(frame.token):
            log.warn("a host with an unknown token was refused")
            self.end(REFUSED, "the token is not known here; check UAI_HOST_TOKEN")
        elif not _HOST_ID.match(frame.hostId):
            self.end(REFUSED, "the host id must be 1 to 128 of A-Z a-z 0-9 . _ -")
        else:
            self._stop_timer()
            self._silence.start()
            self._host_id = frame.hostId
            self._hosts.came(self, frame.hostId)

    def _take(self, host_id: str, frame: frames.FromHost) -> None:
        if isinstance(frame, frames.TunnelData):
            self.tunnels.data(frame.tunnelId)
        elif isinstance(frame, frames.TunnelAck):
            self.tunnels.ack(frame)
        elif isinstance(frame, frames.TunnelClose):
            self.tunnels.close(frame)
        elif isinstance(frame, frames.EventFrame):
            self._hosts.feed.arrived(host_id, frame.event)
            if len(self._hosts.feed) > FEED_LIMIT:
                self.hold("feed")
                self._hosts.feed.settled().addCallbacks(lambda _: self.release("feed"), _told)
        elif isinstance(frame, frames.Ping):
            # The pong says that everything before the ping is kept, so it waits until it is.
            self._hosts.feed.settled().addCallbacks(self._pong, _told, callbackArgs=(frame.ts,))
        elif isinstance(frame, frames.Result):
            spawn(self._hosts.calls.answered(host_id, frame.commandId, frame.result), "a result was not kept")
        elif isinstance(frame, frames.HostCapabilities):
            self._hosts.described(host_id, frame.capabilities)
            self._greet(frame.capabilities.features)
        else:
            kind = frame.__struct_config__.tag
            log.warn(
                "a frame of host {host} was dropped: {kind} is not expected", host=shown(host_id), kind=kind
            )

    def _greet(self, features: list[str]) -> None:
        """Agree on what both speak; what was agreed on once stays so."""
        if mux.FEATURE in features and self.tunnels.streams is None:
            self.send(codec.encode(frames.BridgeHello([mux.FEATURE])))
            self.tunnels.agree(lambda why: self.end(BROKEN, f"{mux.FEATURE}: {why}"))

    def _pong(self, _: None, ts: int | float) -> None:
        self.send(codec.encode(frames.Pong(ts)))

    # ---- the end

    def _no_auth(self) -> None:
        self._auth_timer = None
        self.end(REFUSED, f"no auth within {AUTH_TIMEOUT:.0f} s")

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._stop_timer()
        self._silence.stop()
        self.outbound.lost()
        self.tunnels.lost()
        if self._host_id is not None:
            self._hosts.left(self, self._host_id)

    def _stop_timer(self) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None


def _told(_: Failure) -> None:
    """The feed has logged it and ended this connection."""


def spawn(work: Any, what: str) -> Deferred[None]:
    """Run a coroutine beside; a failure is logged as `what`."""

    def failed(failure: Failure) -> None:
        if isinstance(failure.value, HostError):
            # No defect: the disk is full, or the bridge is stopping.
            log.warn("{what}: {why}", what=what, why=failure.value.message)
        else:
            log.failure("{what}", failure, what=what)

    done: Deferred[None] = Deferred.fromCoroutine(work).addErrback(failed)
    return done
