"""Requests of tasks on their way to GitHub's API: the owner's token is added here, outside of containers.

It asks for what the rules let through (api_rules, graphql_rules) and nothing else, and follows no redirect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, ResponseDone
from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from uaihost.blocking import Blocking
from uaihost.credentials import graphql_rules
from uaihost.credentials.api_rules import Api
from uaihost.credentials.graphql_rules import Refused, Repository
from uaihost.proofs import Tokens

log = Logger()

# Requests of one task that GitHub works on at a time; further ones wait.
AT_ONCE = 4
# Bytes of an answer to GraphQL, which is read before it is handed on; gh's longest pages have some 100 KiB.
LONGEST_ANSWER = 4 << 20
# Seconds for GitHub to begin an answer.
TIMEOUT = 60.0

# What of a request and of its answer concerns what is asked. The rest is about connections and proofs.
_ASKED = ("Accept", "Content-Type", "If-None-Match", "If-Modified-Since", "Time-Zone", "X-GitHub-Api-Version")
_ANSWERED = frozenset(
    b"content-type content-language etag last-modified link retry-after location x-accepted-oauth-scopes "
    b"x-oauth-scopes x-github-request-id x-github-media-type".split()
)


class Desk(Protocol):
    """Of a task: whose it is, its repositories at this GitHub, and what it was shown of them."""

    @property
    def user_id(self) -> str: ...

    @property
    def granted(self) -> frozenset[Repository]: ...

    @property
    def known(self) -> frozenset[str]: ...

    @property
    def turns(self) -> DeferredSemaphore: ...

    def learn(self, identifiers: Iterable[str]) -> None: ...

    def note(self, what: str, host: str, path: str, outcome: str) -> None:
        """A line in the audit."""


@attrs.frozen
class _Asked:
    """path: for the audit; stored: it may lie elsewhere, to where the answer then points; request: set for
    GraphQL, whose answer is looked at."""

    url: str
    body: bytes
    path: str
    stored: bool = False
    request: graphql_rules.Request | None = None


class ApiForward:
    """The way to one GitHub. reading: where GraphQL is read, which takes up to a tenth of a second. agent:
    makes the connections, and knows whom to trust."""

    def __init__(self, clock: Any, reading: Blocking, agent: IAgent, tokens: Tokens, api: Api) -> None:
        self._clock = clock
        self._reading = reading
        self._agent = agent
        self._tokens = tokens
        self._api = api

    async def forward(self, desk: Desk, request: Request, body: bytes) -> None:
        """Answer `request`, whose body has been read.

        Raises:
            Refused: it is more than the task may ask for.
            HostError: `unavailable`, there is no token.
        """
        method = request.method.decode("ascii", "replace")
        await desk.turns.acquire()
        try:
            try:
                asked = await self._asked(desk, request, method, body)
            except Refused as error:
                path = request.uri.decode("latin-1").partition("?")[0]
                desk.note("api", self._api.host, f"{method} {path}", f"refused: {error}")
                raise
            response = await self._ask(desk, method, asked, request)
            desk.note("api", self._api.host, f"{method} {asked.path}", _outcome(response.code))
            if asked.stored and response.code in (301, 302, 303, 307, 308):
                response = await self._elsewhere(response)
            request.setResponseCode(response.code, response.phrase)
            for name, values in response.headers.getAllRawHeaders():
                if name.lower() in _ANSWERED or name.lower().startswith(b"x-ratelimit-"):
                    request.responseHeaders.setRawHeaders(name, values)
            if asked.request is None:
                await _pass_on(response, request)
                return
            answer = await _whole(response)
            if response.code == 200:
                desk.learn(await self._reading.call(asked.request.learn, answer))
            request.write(answer)
        finally:
            desk.turns.release()

    async def _asked(self, desk: Desk, request: Request, method: str, body: bytes) -> _Asked:
        host = (request.getHeader("host") or "").lower()
        target = request.uri.decode("latin-1")
        route = self._api.route(method, host, target, body, desk.granted)
        if route == "graphql":
            read = await self._reading.call(graphql_rules.check, body, desk.granted, desk.known)
            return _Asked(self._api.graphql_url, read.body, f"graphql {read.name}", request=read)
        return _Asked(self._api.url + route.path, body, route.path.partition("?")[0], route.stored)

    async def _ask(self, desk: Desk, method: str, asked: _Asked, request: Request) -> IResponse:
        token = await self._tokens.access(desk.user_id)
        response = await self._send(method, asked, request, token)
        if response.code != 401:
            return response
        # Nothing was done: the token ended before its time, or its clock differs.
        await _whole(response)
        self._tokens.refused(desk.user_id, token)
        other = await self._tokens.access(desk.user_id)
        return await self._send(method, asked, request, other)

    async def _elsewhere(self, response: IResponse) -> IResponse:
        """What GitHub has stored at a place that its answer names; no token goes there."""
        await _whole(response)
        place = (response.headers.getRawHeaders(b"location") or [b""])[0]
        if not place.startswith(b"https://") or not place.isascii():
            raise Refused("GitHub keeps it at a place that is not asked from here")
        asking = self._agent.request(b"GET", place, Headers({"User-Agent": ["uaihost"]}), None)
        asking.addTimeout(TIMEOUT, self._clock)
        found: IResponse = await asking
        return found

    async def _send(self, method: str, asked: _Asked, request: Request, token: str) -> IResponse:
        headers = Headers({"Authorization": [f"Bearer {token}"], "User-Agent": ["uaihost"]})
        for name in _ASKED:
            value = request.getHeader(name)
            if value is not None and value.isprintable():
                headers.setRawHeaders(name, [value])
        if asked.request is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
        body = FileBodyProducer(BytesIO(asked.body)) if asked.body or method != "GET" else None
        asking = self._agent.request(method.encode(), asked.url.encode(), headers, body)
        asking.addTimeout(TIMEOUT, self._clock)
        response: IResponse = await asking
        return response


def refusal(why: str) -> bytes:
    """An answer as GitHub's errors have it: gh shows the message."""
    return json.dumps({"message": why, "errors": [{"type": "FORBIDDEN", "message": why}]}).encode()


def _outcome(code: int) -> str:
    return "ok" if code < 400 else f"GitHub answered {code}"


class _Passing(TwistedProtocol):
    """An answer's body on its way to the task, as fast as the task reads."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.done: Deferred[None] = Deferred()
        self._gone = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._request.notifyFinish().addErrback(self._leave)
        self._request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if not self._gone:
            self._request.write(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if not self._gone:
            self._request.unregisterProducer()
        if not self.done.called:
            self.done.callback(None)

    def _leave(self, reason: Failure) -> None:
        self._gone = True
        assert self.transport is not None
        self.transport.loseConnection()


class _Collecting(TwistedProtocol):
    """An answer's body as a whole, up to a limit."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LONGEST_ANSWER:
            self._parts = []
            assert self.transport is not None
            self.transport.loseConnection()
            return
        self._parts.append(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._size > LONGEST_ANSWER:
            self.done.errback(Refused("GitHub's answer is too long; ask for less at once"))
        elif reason.check(ResponseDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


async def _pass_on(response: IResponse, request: Request) -> None:
    passing = _Passing(request)
    response.deliverBody(passing)
    await passing.done


async def _whole(response: IResponse) -> bytes:
    collecting = _Collecting()
    response.deliverBody(collecting)
    return await collecting.done
