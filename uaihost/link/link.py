"""The host's one link to its bridge: connects, connects again, and says how it stands.

Twisted's ClientService keeps the connection; this service gives every connection a session and the outbox,
and gives up only when the bridge rejects the host. Its steps over time are the only knowledge here.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal, cast

import attrs
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.counts import Tally
from uaihost.interfaces import Journal, Store
from uaihost.link.endpoint import Closed
from uaihost.link.outbound import Outbound
from uaihost.link.outbox import Outbox
from uaihost.link.session import Greeting, Inbound, Proof, Session
from uaihost.link.socket import MessageSocket
from uaihost.wire.frames import Frame

log = Logger()

# Seconds before the first, second, ... attempt after a loss; the last one stays. Each is multiplied by a
# random number of the range below, so that a bridge that comes back is not met by all its hosts at once
# (docs/protocol.md, section 1).
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0)
JITTER = (0.8, 1.2)

# The close code by which a bridge rejects a host for good.
REJECTED = 4001

# Seconds that `drain` waits for the bridge to have read what was written.
DRAIN_TIMEOUT = 5.0

StateName = Literal["stopped", "connecting", "connected", "waiting", "fatal"]


@attrs.frozen
class LinkState:
    """How the link stands. since and retry_at: seconds of the clock; reason: of the last loss, or empty."""

    name: StateName
    since: float
    reason: str = ""
    retry_at: float | None = None


# Ways that a connection ends; without a close it is `other`.
CODES = ("1000", "1001", "1002", "1006", "1009", "1011", str(REJECTED))


def _nothing(*args: object) -> None:
    """What is done where nobody wants to know."""


@attrs.frozen
class Hooks:
    """What others do as the link comes and goes.

    connected: a session has said its first frames; its outbound gives tunnels their outlets.
    lost: the session is gone, with the reason. fatal: the bridge rejected this host, and no attempt follows.
    changed: the state is another. None of `lost` and `changed` may start or stop the link.
    """

    connected: Callable[[Session, Outbound], None] = _nothing
    lost: Callable[[str], None] = _nothing
    fatal: Callable[[str], None] = _nothing
    changed: Callable[[LinkState], None] = _nothing


class Link(Service):
    """The service.

    endpoint: gives open sockets (link.endpoint.bridge_endpoint). session: the present one or None.
    """

    name = "link"

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        greeting: Greeting,
        inbound: Inbound,
        *,
        journal: Journal,
        store: Store,
        random: Random,
        hooks: Hooks,
    ) -> None:
        self._clock = clock
        self._greeting = greeting
        self._inbound = inbound
        self._random = random
        self._hooks = hooks
        self._reason = ""
        self._outbox = Outbox(clock, journal, store)
        # Whether the client runs or still ends, and who waits for its end.
        self._going = False
        self._ending: list[Deferred[None]] = []
        self._client = ClientService(
            _Watched(endpoint, self), Factory.forProtocol(lambda: _Line(self)), self._retry_delay, clock
        )
        self.session: Session | None = None
        self.state = LinkState("stopped", clock.seconds())
        # Since when no bridge is reached, over all attempts; None while one is.
        self.apart: float | None = clock.seconds()
        # Seconds of the clock; None before the first connection opened.
        self.connected_at: float | None = None
        # Since the start: connections, attempts that failed, and ends by close code (RFC 6455, section 7.4).
        self.connects = 0
        self.failures = 0
        self.losses = Tally(CODES)

    def startService(self) -> None:
        super().startService()
        self._going = True
        self._outbox.start()
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """Close with 1001 and end; bounded by the socket's closing time-out. `drain` comes first."""
        super().stopService()
        return self._end()

    async def drain(self, timeout: float = DRAIN_TIMEOUT) -> bool:
        """Wait until the bridge has read every row; False when it has not within `timeout` seconds.

        Rows that have not left stay in the database for the next start.
        """
        draining = Deferred.fromCoroutine(self._outbox.drained())
        draining.addTimeout(timeout, self._clock)
        try:
            return await draining
        except (TimeoutError, CancelledError):
            return False

    def send(self, frame: Frame) -> None:
        """A control frame that is worth nothing after a cut; dropped when there is no connection."""
        if self.session is not None:
            self.session.send(frame)

    def advertise(self) -> None:
        """The capabilities changed; without a connection the next one sends them anyway."""
        if self.session is not None:
            self.session.advertise()

    def _enter(self, name: StateName, retry_at: float | None = None) -> None:
        now = self._clock.seconds()
        self.state = LinkState(name, now, self._reason, retry_at)
        if name == "connected":
            self.apart = None
        elif self.apart is None:
            self.apart = now
        self._tell(self._hooks.changed, self.state)

    def _end(self) -> Deferred[None]:
        """Stop the client once, however many ask: its machine cannot be asked again from its callbacks."""
        if not self._going:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._ending.append(done)
        if len(self._ending) == 1:
            self._outbox.stop()
            self._client.stopService().addCallback(self._ended)
        return done

    def _ended(self, result: None) -> None:
        self._going = False
        # A rejected host stays rejected.
        if self.state.name != "fatal":
            self._enter("stopped")
        ending, self._ending = self._ending, []
        for done in ending:
            done.callback(None)

    def _retry_delay(self, attempt: int) -> float:
        """ClientService asks before it waits; `attempt` is 1 after a connection that had opened."""
        delay = RETRY_DELAYS[min(attempt, len(RETRY_DELAYS)) - 1] * self._random.uniform(*JITTER)
        self._enter("waiting", self._clock.seconds() + delay)
        return delay

    def _attempting(self) -> None:
        self._enter("connecting")

    def _attempt_failed(self, failure: Failure) -> Failure:
        if not failure.check(CancelledError):
            self.failures += 1
            self._reason = failure.getErrorMessage()
            log.warn("no connection to the bridge: {reason}", reason=self._reason)
        return failure

    def _opened(self, socket: MessageSocket) -> None:
        outbox = self._outbox
        session = Session(
            self._clock,
            socket,
            self._greeting,
            self._inbound,
            Proof(pinged=outbox.pinged, ponged=outbox.ponged),
        )
        self.session = session
        self.connects += 1
        self.connected_at = self._clock.seconds()
        self._reason = ""
        session.start()
        log.info("connected to the bridge")
        self._enter("connected")
        self._tell(self._hooks.connected, session, session.outbound)
        outbox.connected(session.outbound, session.heartbeat.ping)

    def _closed(self, why: BaseException) -> None:
        code, reason = (why.code, why.reason) if isinstance(why, Closed) else (None, str(why))
        self.session = None
        self.losses.add(str(code))
        self._outbox.lost()
        self._reason = reason or f"closed with code {code}"
        log.warn("the connection to the bridge ended ({code}): {reason}", code=code, reason=self._reason)
        self._tell(self._hooks.lost, self._reason)
        if code == REJECTED:
            log.error("the bridge rejected this host: {reason}", reason=self._reason)
            self._enter("fatal")
            self._end()
            self._tell(self._hooks.fatal, self._reason)

    def _tell(self, hook: Callable[..., None], *args: object) -> None:
        try:
            hook(*args)
        except Exception:
            log.failure("what follows the link failed")


class _Line(Protocol):
    """What ClientService holds of a connection."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def connectionMade(self) -> None:
        # The endpoint gives open sockets for transports.
        self._link._opened(cast(MessageSocket, self.transport))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        self._link._closed(reason.value)


@implementer(IStreamClientEndpoint)
class _Watched:
    """The endpoint with its attempts made known; ClientService keeps their failures to itself."""

    def __init__(self, endpoint: IStreamClientEndpoint, link: Link) -> None:
        self._endpoint = endpoint
        self._link = link

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self._link._attempting()
        return self._endpoint.connect(protocolFactory).addErrback(self._link._attempt_failed)

    def __repr__(self) -> str:
        return repr(self._endpoint)
