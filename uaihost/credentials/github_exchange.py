"""What is said to a GitHub: a refresh token for a new pair, a token for the name of whom it belongs to.

RFC 6749, section 6, as GitHub speaks it: refusals come with status 200 and an `error`. It stores nothing,
tries nothing twice, and tells apart what was refused, what did not happen, and what may have happened.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

import attrs
from OpenSSL.crypto import Error as CertificateError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as NotConnected
from twisted.internet.protocol import Protocol as TransportProtocol
from twisted.internet.ssl import Certificate, platformTrust
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.http_headers import Headers
from zope.interface import implementer

from uaihost.errors import SettingError

log = Logger()

# Seconds for a whole answer. A token endpoint answers within one; beyond this the line is taken for dead.
TIMEOUT = 30.0
# Seconds of it for name lookup, TCP and TLS.
CONNECT_TIMEOUT = 15.0
# Bytes of an answer that are read: those of GitHub have some 500, a user's some 2,000.
LIMIT = 64 << 10
# Seconds that a server may tell us to wait (RFC 9110, section 10.2.3) before it is taken for a mistake.
LONGEST_WAIT = 3600.0

# Errors of RFC 6749, section 5.2, and GitHub's own, that say the grant itself is void.
_ENDED = frozenset({"bad_refresh_token", "invalid_grant"})


@attrs.frozen
class Pair:
    """What an exchange brought.

    refresh: the refresh token that counts from now on; None: the old one goes on counting. ends and
    refresh_ends: seconds since the epoch by the server's clock; None: not told. skew: seconds that the
    server's clock is ahead of ours.
    """

    access: str = attrs.field(repr=False)
    ends: float | None
    refresh: str | None = attrs.field(repr=False)
    refresh_ends: float | None
    skew: float = 0.0


class Ended(Exception):
    """The server does not take this token any more. The text says why, for people."""


class Misconfigured(Exception):
    """The server does not take this host's App; no token was used up. The text says why, for people."""


class Unanswered(Exception):
    """No answer that counts; the text says why, for people.

    sent: the server may have acted. wait: seconds that it wants to be left alone.
    """

    def __init__(self, why: str, *, sent: bool, wait: float | None = None) -> None:
        super().__init__(why)
        self.sent = sent
        self.wait = wait


class Exchange(Protocol):
    """A GitHub."""

    async def renew(self, refresh: str) -> Pair:
        """A new pair for a refresh token, which is void from then on. Raises the three above."""

    async def whose(self, token: str) -> str:
        """The login of whom an access token belongs to. Raises Ended or Unanswered."""


class GitHubServer:
    """Exchange over HTTPS.

    url, api_url: without a closing slash. client_id: of the GitHub App; None: nothing can be exchanged.
    ca_file: certificates (PEM) that are trusted beside the machine's own.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        api_url: str,
        client_id: str | None,
        client_secret: str | None,
        ca_file: Path | None = None,
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._api_url = api_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._agent = Agent(reactor, https_policy(ca_file), connectTimeout=CONNECT_TIMEOUT)

    async def renew(self, refresh: str) -> Pair:
        if self._client_id is None:
            raise Misconfigured("this host has no GitHub App; set UAI_GITHUB_CLIENT_ID")
        form = {"client_id": self._client_id, "grant_type": "refresh_token", "refresh_token": refresh}
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret
        asked = self._reactor.seconds()
        answer = await self._ask("POST", f"{self._url}/login/oauth/access_token", data=form)
        said = answer.object()
        error = said.get("error")
        if isinstance(error, str):
            raise _refusal(error, answer.status)
        if answer.status != 200:
            raise answer.unexpected()
        return _pair(said, asked, answer.date)

    async def whose(self, token: str) -> str:
        answer = await self._ask("GET", f"{self._api_url}/user", headers={"Authorization": f"Bearer {token}"})
        if answer.status == 401:
            raise Ended("GitHub does not take the token; it has expired or was revoked")
        login = answer.object().get("login") if answer.status == 200 else None
        if not isinstance(login, str) or not login:
            raise answer.unexpected()
        return login

    async def _ask(self, method: str, url: str, **kwargs: Any) -> _Answer:
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
            answer: _Answer = await asked
        except Exception as error:
            raise _unanswered(error) from None
        return answer


@attrs.frozen
class _Answer:
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


def _pair(said: dict[str, Any], asked: float, date: float | None) -> Pair:
    """asked: our clock when the request was sent, so that its way counts against the token's life."""
    access, refresh = said.get("access_token"), said.get("refresh_token")
    if not _usable(access) or not (refresh is None or _usable(refresh)):
        raise Unanswered("GitHub's answer held no token", sent=True)
    now = asked if date is None else date
    ends, refresh_ends = (_after(now, said.get(n)) for n in ("expires_in", "refresh_token_expires_in"))
    return Pair(str(access), ends, refresh, refresh_ends, now - asked)


def _usable(token: Any) -> bool:
    """It can stand in a header and in git's credential protocol."""
    return isinstance(token, str) and 0 < len(token) <= 4096 and all("!" <= each <= "~" for each in token)


def _after(now: float, lasts: Any) -> float | None:
    # GitHub gives numbers, some servers give them as text.
    try:
        return None if lasts is None or isinstance(lasts, bool) else now + int(lasts)
    except (ValueError, TypeError, OverflowError):
        return None


def _refusal(error: str, status: int) -> Exception:
    name = "".join(each for each in error[:60] if each.isalnum() or each == "_")
    if error in _ENDED:
        return Ended("GitHub does not take the refresh token; it was revoked, or used elsewhere")
    if status == 429 or status >= 500 or error in ("server_error", "temporarily_unavailable"):
        return Unanswered(f"GitHub could not do it now ({name})", sent=status != 429)
    return Misconfigured(
        f"GitHub does not take this host's App ({name}); check UAI_GITHUB_CLIENT_ID and "
        "UAI_GITHUB_CLIENT_SECRET"
    )


def _read(response: Any) -> Deferred[_Answer]:
    body = _Body()
    response.deliverBody(body)
    return body.done.addCallback(lambda data: _Answer(response.code, response.headers, data))


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
