"""The JSON API and the page's files: thin routes over tasks, hosts and the event log, behind the guard.

Every answer that is an error has the body `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from werkzeug.exceptions import HTTPException
from zope.interface import implementer

from uaihost.bridge import guard, pushes, store
from uaihost.bridge.calls import Calls
from uaihost.bridge.feed import Feed
from uaihost.bridge.guard import Asked, Guard, LetIn, Refused
from uaihost.bridge.hosts import Hosts
from uaihost.bridge.new_task import NewTask
from uaihost.bridge.stream import EventStream
from uaihost.bridge.tasks import Tasks
from uaihost.bridge.wellness import CountedSite, Wellness
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Store
from uaihost.wire.inputs import Decision

log = Logger()

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

# The page's files by name, looked up once: no path of a request ever reaches the file system.
FILES = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}

# Events in one answer.
PAGE = 1000

# Seconds that a raw command may take when its caller names none; and at most.
COMMAND_TIMEOUT = 60.0
MAX_COMMAND_TIMEOUT = 3600.0

STATUS = {
    ErrorCode.INVALID_ARGS: 400,
    ErrorCode.UNKNOWN_COMMAND: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.CANCELLED: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.CLONE_FAILED: 422,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.TIMEOUT: 504,
}


class Message(msgspec.Struct, frozen=True):
    text: str
    author: str = "user"


class Choice(msgspec.Struct, frozen=True):
    """scope `task`: the tool is accepted in this task from now on. answers: by the question's text."""

    agentId: str
    decision: Literal["accept", "decline"]
    scope: Literal["once", "task"] = "once"
    answers: dict[str, str] | None = None


class Interrupt(msgspec.Struct, frozen=True):
    agentId: str


class Attachment(msgspec.Struct, frozen=True):
    filename: str
    dataBase64: str


class RawCommand(msgspec.Struct, frozen=True):
    command: str
    args: list[Any]
    hostId: str = ""
    timeout: float = COMMAND_TIMEOUT


class Nothing(msgspec.Struct, frozen=True):
    """A body that says nothing."""


class Api:
    """The routes."""

    app = Klein()

    def __init__(
        self, database: Store, feed: Feed, hosts: Hosts, tasks: Tasks, calls: Calls, clock: IReactorTime
    ) -> None:
        self._database = database
        self._feed = feed
        self._hosts = hosts
        self._tasks = tasks
        self._calls = calls
        self._clock = clock
        self.wellness = Wellness(database, feed, hosts, calls, clock)

    @app.route("/livez", methods=["GET"])
    @app.route("/healthz", methods=["GET"])
    def alive(self, request: Request) -> bytes:
        return answer(request, {"ok": True})

    @app.route("/readyz", methods=["GET"])
    async def ready(self, request: Request) -> bytes:
        fine = await self.wellness.ready()
        return answer(request, {"ok": fine}, 200 if fine else 503)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        return self.wellness.exposition(request)

    @app.route("/", methods=["GET"])
    def index(self, request: Request) -> bytes:
        return file(request, "index.html")

    @app.route("/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        return file(request, name)

    @app.route("/api/state", methods=["GET"])
    async def state(self, request: Request) -> bytes:
        last = await self._database.run(store.last_event)
        state = {"hosts": self._hosts.view(), "tasks": self._tasks.view(), "lastEventId": last}
        return answer(request, state)

    @app.route("/api/events", methods=["GET"])
    def events(self, request: Request) -> Deferred[None]:
        return self._stream(request, None)

    @app.route("/api/tasks", methods=["POST"])
    async def create(self, request: Request) -> bytes:
        record = await self._tasks.create(body_of(request, NewTask))
        return answer(request, {"id": record.id}, 202)

    @app.route("/api/tasks/<task_id>", methods=["GET"])
    async def task(self, request: Request, task_id: str) -> bytes:
        record = self._tasks.get(task_id)
        rows, used = await self._database.run(
            lambda db: (store.recent_events(db, task_id, PAGE), store.usage(db, task_id))
        )
        return answer(request, {**self._tasks.view_of(record), "usage": used, "events": with_ids(rows)})

    @app.route("/api/tasks/<task_id>/events", methods=["GET"])
    async def task_events(self, request: Request, task_id: str) -> bytes | None:
        self._tasks.get(task_id)
        if "text/event-stream" in (request.getHeader("accept") or ""):
            await self._stream(request, task_id)
            return None
        after = number(request, b"after")
        rows = await self._database.run(lambda db: store.events(db, after, PAGE, task_id))
        return answer(request, {"events": with_ids(rows), "more": len(rows) == PAGE})

    @app.route("/api/tasks/<task_id>/messages", methods=["POST"])
    async def message(self, request: Request, task_id: str) -> bytes:
        word = body_of(request, Message)
        said = await self._tasks.deliver(task_id, word.author, word.text)
        return answer(request, said, 202 if "queued" in said else 200)

    @app.route("/api/tasks/<task_id>/diff", methods=["GET"])
    async def diff(self, request: Request, task_id: str) -> bytes:
        return answer(request, await self._tasks.diff(task_id))

    @app.route("/api/tasks/<task_id>/push", methods=["POST"])
    async def push(self, request: Request, task_id: str) -> bytes:
        wanted = body_of(request, pushes.Wanted)
        return answer(request, await pushes.push(self._tasks, task_id, wanted))

    @app.route("/api/tasks/<task_id>/permissions/<request_id>", methods=["POST"])
    async def permission(self, request: Request, task_id: str, request_id: str) -> bytes:
        choice = body_of(request, Choice)
        decision = decision_of(choice)
        await self._tasks.decide(task_id, choice.agentId, request_id, decision)
        return answer(request, {})

    @app.route("/api/tasks/<task_id>/interrupt", methods=["POST"])
    async def interrupt(self, request: Request, task_id: str) -> bytes:
        await self._tasks.interrupt(task_id, body_of(request, Interrupt).agentId)
        return answer(request, {})

    @app.route("/api/tasks/<task_id>/attachments", methods=["POST"])
    async def attachment(self, request: Request, task_id: str) -> bytes:
        given = body_of(request, Attachment)
        return answer(request, await self._tasks.attach(task_id, given.filename, given.dataBase64))

    @app.route("/api/tasks/<task_id>/retry", methods=["POST"])
    async def retry(self, request: Request, task_id: str) -> bytes:
        body_of(request, Nothing)
        return answer(request, self._tasks.view_of(await self._tasks.retry(task_id)), 202)

    @app.route("/api/tasks/<task_id>/down", methods=["POST"])
    async def down(self, request: Request, task_id: str) -> bytes:
        body_of(request, Nothing)
        value = await self._tasks.down(task_id)
        return answer(request, value, 202 if value.get("status") == "stopping" else 200)

    @app.route("/api/command", methods=["POST"])
    async def command(self, request: Request) -> bytes:
        given = body_of(request, RawCommand)
        host_id = self._tasks.choose_host(given.hostId)
        timeout = min(max(given.timeout, 0.0), MAX_COMMAND_TIMEOUT)
        value = await self._calls.command(host_id, given.command, given.args, timeout)
        return answer(request, {"value": value})

    def _stream(self, request: Request, task_id: str | None) -> Deferred[None]:
        after = number(request, b"after")
        resumed = request.getHeader("last-event-id") or ""
        if resumed.isascii() and resumed.isdigit() and len(resumed) < 19:
            after = int(resumed)
        return EventStream(request, self._database, self._feed, self._clock, after, task_id).serve()

    @app.handle_errors(HostError)
    def refused(self, request: Any, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, HostError)
        return error_answer(request, STATUS[error.code], error.code.value, error.message)

    @app.handle_errors(HTTPException)
    def unknown(self, request: Any, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, HTTPException)
        message = f"{request.method.decode('latin-1')} {request.path.decode('latin-1')[:200]}: {error.name}"
        return error_answer(request, error.code or 500, "not_found", message)

    @app.handle_errors(Exception)
    def defect(self, request: Any, failure: Failure) -> bytes:
        log.failure("a request failed: {path}", failure, path=request.path.decode("latin-1"))
        return error_answer(request, 500, "internal", "a defect of the bridge; its log says more")


# ---- requests and answers


def decision_of(choice: Choice) -> Decision:
    """A choice as the protocol has it.

    Raises:
        HostError: `invalid_args` when a decline comes with what only an acceptance can have.
    """
    if choice.decision == "decline" and (choice.scope == "task" or choice.answers is not None):
        raise HostError(ErrorCode.INVALID_ARGS, "decision: a decline counts once and has no answers")
    return Decision(choice.decision, choice.scope, choice.answers)


def body_of(request: Request, kind: type[T]) -> T:
    """The request's JSON body as `kind`.

    Raises:
        HostError: `invalid_args`.
    """
    assert request.content is not None
    try:
        return msgspec.json.decode(request.content.read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(ErrorCode.INVALID_ARGS, f"the body is not what is expected: {error}") from None


def number(request: Request, name: bytes) -> int:
    """A number in the query; 0 when it is not there.

    Raises:
        HostError: `invalid_args`.
    """
    text = (request.args or {}).get(name, [b"0"])[0]
    if not text.isdigit() or len(text) > 18:
        raise HostError(ErrorCode.INVALID_ARGS, f"{name.decode()}: expected the number of an event")
    return int(text)


def with_ids(rows: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """Events with the ids of their rows."""
    return [{**json.loads(body), "id": id} for id, body in rows]


def answer(request: Request, value: Any, status: int = 200) -> bytes:
    """A JSON answer."""
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    return json.dumps(value).encode()


def error_answer(request: Request, status: int, code: str, message: str) -> bytes:
    """The answer of an error."""
    return answer(request, {"error": {"code": code, "message": message}}, status)


def file(request: Request, name: str) -> bytes:
    """One of the page's files."""
    path = FILES.get(name)
    if path is None:
        return error_answer(request, 404, "not_found", "there is no such file")
    request.setHeader("Content-Type", _TYPES[path.suffix])
    return path.read_bytes()


# ---- the guard before them


class AppRequest(Request):
    """Bodies that are too large, or of unknown length, are not kept while they arrive."""

    too_large = False

    def gotLength(self, length: int | None) -> None:
        self.too_large = length is None or length > guard.MAX_BODY
        super().gotLength(0 if self.too_large else length)

    def handleContentChunk(self, data: bytes) -> None:
        if not self.too_large:
            super().handleContentChunk(data)


@implementer(IResource)
class Guarded(Resource):
    """Judges every request before any route sees it."""

    isLeaf = True

    def __init__(self, judge: Guard, inner: IResource) -> None:
        super().__init__()
        self._guard = judge
        self._inner = inner

    def render(self, request: Any) -> Any:
        for name, value in guard.HEADERS.items():
            request.setHeader(name, value)
        verdict = self._guard.judge(asked_of(request))
        if isinstance(verdict, LetIn):
            request.setHeader("Set-Cookie", self._guard.set_cookie())
            request.setHeader("Location", "/")
            request.setResponseCode(303)
            return b""
        if isinstance(verdict, Refused):
            if verdict.login and request.method == b"GET":
                request.setResponseCode(verdict.status)
                return file(request, "locked.html")
            return error_answer(request, verdict.status, verdict.code, verdict.message)
        rendered = self._inner.render(request)
        assert rendered is NOT_DONE_YET or isinstance(rendered, bytes)
        return rendered


def asked_of(request: Any) -> Asked:
    """The parts of a request that the guard judges. A repeated Host header is none."""

    def header(name: str) -> str:
        values = request.requestHeaders.getRawHeaders(name, [])
        return values[0] if len(values) == 1 else ""

    key = (request.args or {}).get(b"key", [b""])[0]
    return Asked(
        method=request.method.decode("latin-1"),
        path=request.path.decode("latin-1"),
        host=header("host"),
        authorization=header("authorization"),
        cookie="; ".join(request.requestHeaders.getRawHeaders("cookie", [])),
        origin=header("origin"),
        content_type=header("content-type"),
        site=header("sec-fetch-site"),
        query_key=key.decode("latin-1"),
        too_large=getattr(request, "too_large", False),
    )


def site_of(api: Api, judge: Guard, reactor: IReactorTime) -> Site:
    """The app as a Twisted site."""
    return CountedSite(
        api.wellness.answered,
        Guarded(judge, api.app.resource()),
        requestFactory=AppRequest,
        reactor=reactor,
    )
