"""The local API: what the owner's own programs on this machine may ask of the running daemon.

Two doors lead to it. The Unix socket in the data folder (mode 0600: the daemon's user alone) serves
everything; the TCP port on 127.0.0.1, which any local user and any web page can reach, serves what only
reads, to requests that name this machine as their host (a guard against DNS rebinding).
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.server import Site

from uaihost.errors import ErrorCode, HostError
from uaihost.web import metrics

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


class Daemon(Protocol):
    """What the API needs of the running host."""

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """What the owner may ask for by name, say `github.status`; who does it checks the words."""

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


class LocalApi:
    """The routes; `readable_only` leaves out whatever changes something."""

    app = Klein()

    def __init__(self, daemon: Daemon, *, readable_only: bool, now: Callable[[], float] = time.time) -> None:
        self._daemon = daemon
        self._now = now
        self._readable_only = readable_only

    def site(self, reactor: IReactorTime) -> Site:
        return Site(self.app.resource(), reactor=reactor)

    @app.route("/healthz", methods=["GET"])
    def healthz(self, request: Request) -> bytes:
        try:
            self._guard(request, changes=False)
            return _json(request, {"ok": True})
        except HostError as error:
            return _refuse(request, error)

    @app.route("/api/status", methods=["GET"])
    async def status(self, request: Request) -> bytes:
        try:
            self._guard(request, changes=False)
            return _json(request, await self._daemon.status())
        except HostError as error:
            return _refuse(request, error)

    @app.route("/metrics", methods=["GET"])
    async def metrics(self, request: Request) -> bytes:
        try:
            self._guard(request, changes=False)
            status = await self._daemon.status()
        except HostError as error:
            return _refuse(request, error)
        request.setHeader("Content-Type", metrics.TYPE)
        return metrics.exposition(status, self._now())

    @app.route("/api/tasks/<task_id>", methods=["GET"])
    async def task(self, request: Request, task_id: str) -> bytes:
        try:
            self._guard(request, changes=False)
            return _json(request, await self._daemon.task(task_id))
        except HostError as error:
            return _refuse(request, error)

    @app.route("/api/clean", methods=["POST"])
    async def clean(self, request: Request) -> bytes:
        try:
            self._guard(request, changes=True)
            return _json(request, await self._daemon.clean(_flag(request, "dryRun")))
        except HostError as error:
            return _refuse(request, error)

    @app.route("/api/accounts", methods=["GET"])
    async def accounts(self, request: Request) -> bytes:
        try:
            self._guard(request, changes=False)
            return _json(request, await self._daemon.accounts())
        except HostError as error:
            return _refuse(request, error)

    @app.route("/api/accounts/<provider>", methods=["PUT"])
    async def sign_in(self, request: Request, provider: str) -> bytes:
        try:
            self._guard(request, changes=True)
            await self._daemon.sign_in(provider, *_secrets(request))
        except HostError as error:
            return _refuse(request, error)
        return _json(request, {})

    @app.route("/api/accounts/<provider>", methods=["DELETE"])
    async def sign_out(self, request: Request, provider: str) -> bytes:
        try:
            self._guard(request, changes=True)
            await self._daemon.sign_out(provider)
        except HostError as error:
            return _refuse(request, error)
        return _json(request, {})

    @app.route("/api/exposed/<task_id>", methods=["PUT"])
    async def expose(self, request: Request, task_id: str) -> bytes:
        try:
            self._guard(request, changes=True)
            await self._daemon.expose(task_id, _ports(request))
        except HostError as error:
            return _refuse(request, error)
        return _json(request, {})

    @app.route("/api/exposed/<task_id>", methods=["DELETE"])
    async def unexpose(self, request: Request, task_id: str) -> bytes:
        try:
            self._guard(request, changes=True)
            await self._daemon.unexpose(task_id)
        except HostError as error:
            return _refuse(request, error)
        return _json(request, {})

    @app.route("/api/verbs/<name>", methods=["POST"])
    async def verb(self, request: Request, name: str) -> bytes:
        try:
            self._guard(request, changes=True)
            verb = self._daemon.verbs.get(name)
            if verb is None:
                raise HostError(
                    ErrorCode.NOT_FOUND, f"this host knows no {name[:64]!r}; is it older than you?"
                )
            return _json(request, await verb(_body(request)))
        except HostError as error:
            return _refuse(request, error)

    def _guard(self, request: Request, *, changes: bool) -> None:
        if not self._readable_only:
            return
        if changes:
            raise HostError(ErrorCode.UNAVAILABLE, "this door only reads; use the `uaihost` command")
        host = (request.getHeader("host") or "").rsplit(":", 1)[0].lower()
        if host not in ("localhost", "127.0.0.1"):
            raise HostError(ErrorCode.INVALID_ARGS, "open this page as http://127.0.0.1:<port>/")


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


def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; an empty one when it is none."""
    assert request.content is not None
    body = request.content.read(MAX_BODY + 1)
    try:
        found = json.loads(body) if len(body) <= MAX_BODY else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _json(request: Request, value: Any) -> bytes:
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    return json.dumps(value).encode()


def _refuse(request: Request, error: HostError) -> bytes:
    request.setResponseCode(_STATUS.get(error.code, 500))
    return _json(request, {"error": {"code": error.code.value, "message": error.message}})
