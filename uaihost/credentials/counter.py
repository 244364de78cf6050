"""The counter of one task: HTTP/1.1 on its `git.sock`, where git asks for a token and gh for GitHub's API.

    POST /credential/get, /store, /erase   lines of git-credential(1), in and out
    anything else                          a request to GitHub's API

It bounds what comes in and turns refusals into answers; what is allowed is decided by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from uaihost.credentials import git_credentials
from uaihost.credentials.allowance import Allowance
from uaihost.credentials.api_forward import AT_ONCE, ApiForward, refusal
from uaihost.credentials.graphql_rules import Refused, Repository
from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import Grant, Tokens

log = Logger()

# Bytes of a request's body: the longest text of a pull request has 256 KiB.
LONGEST = 512 << 10
# Connections of one task at once; git and gh take one each.
CONNECTIONS = 32
# Seconds for a request to come in.
IDLE = 60
# Uses of a task at once, and each second: it must not flush the audit with its own.
BURST, RATE = 240.0, 4.0
# Identifiers that a task was shown; the oldest are forgotten.
KNOWN = 20_000

# what, host, path, outcome
Note = Callable[[str, str, str, str], object]


class TaskDesk:
    """api_forward.Desk: what a task may use, and what it was shown.

    host: of the user's GitHub, as https addresses have it; None when the user is not connected.
    """

    def __init__(self, clock: Any, grant: Grant, host: Callable[[], str | None], note: Note) -> None:
        self.grant = grant
        self.turns = DeferredSemaphore(AT_ONCE)
        self._host = host
        self._note = note
        self._known: dict[str, None] = {}
        self._allowance = Allowance(clock, BURST, RATE)

    @property
    def user_id(self) -> str:
        return self.grant.user_id

    @property
    def granted(self) -> frozenset[Repository]:
        host = self._host()
        return git_credentials.granted(self.grant.repositories, host) if host else frozenset()

    @property
    def known(self) -> frozenset[str]:
        return frozenset(self._known)

    def learn(self, identifiers: Iterable[str]) -> None:
        for one in identifiers:
            self._known.pop(one, None)
            self._known[one] = None
        while len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    def note(self, what: str, host: str, path: str, outcome: str) -> None:
        self._note(what, host, path, outcome)

    def allowed(self) -> bool:
        """Whether one more use is in the task's bounds, which then counts."""
        return self._allowance.take()


class _Bounded(Request):
    """A request whose body is bounded: what is beyond is passed over, and then refused."""

    too_long = False

    def gotLength(self, length: int | None) -> None:
        self._size = 0
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LONGEST:
            self.too_long = True
            self.content = BytesIO()
        else:
            assert self.content is not None
            self.content.write(data)


class _Channel(HTTPChannel):
    """A connection that its site knows of while it is open."""

    site: Counter

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.discard(self)
        super().connectionLost(reason)


class Counter(Site):
    """Listens for one task. forward: None where there is no API, for the host's own git."""

    noisy = False

    def __init__(self, reactor: Any, desk: TaskDesk, tokens: Tokens, forward: ApiForward | None) -> None:
        super().__init__(_Window(desk, tokens, forward), _Bounded, timeout=IDLE, reactor=reactor)
        self.desk = desk
        self.connections: set[_Channel] = set()

    def protocol(self) -> Any:
        return _Channel()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr) if len(self.connections) < CONNECTIONS else None

    def log(self, request: HttpRequest) -> None:
        """Nothing of what a task asks goes to the host's log; the audit has it."""

    def close(self) -> None:
        """End all connections; the socket itself belongs to who listens on it."""
        for channel in list(self.connections):
            transport: Any = channel.transport
            transport.abortConnection()


class _Window(Resource):
    isLeaf = True

    def __init__(self, desk: TaskDesk, tokens: Tokens, forward: ApiForward | None) -> None:
        super().__init__()
        self._desk = desk
        self._tokens = tokens
        self._forward = forward

    def render(self, request: Request) -> Any:
        Deferred.fromCoroutine(self._serve(request)).addErrback(
            lambda failure: log.failure("a task's request was not answered", failure)
        )
        return NOT_DONE_YET

    async def _serve(self, request: Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            await self._answer(request)
        except Refused as error:
            _say(request, 403, str(error))
        except HostError as error:
            _say(request, 503 if error.code == ErrorCode.UNAVAILABLE else 400, error.message)
        except Exception as error:
            log.info("GitHub could not be asked for a task: {error!r}", error=error)
            _say(
                request,
                502,
                f"GitHub could not be reached from this host ({type(error).__name__}); try again",
            )
        if not gone:
            request.finish()

    async def _answer(self, request: Request) -> None:
        assert isinstance(request, _Bounded)
        assert request.content is not None
        request.content.seek(0)
        body = request.content.read()
        if request.too_long:
            _say(request, 413, f"a request may have {LONGEST} bytes")
        elif not self._desk.allowed():
            _say(request, 429, "too many requests of this task at once; wait a few seconds")
        elif request.uri.startswith(b"/credential/"):
            await self._credential(request, body)
        elif self._forward is None:
            _say(request, 404, "there is nothing here")
        else:
            await self._forward.forward(self._desk, request, body)

    async def _credential(self, request: Request, body: bytes) -> None:
        action = request.uri.rpartition(b"/")[2].decode("latin-1")
        if request.method != b"POST" or action not in ("get", "store", "erase"):
            raise HostError(ErrorCode.INVALID_ARGS, "expected POST /credential/get, /store or /erase")
        try:
            asked = git_credentials.question(body)
        except ValueError as error:
            raise HostError(ErrorCode.INVALID_ARGS, f"git's question cannot be read: {error}") from None
        request.setHeader("Content-Type", "text/plain")
        if action == "get":
            request.write(await self._token(asked))
        elif action == "erase" and asked.password:
            # It counts only if it is the token in force: whoever has that may say that it was refused.
            self._tokens.refused(self._desk.user_id, asked.password)
            self._desk.note("git", asked.host, asked.path, "refused by the server")

    async def _token(self, asked: git_credentials.Question) -> bytes:
        user, host = self._desk.user_id, self._tokens.host(self._desk.user_id)
        why = None
        if asked.protocol != "https" or host is None or asked.host != host:
            # Another server, which this host knows nothing of: git goes on to ask elsewhere.
            if host is None and asked.protocol == "https":
                why = "the task's owner is not connected to GitHub"
            self._desk.note("git", asked.host, asked.path, why or "not this host's GitHub")
            if why:
                raise Refused(why)
            return b""
        repository = git_credentials.repository(asked.path)
        if repository is None or repository not in self._desk.granted:
            self._desk.note("git", asked.host, asked.path, "not a repository of the task")
            raise Refused(f"{asked.path[:200] or 'an unnamed repository'} is not a repository of this task")
        try:
            token = await self._tokens.access(user)
        except HostError as error:
            self._desk.note("git", asked.host, asked.path, error.message)
            raise
        self._desk.note("git", asked.host, asked.path, "ok")
        return git_credentials.answer(token)


def _say(request: Request, code: int, why: str) -> None:
    """A refusal; when the answer has begun, it only ends."""
    if request.startedWriting:
        return
    request.setResponseCode(code)
    request.setHeader("Content-Type", "application/json; charset=utf-8")
    request.write(refusal(why))
