"""What is said to a GitHub: a refresh token for a new pair, a token for the name of whom it belongs to.

RFC 6749, section 6, as GitHub speaks it: refusals come with status 200 and an `error`. It stores nothing,
tries nothing twice, and tells apart what was refused, what did not happen, and what may have happened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs

from uaihost.counts import Lifecycle
from uaihost.credentials.github_http import GitHubClient, Unanswered

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
        self._client = GitHubClient(reactor, ca_file)
        # Exchanges since the start.
        self.renewals = Lifecycle()

    async def renew(self, refresh: str) -> Pair:
        with self.renewals.run():
            return await self._renewed(refresh)

    async def _renewed(self, refresh: str) -> Pair:
        if self._client_id is None:
            raise Misconfigured("this host has no GitHub App; set UAI_GITHUB_CLIENT_ID")
        form = {"client_id": self._client_id, "grant_type": "refresh_token", "refresh_token": refresh}
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret
        asked = self._reactor.seconds()
        answer = await self._client.ask("POST", f"{self._url}/login/oauth/access_token", data=form)
        said = answer.object()
        error = said.get("error")
        if isinstance(error, str):
            raise _refusal(error, answer.status)
        if answer.status != 200:
            raise answer.unexpected()
        return _pair(said, asked, answer.date)

    async def whose(self, token: str) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self._client.ask("GET", f"{self._api_url}/user", headers=headers)
        if answer.status == 401:
            raise Ended("GitHub does not take the token; it has expired or was revoked")
        login = answer.object().get("login") if answer.status == 200 else None
        if not isinstance(login, str) or not login:
            raise answer.unexpected()
        return login


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
