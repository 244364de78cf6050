"""The local API and page: what the owner and the owner's programs on this machine may ask of the daemon.

Two doors lead to it. The Unix socket in the data folder (mode 0600: the daemon's user alone) asks for
nothing. The TCP port on 127.0.0.1, which any local user and any web page can reach, asks of each request what
web.guards says. Both serve the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request as TwistedRequest
from twisted.web.server import Site
from werkzeug.exceptions import HTTPException

from uaihost.errors import ErrorCode, HostError
from uaihost.logs.recent import Recent
from uaihost.web import metrics
from uaihost.web.door import Door
from uaihost.web.flow import Flow
from uaihost.web.guards import HEADERS, Need, Refusal
from uaihost.web.log_stream import LogStreams
from uaihost.web.pages import Pages

log = Logger()

# A request to this API is a few names and numbers.
MAX_BODY = 64 << 10

_STATUS = {
    ErrorCode.INVALID_ARGS: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNAVAILABLE: 503,
}


# What a verb takes and answers: JSON objects. It raises HostError.
Verb = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Download(Protocol):
    """A file that was made for whoever knows its ticket. name: for the person's disk; size: bytes."""

    name: str
    size: int

    async def read(self) -> bytes:
        """The next piece; empty at its end."""

    async def close(self) -> None:
        """It is not needed any more."""


class Daemon(Protocol):
    """What the API needs of the running host."""

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """What the owner may ask for by name, say `github.status`; who does it checks the words."""

    @property
    def recent(self) -> Recent:
        """The log."""

    def readiness(self) -> dict[str, str | None]:
        """Each part that commands need, and why it is not there; None when it is."""

    async def status(self) -> dict[str, Any]:
        """What is going on, as JSON-able values."""

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        """Make ports of this machine previews of a task that has no container."""

    async def unexpose(self, task_id: str) -> None:
        """End that."""

    async def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task; HostError `not_found`."""

    async def clean(self, dry_run: bool) -> dict[str, Any]:
        """Free disk in the published order; what went, or would go."""

    async def accounts(self) -> dict[str, Any]:
        """How the owner is signed in to the agents' providers, and which kinds of agents work. No secret."""

    async def sign_in(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        """Sign in to a provider, in place of what was there; HostError `invalid_args`."""

    async def sign_out(self, provider: str) -> None:
        """Forget a sign-in; one that is not there is no error."""

    def download(self, ticket: str) -> Download:
        """What was made under that ticket, which is good for once; HostError `not_found`."""


class LocalApi:
    """The routes. door: what guards them; None at the Unix socket. link: of the page, None without one."""

    app = Klein()

    def __init__(
        self,
        daemon: Daemon,
        clock: IReactorTime,
        *,
        door: Door | None,
        pages: Pages,
        link: Callable[[], str | None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._daemon = daemon
        self._door = door
        self._pages = pages
        self._link = link
        self._now = now
        self._clock = clock
        self._log = LogStreams(daemon.recent, clock)

    def site(self) -> Site:
        """For a port to listen with."""
        return _QuietSite(_Headed(self.app.resource()), reactor=self._clock)

    # ---- the page

    @app.route("/", methods=["GET"])
    def page(self, request: Request) -> bytes:
        self._check(request, Need.NOTHING)
        if self._door is None:
            return self._file(request, "index.html")
        given = request.args.get(b"token", [b""])[0].decode("ascii", "replace") if request.args else ""
        if request.getHeader("host") != self._door.origin.removeprefix("http://"):
            # One name for one page: what the browser keeps of it is kept by name.
            query = request.uri.partition(b"?")[2]
            request.redirect(self._door.origin.encode() + b"/" + (b"?" + query if query else b""))
            return b""
        if given and self._door.opens(given):
            request.redirect(self._door.remember(request))
            request.setResponseCode(303)
            return b""
        return self._file(request, "index.html")

    @app.route("/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        self._check(request, Need.NOTHING)
        return self._file(request, name)

    @app.route("/api/page", methods=["GET"])
    def link(self, request: Request) -> bytes:
        """The page's link, which holds the token: for the command line alone."""
        self._check(request, Need.DATA)
        return _json(request, {"url": self._link() if self._door is None else None})

    # ---- health

    @app.route("/livez", methods=["GET"])
    @app.route("/healthz", methods=["GET"])
    def alive(self, request: Request) -> bytes:
        self._check(request, Need.NOTHING)
        return _json(request, {"ok": True})

    @app.route("/readyz", methods=["GET"])
    def ready(self, request: Request) -> bytes:
        self._check(request, Need.NOTHING)
        parts = self._daemon.readiness()
        fine = all(why is None for why in parts.values())
        if not fine:
            request.setResponseCode(503)
        # Why is nobody's business who has no token.
        return _json(request, {"ok": fine} if self._door else {"ok": fine, "parts": parts})

    @app.route("/metrics", methods=["GET"])
    async def metrics(self, request: Request) -> bytes:
        self._check(request, Need.FIGURES)
        status = await self._daemon.status()
        request.setHeader("Content-Type", metrics.TYPE)
        return metrics.exposition(status, self._now())

    # ---- what is going on

    @app.route("/api/status", methods=["GET"])
    async def status(self, request: Request) -> bytes:
        self._check(request, Need.DATA)
        return _json(request, await self._daemon.status())

    @app.route("/api/tasks/<task_id>", methods=["GET"])
    async def task(self, request: Request, task_id: str) -> bytes:
        self._check(request, Need.DATA)
        return _json(request, await self._daemon.task(task_id))

    @app.route("/api/accounts", methods=["GET"])
    async def accounts(self, request: Request) -> bytes:
        self._check(request, Need.DATA)
        return _json(request, await self._daemon.accounts())

    @app.route("/api/log", methods=["GET"])
    async def follow(self, request: Request) -> None:
        self._check(request, Need.DATA)
        after = _word(request, "after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 16):
            raise HostError(ErrorCode.INVALID_ARGS, "`after` is the number of a record")
        await self._log.follow(
            request, int(after), _word(request, "level", "info"), _word(request, "task", "")
        )

    @app.route("/api/downloads/<ticket>", methods=["GET"])
    async def download(self, request: Request, ticket: str) -> None:
        self._check(request, Need.DOWNLOAD)
        found = self._daemon.download(ticket)
        request.setHeader("Content-Type", "application/gzip")
        request.setHeader("Content-Disposition", f'attachment; filename="{found.name}"')
        request.setHeader("Content-Length", str(found.size))
        flow = Flow(request)
        try:
            while piece := await found.read():
                request.write(piece)
                await flow.room()
            flow.close()
        finally:
            await found.close()

    # ---- what changes something

    @app.route("/api/verbs/<name>", methods=["POST"])
    async def verb(self, request: Request, name: str) -> bytes:
        self._check(request, Need.CHANGE)
        verb = self._daemon.verbs.get(name)
        if verb is None:
            raise HostError(ErrorCode.NOT_FOUND, f"this host knows no {name[:64]!r}; is it older than you?")
        return _json(request, await verb(_body(request)))

    @app.route("/api/clean", methods=["POST"])
    async def clean(self, request: Request) -> bytes:
        self._check(request, Need.CHANGE)
        return _json(request, await self._daemon.clean(_flag(request, "dryRun")))

    @app.route("/api/accounts/<provider>", methods=["PUT"])
    async def sign_in(self, request: Request, provider: str) -> bytes:
        self._check(request, Need.CHANGE)
        await self._daemon.sign_in(provider, *_secrets(request))
        return _json(request, {})

    @app.route("/api/accounts/<provider>", methods=["DELETE"])
    async def sign_out(self, request: Request, provider: str) -> bytes:
        self._check(request, Need.CHANGE)
        await self._daemon.sign_out(provider)
        return _json(request, {})

    @app.route("/api/exposed/<task_id>", methods=["PUT"])
    async def expose(self, request: Request, task_id: str) -> bytes:
        self._check(request, Need.CHANGE)
        await self._daemon.expose(task_id, _ports(request))
        return _json(request, {})

    @app.route("/api/exposed/<task_id>", methods=["DELETE"])
    async def unexpose(self, request: Request, task_id: str) -> bytes:
        self._check(request, Need.CHANGE)
        await self._daemon.unexpose(task_id)
        return _json(request, {})

    # ---- what goes wrong

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def failed(self, request: Request, failure: Failure) -> bytes:
        """Nothing that a request meets stops the service, or tells more than a sentence."""
        error = failure.value
        if request.startedWriting:
            # The answer is half out already: its end must show that it is not whole.
            request.loseConnection()
            return b""
        if isinstance(error, _Refused):
            return _refuse(request, error.why.status, error.why.code, error.why.message)
        if isinstance(error, HostError):
            return _refuse(request, _STATUS.get(error.code, 500), error.code.value, error.message)
        if isinstance(error, HTTPException):
            return _refuse(request, error.code or 404, "not_found", "there is no such page")
        log.failure("{method} {path} failed", failure, method=_text(request.method), path=_text(request.path))
        return _refuse(request, 500, "internal", "a defect of the host; see its log")

    # ---- within

    def _check(self, request: Request, need: Need) -> None:
        if self._door is not None:
            why = self._door.refuses(request, need)
            if why is not None:
                raise _Refused(why)

    def _file(self, request: Request, name: str) -> bytes:
        found = self._pages.get(name)
        if found is None:
            raise HostError(ErrorCode.NOT_FOUND, "there is no such page")
        request.setHeader("Content-Type", found[0])
        return found[1]


class _Refused(Exception):
    def __init__(self, why: Refusal) -> None:
        super().__init__(why.message)
        self.why = why


class _Headed(Resource):
    """Every answer says what a browser may do with it, whatever the answer is."""

    isLeaf = True

    def __init__(self, inner: IResource) -> None:
        super().__init__()
        self._inner = inner

    def render(self, request: Request) -> Any:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        return self._inner.render(request)


class _BoundedRequest(TwistedRequest):
    """A request whose body does not fill the disk: it is read whole before anybody looks at it."""

    _body = 0

    def handleContentChunk(self, data: bytes) -> None:
        # What is beyond the bound is not kept; that something is shows that it was too much.
        if self._body <= MAX_BODY:
            super().handleContentChunk(data)
        self._body += len(data)


class _QuietSite(Site):
    """A site whose requests are not logged: their addresses can hold a token."""

    displayTracebacks = False
    requestFactory = _BoundedRequest

    def log(self, request: Any) -> None:
        """Nothing."""


def _ports(request: Request) -> dict[str, int]:
    ports = _body(request).get("ports")
    if isinstance(ports, dict) and all(type(port) is int for port in ports.values()):
        return ports
    raise HostError(ErrorCode.INVALID_ARGS, 'expected {"ports": {"NAME": PORT}}')


def _secrets(request: Request) -> tuple[str, dict[str, str]]:
    """The form of a sign-in and its secrets by name."""
    body = _body(request)
    form, given = body.get("form"), body.get("secrets")
    if isinstance(given, dict) and all(isinstance(secret, str) for secret in (form, *given.values())):
        return str(form), given
    raise HostError(ErrorCode.INVALID_ARGS, 'expected {"form": FORM, "secrets": {"NAME": "SECRET"}}')


def _flag(request: Request, name: str) -> bool:
    value = _body(request).get(name)
    if isinstance(value, bool):
        return value
    raise HostError(ErrorCode.INVALID_ARGS, f'expected {{"{name}": true}} or false')


def _word(request: Request, name: str, default: str) -> str:
    """A word of the address."""
    return _text((request.args or {}).get(name.encode(), [default.encode()])[0])


def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; an empty one when it is none."""
    assert request.content is not None
    body = request.content.read(MAX_BODY + 1)
    try:
        found = json.loads(body) if len(body) <= MAX_BODY else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _json(request: Request, value: Any) -> bytes:
    request.setHeader("Content-Type", "application/json")
    return json.dumps(value).encode()


def _refuse(request: Request, status: int, code: str, message: str) -> bytes:
    request.setResponseCode(status)
    return _json(request, {"error": {"code": code, "message": message}})
