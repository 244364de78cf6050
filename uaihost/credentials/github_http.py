"""Asking a GitHub over HTTPS: one request, its whole answer, and why there is none.

It follows no redirect, keeps no cookie, and knows nothing of tokens but that headers hold them.
"""

from __future__ import annotations

import json
import os
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import attrs
from OpenSSL.crypto import Error as CertificateError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as NotConnected
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TransportProtocol
from twisted.internet.ssl import Certificate, platformTrust
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from uaihost.errors import SettingError
from uaihost.proxy import NotThrough, Proxies

log = Logger()

# Seconds for a whole answer. A token endpoint answers within one; beyond this the line is taken for dead.
TIMEOUT = 30.0
# Seconds of it for name lookup, TCP and TLS.
CONNECT_TIMEOUT = 15.0
# Bytes of an answer that are read: tokens have some 500, a user 2,000, a pull request 30,000.
LIMIT = 1 << 20
# Seconds that a server may tell us to wait (RFC 9110, section 10.2.3) before it is taken for a mistake.
LONGEST_WAIT = 3600.0


class Unanswered(Exception):
    """No answer that counts; the text says why, for people.

    sent: the server may have acted. wait: seconds that it wants to be left alone.
    """

    def __init__(self, why: str, *, sent: bool, wait: float | None = None) -> None:
        super().__init__(why)
        self.sent = sent
        self.wait = wait


@implementer(IAgentEndpointFactory)
class _Ways:
    """Connections to GitHub, through the proxies of the environment where there are any."""

    def __init__(self, reactor: Any, ca_file: Path | None) -> None:
        self._reactor = reactor
        self._policy = https_policy(ca_file)
        self._proxies = Proxies(os.environ)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        secure = uri.scheme == b"https"
        way = self._proxies.endpoint(
            self._reactor, uri.host.decode("ascii"), uri.port, secure=secure, timeout=CONNECT_TIMEOUT
        )
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), way) if secure else way


def github_agent(reactor: Any, ca_file: Path | None, pool: HTTPConnectionPool | None = None) -> Agent:
    """ca_file: certificates (PEM) that are trusted beside the machine's."""
    agent: Agent = Agent.usingEndpointFactory(reactor, _Ways(reactor, ca_file), pool)
    return agent


class GitHubClient:
    """Asks over connections of its own. ca_file: as for `github_agent`."""

    def __init__(self, reactor: Any, ca_file: Path | None) -> None:
        self._reactor = reactor
        self._agent = github_agent(reactor, ca_file)

    async def ask(self, method: str, url: str, **kwargs: Any) -> Answer:
        """The answer, whatever its status. kwargs: as of treq; Unanswered when there is none."""
        headers = {"Accept": "application/json", "User-Agent": "uaihost", **kwargs.pop("headers", {})}
        # A client of its own each time: it would keep cookies.
        asked: Deferred[Any] = HTTPClient(self._agent).request(
            method,
            url,
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
            **kwargs,
        )
        asked.addCallback(_read)
        asked.addTimeout(TIMEOUT, self._reactor)
        try:
            answer: Answer = await asked
        except Exception as error:
            raise _unanswered(error) from None
        return answer


@attrs.frozen
class Answer:
    status: int
    headers: Headers
    body: bytes = attrs.field(repr=False)

    @property
    def date(self) -> float | None:
        """The server's clock, seconds since the epoch (RFC 9110, section 6.6.1)."""
        try:
            return parsedate_to_datetime(self._header("date")).timestamp()
        except (ValueError, OverflowError):
            return None

    def object(self) -> dict[str, Any]:
        """The JSON object; Unanswered when it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.unexpected()
        return found

    def objects(self) -> list[dict[str, Any]]:
        """The JSON list of objects; Unanswered when it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.unexpected()
        return found

    def unexpected(self) -> Unanswered:
        limited = self.status == 429 or (self.status == 403 and self._wait() is not None)
        if limited:
            return Unanswered("GitHub wants fewer requests for a while", sent=False, wait=self._wait())
        if self.status >= 500:
            return Unanswered(f"GitHub has an outage (status {self.status})", sent=True, wait=self._wait())
        return Unanswered(f"GitHub's answer was not understood (status {self.status})", sent=True)

    def _wait(self) -> float | None:
        text = self._header("retry-after")
        return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else None

    def _header(self, name: str) -> str:
        return (self.headers.getRawHeaders(name) or [""])[0].strip()


def _read(response: Any) -> Deferred[Answer]:
    body = _Body()
    response.deliverBody(body)
    return body.done.addCallback(lambda data: Answer(response.code, response.headers, data))


class _Body(TransportProtocol):
    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > LIMIT and not self.done.called:
            self.done.errback(Unanswered("GitHub's answer was too long", sent=True))
            self._stop()

    def connectionLost(self, reason: Failure = ResponseDone) -> None:  # type: ignore[assignment]
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(bytes(self._data))
        else:
            self.done.errback(reason)

    def _stop(self) -> None:
        if self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()


def _unanswered(error: Exception) -> Unanswered:
    if isinstance(error, Unanswered):
        return error
    if isinstance(error, NotThrough | SettingError):
        return Unanswered(f"GitHub cannot be reached: {error}", sent=False)
    if isinstance(error, DNSLookupError | ConnectError | NotConnected):
        return Unanswered(f"GitHub cannot be reached ({type(error).__name__})", sent=False)
    reasons = [each.value for each in getattr(error, "reasons", [])]
    if any(isinstance(each, TimeoutError | CancelledError) for each in (error, *reasons)):
        return Unanswered(f"GitHub did not answer within {TIMEOUT:.0f} s", sent=True)
    if _untrusted(reasons):
        return Unanswered("GitHub's certificate cannot be verified; see UAI_CA_FILE", sent=False)
    # The request may have left: whether the server acted on it cannot be told from here.
    log.debug("an answer did not come: {error!r}", error=error)
    return Unanswered(f"the connection to GitHub broke ({type(error).__name__})", sent=True)


def _untrusted(reasons: list[Any]) -> bool:
    """The handshake ended over the certificate, so that no request has left."""
    return any(isinstance(one, VerificationError) or "certificate verify" in str(one) for one in reasons)


def https_policy(ca_file: Path | None) -> BrowserLikePolicyForHTTPS:
    """Whom to trust over TLS: the machine's authorities, and those of `ca_file` (PEM)."""
    return BrowserLikePolicyForHTTPS(platformTrust() if ca_file is None else _Trust(ca_file))


@implementer(IOpenSSLTrustRoot)
class _Trust:
    """The machine's authorities and those of a file."""

    def __init__(self, ca_file: Path) -> None:
        marker = b"-----BEGIN CERTIFICATE-----"
        try:
            parts = ca_file.read_bytes().split(marker)[1:]
            self._found = [Certificate.loadPEM(marker + part).original for part in parts]
        except (OSError, CertificateError) as error:
            raise SettingError(f"the CA file {ca_file} cannot be read: {error}") from None

    def _addCACertsToContext(self, context: Any) -> None:
        platformTrust()._addCACertsToContext(context)
        for each in self._found:
            context.get_cert_store().add_cert(each)
