"""From a destination to a connection: looked up once, judged, and dialled at the address that was judged.

A name that is looked up a second time can have another address by then (DNS rebinding). A name that the
policy does not list is not looked up at all: the question alone would carry data out.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.egress.names import Destination, IPAddress, unmapped
from uaihost.egress.policy import Policy, Verdict

# Lookups at once. Each holds a thread of the reactor's pool of ten for as long as the name's servers like,
# and the link to the bridge needs that pool too.
LOOKUPS = 4
# Seconds for a lookup, its turn included, and to connect to one address.
LOOKUP_TIMEOUT = 20.0
CONNECT_TIMEOUT = 10.0
# Addresses of one name that are kept; and of each kind that are tried, one after another.
_ADDRESSES = 16
_TRIES = 2


class Refused(Exception):
    """The policy forbids it; the text is the verdict's sentence."""


class Unreachable(Exception):
    """It is permitted and does not answer; the text is for people."""


class Dialler:
    """Connects for tasks.

    resolver: looks names up; as a rule the reactor's own.
    """

    def __init__(self, reactor: Any, policy: Policy, resolver: IHostnameResolver | None = None) -> None:
        self._reactor = reactor
        self._policy = policy
        self._resolver = resolver
        self._lookups = DeferredSemaphore(LOOKUPS)

    async def connect(self, to: Destination, factory: IProtocolFactory) -> IProtocol:
        """The protocol that `factory` built, connected to `to`.

        Raises:
            Refused: by name or by address.
            Unreachable: no such name, no answer.
        """
        _insist(self._policy.verdict(to.host, to.port))
        literal = to.address
        found = [literal] if literal is not None else await self._look_up(to)
        verdicts = [(address, self._policy.reach(to, address)) for address in found]
        permitted = [address for address, verdict in verdicts if verdict.allowed]
        if not permitted:
            raise Refused(verdicts[0][1].why)
        # IPv4 first: many networks only look as if they had IPv6, and a packet lost there takes long to miss.
        tries = [
            address
            for version in (4, 6)
            for address in [found for found in permitted if found.version == version][:_TRIES]
        ]
        return await self._first_of(to, tries, factory)

    async def _first_of(
        self, to: Destination, addresses: Sequence[IPAddress], factory: IProtocolFactory
    ) -> IProtocol:
        problem = ""
        for address in addresses:
            kind = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
            try:
                protocol = await kind(self._reactor, str(address), to.port, CONNECT_TIMEOUT).connect(factory)
            except (CancelledError, ConnectingCancelledError):
                raise
            except Exception as error:
                problem = str(error).rstrip(".")
                continue
            self._not_this_machine(to, address, protocol)
            return protocol
        raise Unreachable(f"{to} does not answer: {problem}")

    def _not_this_machine(self, to: Destination, address: IPAddress, protocol: IProtocol) -> None:
        """A public address may be this host's own, where services listen that are not for tasks.

        The system says it: it talks to its own addresses from the same address. No byte was sent yet.
        """
        connected: Any = protocol
        transport = connected.transport
        if transport.getHost().host != transport.getPeer().host:
            return
        verdict = self._policy.own_address(to, address)
        if not verdict.allowed:
            transport.abortConnection()
            raise Refused(verdict.why)

    async def _look_up(self, to: Destination) -> list[IPAddress]:
        # The lookup keeps its turn until it really ends; who asked does not wait that long.
        asked: Deferred[list[IPAddress]] = Deferred()
        lookup: Deferred[list[IPAddress]] = self._lookups.run(self._resolve, to.host)

        def tell(result: list[IPAddress] | Failure) -> None:
            if not asked.called:
                asked.callback(result)

        lookup.addBoth(tell)
        asked.addTimeout(LOOKUP_TIMEOUT, self._reactor)
        try:
            addresses = await asked
        except CancelledError:
            raise
        except Exception as error:
            raise Unreachable(f"the name {to.host} cannot be looked up: {error}") from None
        if not addresses:
            raise Unreachable(f"the name {to.host} has no address")
        return addresses

    def _resolve(self, host: str) -> Deferred[list[IPAddress]]:
        found = _Found()
        resolver = self._resolver or self._reactor.nameResolver
        resolver.resolveHostName(found, host)
        return found.complete


@implementer(IResolutionReceiver)
class _Found:
    """Takes the addresses of one name."""

    def __init__(self) -> None:
        self.complete: Deferred[list[IPAddress]] = Deferred()
        self._addresses: list[IPAddress] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """The resolver has taken the question."""

    def addressResolved(self, address: IAddress) -> None:
        where: Any = address
        text: str = where.host
        found = unmapped(ip_address(text.partition("%")[0]))
        if found not in self._addresses and len(self._addresses) < _ADDRESSES:
            self._addresses.append(found)

    def resolutionComplete(self) -> None:
        self.complete.callback(self._addresses)


def _insist(verdict: Verdict) -> None:
    if not verdict.allowed:
        raise Refused(verdict.why)
