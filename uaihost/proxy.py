"""A proxy between this machine and the internet: which connections go through one, and how.

The environment decides, in the names that curl and git read: `https_proxy` for TLS, `http_proxy` for the
rest, `all_proxy` for both, `no_proxy` for what goes directly; all but `http_proxy` also in capitals. A
connection goes through a tunnel that the proxy opens with CONNECT (RFC 9110, section 9.3.6), so that TLS is
with the other end and the proxy reads none of it. It knows nothing of what is said inside.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as NotConnected
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.errors import SettingError

# Bytes of a proxy's answer before the tunnel is open: a page about a sign-in is not read.
LIMIT = 16 << 10

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_PORTS = {"http": 80, "https": 443}


class NotThrough(Exception):
    """A proxy opened no tunnel; the text says why and names the proxy, never its password."""


@attrs.frozen
class Proxy:
    """variable: what named it. authorization: what it is shown, None where it asks for nothing."""

    host: str
    port: int
    secure: bool
    variable: str
    authorization: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        return _authority(self.host, self.port)


@attrs.frozen
class Proxies:
    """What an environment says of proxies; it may hold a password."""

    _environ: Mapping[str, str] = attrs.field(repr=False, factory=dict)

    def towards(self, host: str, port: int, secure: bool) -> Proxy | None:
        """The proxy for a connection to `host`, or None for a direct one. secure: TLS is spoken with `host`.

        Raises:
            SettingError: what is set can be no proxy; the message names the variable.
        """
        variable = next(filter(self._environ.get, self._names(secure)), None)
        if variable is None or _near(host) or self._excepted(host, port):
            return None
        return _parse(variable, self._environ[variable])

    def endpoint(
        self, reactor: Any, host: str, port: int, *, secure: bool, timeout: float
    ) -> IStreamClientEndpoint:
        """A byte stream to `host`, without TLS of its own; `connect` may fail with NotThrough.

        timeout: seconds for name lookup and TCP.

        Raises:
            SettingError: as `towards`.
        """
        proxy = self.towards(host, port, secure)
        if proxy is None:
            return HostnameEndpoint(reactor, host, port, timeout=timeout)
        way: IStreamClientEndpoint = HostnameEndpoint(reactor, proxy.host, proxy.port, timeout=timeout)
        if proxy.secure:
            way = wrapClientTLS(optionsForClientTLS(proxy.host), way)
        try:
            return TunnelEndpoint(way, proxy, host, port)
        except UnicodeError:
            raise SettingError(f"{host!r} can be no name of a machine") from None

    def _names(self, secure: bool) -> tuple[str, ...]:
        # Not HTTP_PROXY: a web server calls a request's `Proxy` header so, and curl does not read it either.
        own = ("https_proxy", "HTTPS_PROXY") if secure else ("http_proxy",)
        return (*own, "all_proxy", "ALL_PROXY")

    def _excepted(self, host: str, port: int) -> bool:
        said = self._environ.get("no_proxy") or self._environ.get("NO_PROXY") or ""
        return any(
            _covers(entry, host.rstrip(".").lower(), port) for entry in re.split(r"[,\s]+", said.lower())
        )


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """Connects to `host` through `proxy`, which `way` connects to."""

    def __init__(self, way: IStreamClientEndpoint, proxy: Proxy, host: str, port: int) -> None:
        self._way = way
        self._proxy = proxy
        self._target = _authority(host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with an open tunnel; fails with NotThrough."""
        connecting = self._way.connect(
            Factory.forProtocol(lambda: _Tunnel(self._proxy, self._target, protocolFactory))
        )
        return connecting.addCallbacks(lambda tunnel: tunnel.opened, self._unreached)

    def _unreached(self, failure: Failure) -> Failure:
        if not failure.check(ConnectError, DNSLookupError, NotConnected):
            return failure
        return Failure(
            NotThrough(
                f"the proxy {self._proxy} of {self._proxy.variable} cannot be reached: "
                f"{failure.getErrorMessage()}"
            )
        )


class _Tunnel(Protocol):
    """Asks for a tunnel, and then hands over what comes through it."""

    def __init__(self, proxy: Proxy, target: str, factory: IProtocolFactory) -> None:
        self.opened: Deferred[Any] = Deferred(self._cancelled)
        self._proxy = proxy
        self._target = target
        self._factory = factory
        self._head = b""
        self._inner: Any = None

    def connectionMade(self) -> None:
        lines = [f"CONNECT {self._target} HTTP/1.1", f"Host: {self._target}", "User-Agent: uaihost"]
        if self._proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {self._proxy.authorization}")
        assert self.transport is not None
        self.transport.write("\r\n".join((*lines, "", "")).encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        while not self.opened.called and (end := _END.search(self._head)):
            head, self._head = self._head[: end.end()], self._head[end.end() :]
            self._answered(_STATUS.match(head))
        if not self.opened.called and len(self._head) > LIMIT:
            self._refused("answered with something that is no proxy's")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self._refused("closed the connection before it opened a tunnel")

    def _answered(self, found: re.Match[bytes] | None) -> None:
        status = 0 if found is None else int(found[1])
        if 100 <= status < 200:
            # The final answer follows (RFC 9110, section 15.2).
            return
        if 200 <= status < 300:
            self._open()
        elif found is None:
            self._refused("answered with something that is no proxy's")
        elif status in (401, 407):
            # Tinyproxy says 401 of a wrong password.
            asked = "another user and password" if self._proxy.authorization else "a user and a password"
            named = f"{self._proxy.variable}=http://USER:PASSWORD@{self._proxy}"
            self._refused(f"wants {asked} ({status}): {named} names them")
        else:
            said = "".join(filter(str.isprintable, (found[2] or b"").decode("latin-1")))[:80]
            self._refused(f"opens no way to {self._target} ({status} {said})".replace(" )", ")"))

    def _open(self) -> None:
        assert self.transport is not None
        inner = self._factory.buildProtocol(self.transport.getPeer())
        assert inner is not None, "the factory refused the connection"
        rest, self._head = self._head, b""
        self._inner = inner
        inner.makeConnection(self.transport)
        self.opened.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _refused(self, why: str) -> None:
        self._head = b""
        self.opened.errback(NotThrough(f"the proxy {self._proxy} {why}"))
        self._abort()

    def _cancelled(self, _: Deferred[Any]) -> None:
        self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()


def _parse(variable: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in _PORTS or not host or port == 0 or not host.isascii():
        raise SettingError(
            f"{variable} names no proxy that can be used; legal forms are "
            "http://[USER:PASSWORD@]HOST[:PORT] and https://[USER:PASSWORD@]HOST[:PORT]"
        )
    shown = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        shown = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(host, port or _PORTS[parts.scheme], parts.scheme == "https", variable, shown)


def _authority(host: str, port: int) -> str:
    if not host.isascii():
        # As name servers know it (RFC 5891).
        host = host.encode("idna").decode("ascii")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _near(host: str) -> bool:
    """This machine: no proxy has a way to it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of `no_proxy` stands for this host: `*`, a name with all below it, an address, or a
    network. A name or an address may have a port."""
    if entry == "*":
        return True
    named = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+):(\d+)", entry)
    if named is not None:
        entry = named[1] or named[3]
        only = named[2] or named[4]
        if only is not None and int(only) != port:
            return False
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except (ValueError, TypeError):
        name = entry.removeprefix("*").removeprefix(".").rstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
