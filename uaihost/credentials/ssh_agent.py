"""An SSH agent for one task: it shows the user's one key and signs sign-ins at the task's forges, no more.

The protocol: draft-ietf-sshm-ssh-agent. A client first binds its connection to the server's key and the
session (OpenSSH's PROTOCOL.agent, session-bind; OpenSSH 8.9 and later do); what it then has signed must be a
sign-in in that very session. So nobody can carry a signature to another server, or have anything else signed.
It must not know where keys lie, nor where its socket is. Everything that comes over it is hostile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from uaihost.credentials import ssh_wire as wire
from uaihost.credentials.allowance import Allowance
from uaihost.credentials.known_hosts import Destination, destinations
from uaihost.errors import HostError
from uaihost.proofs import Grant, SshKeys

log = Logger()

# Connections at once; git opens one for each repository that it fetches, a dozen submodules at once.
CONNECTIONS = 32
# Messages on one connection: a client that signs in sends three or four.
MESSAGES = 32
# Seconds without a word.
IDLE = 60.0
# Uses that the audit is told of, at once and then each second: a task must not flush it with its own.
BURST, RATE = 120.0, 2.0

_FAILURE = bytes([wire.FAILURE])


class Audit(Protocol):
    """Where each use is noted (credentials.audit)."""

    def __call__(self, *, user: str, task: str, what: str, host: str, path: str, outcome: str) -> object: ...


# A server's key and some servers in, those of them out whose key it may be.
Hosts = Callable[[bytes, Sequence[Destination]], Awaitable[tuple[Destination, ...]]]


class _Refused(Exception):
    """It is not signed; the text says why."""


@attrs.frozen
class _Bound:
    """What a connection was bound to. to: the grant's servers that have that key."""

    session: bytes
    host_key: bytes
    to: tuple[Destination, ...]


class AgentFactory(protocol.Factory):
    """The connections of one task's socket.

    grant: may be replaced; the next message counts by the new one. hosts: knows servers by their keys.
    """

    noisy = False

    def __init__(
        self,
        clock: Any,
        keys: SshKeys,
        grant: Grant,
        hosts: Hosts,
        audit: Audit,
    ) -> None:
        self.clock = clock
        self.keys = keys
        self.grant = grant
        self.hosts = hosts
        self._audit = audit
        self.connections: set[AgentConnection] = set()
        self._allowance = Allowance(clock, BURST, RATE)

    def buildProtocol(self, addr: IAddress | None) -> protocol.Protocol | None:
        if len(self.connections) >= CONNECTIONS:
            return None
        return AgentConnection(self)

    def close(self) -> None:
        """End all connections; the socket itself belongs to who listens on it."""
        for connection in list(self.connections):
            connection.abort()

    def allowed(self) -> bool:
        """Whether one more use is in the task's bounds, which then counts."""
        return self._allowance.take()

    def tell(self, host: str, outcome: str) -> None:
        grant = self.grant
        self._audit(user=grant.user_id, task=grant.task_id, what="sign", host=host, path="", outcome=outcome)


def agent_factory(
    clock: Any,
    keys: SshKeys,
    grant: Grant,
    hosts: Hosts,
    audit: Audit,
) -> AgentFactory:
    """For the socket of one task."""
    return AgentFactory(clock, keys, grant, hosts, audit)


class AgentConnection(protocol.Protocol, TimeoutMixin):
    """One client: a message, its answer, the next one."""

    def __init__(self, owner: AgentFactory) -> None:
        self._owner = owner
        self._data = b""
        self._answering = False
        self._messages = 0
        self._bound: _Bound | None = None
        # A binding was refused: whatever this connection is for, nothing is shown or signed on it.
        self._closed_up = False

    def connectionMade(self) -> None:
        self._owner.connections.add(self)
        self.setTimeout(IDLE)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._owner.connections.discard(self)
        self.setTimeout(None)
        self._data = b""

    def callLater(self, period: float, func: Callable[[], None]) -> Any:  # TimeoutMixin's
        return self._owner.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._transport().abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        self._next()

    def _next(self) -> None:
        """Answer the first whole message, unless one is being answered."""
        if self._answering or len(self._data) < 4 or self not in self._owner.connections:
            return
        length = int.from_bytes(self._data[:4], "big")
        if not 1 <= length <= wire.LONGEST or self._messages >= MESSAGES:
            self.abort()
            return
        if len(self._data) < 4 + length:
            return
        message, self._data = self._data[4 : 4 + length], self._data[4 + length :]
        self._messages += 1
        self._answering = True
        self.resetTimeout()
        # What comes meanwhile stays in the socket.
        self._transport().pauseProducing()
        Deferred.fromCoroutine(self._answer(message[0], message[1:])).addBoth(self._answered)

    def _answered(self, answer: bytes | Failure) -> None:
        self._answering = False
        if self not in self._owner.connections:
            return
        if isinstance(answer, Failure):
            if not answer.check(HostError, ValueError):
                log.failure("an SSH agent's message was not answered", answer)
            answer = _FAILURE
        self._transport().write(wire.string(answer))
        self._transport().resumeProducing()
        self._next()

    async def _answer(self, kind: int, body: bytes) -> bytes:
        if kind == wire.REQUEST_IDENTITIES and not body:
            return await self._identities()
        if kind == wire.EXTENSION:
            return await self._bind(body)
        if kind == wire.SIGN_REQUEST:
            return await self._sign(body)
        return _FAILURE

    async def _identities(self) -> bytes:
        key = None if self._closed_up else await self._owner.keys.public(self._owner.grant.user_id)
        head = bytes([wire.IDENTITIES_ANSWER])
        if key is None:
            return head + (0).to_bytes(4, "big")
        return head + (1).to_bytes(4, "big") + wire.string(key) + wire.string(b"uaihost")

    async def _bind(self, body: bytes) -> bytes:
        binding = wire.read_binding(body)
        if binding is None:
            return _FAILURE
        key = wire.fingerprint(binding.host_key)
        # Until it is known to be right, and for good when it is not.
        again, self._closed_up = self._bound is not None or self._closed_up, True
        self._bound = None
        if not self._owner.allowed():
            return _FAILURE
        if again or binding.forwarding:
            self._owner.tell(key, "refused: the connection was passed on from another one")
            return _FAILURE
        if not wire.proves(binding):
            self._owner.tell(key, "refused: the server did not sign the session")
            return _FAILURE
        granted = destinations(self._owner.grant.repositories)
        to = await self._owner.hosts(binding.host_key, granted)
        if not to:
            self._owner.tell(key, "refused: not the known key of a server of the task's repositories")
            return _FAILURE
        self._bound, self._closed_up = _Bound(binding.session, binding.host_key, to), False
        return bytes([wire.SUCCESS])

    async def _sign(self, body: bytes) -> bytes:
        bound, owner = self._bound, self._owner
        if not owner.allowed():
            return _FAILURE
        host = bound.to[0].name if bound else ""
        try:
            data, host = await self._checked(body)
            signature = await owner.keys.sign(owner.grant.user_id, data)
        except _Refused as refused:
            owner.tell(host, f"refused: {refused}")
            return _FAILURE
        except HostError as error:
            owner.tell(host, f"failed: {error.message}")
            return _FAILURE
        owner.tell(host, "ok")
        return bytes([wire.SIGN_RESPONSE]) + wire.string(signature)

    async def _checked(self, body: bytes) -> tuple[bytes, str]:
        """What to sign, and for which server; _Refused."""
        bound, owner = self._bound, self._owner
        if bound is None:
            raise _Refused("the client did not say for which server; OpenSSH does from 8.9 on")
        try:
            request = wire.read_sign_request(body)
            sign_in = wire.read_sign_in(request.data)
        except ValueError as error:
            raise _Refused(f"what was to be signed is no sign-in: {error}") from None
        if request.key != sign_in.key or request.key != await owner.keys.public(owner.grant.user_id):
            raise _Refused("it asks for another key than the user's")
        if sign_in.session != bound.session:
            raise _Refused("it signs in on another connection than the one that was said")
        if sign_in.host_key not in (None, bound.host_key):
            raise _Refused("it signs in to another server than the one that was said")
        granted = destinations(owner.grant.repositories)
        for one in bound.to:
            if one in granted and one.user.encode() == sign_in.user:
                return request.data, one.name
        raise _Refused(f"it signs in as {sign_in.user[:40].decode('utf-8', 'replace')!r}")

    def _transport(self) -> Any:
        return self.transport
