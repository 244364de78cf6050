"""A host that the local API can serve, and requests to it without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

from uaihost.errors import ErrorCode, HostError
from uaihost.logs.recent import Recent


class FakeDownload:
    name = "t1.tar.gz"

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.size = sum(map(len, pieces))
        self.closed = False

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def close(self) -> None:
        self.closed = True


class FakeDaemon:
    def __init__(self) -> None:
        self.exposed: dict[str, dict[str, int]] = {}
        self.signed_in: dict[str, tuple[str, dict[str, str]]] = {}
        self.verbs = {"greet": self.greet, "break": self.breaks}
        self.recent = Recent()
        self.downloads: dict[str, FakeDownload] = {}
        self.problem: str | None = None

    def readiness(self) -> dict[str, str | None]:
        return {"bridge": self.problem, "engine": None}

    def download(self, ticket: str) -> FakeDownload:
        if ticket not in self.downloads:
            raise HostError(ErrorCode.NOT_FOUND, "there is no such export")
        return self.downloads.pop(ticket)

    async def breaks(self, words: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("the secret of the defect")

    async def greet(self, words: dict[str, Any]) -> dict[str, Any]:
        if "name" not in words:
            raise HostError(ErrorCode.INVALID_ARGS, "expected a name")
        return {"said": f"hello {words['name']}"}

    async def status(self) -> dict[str, Any]:
        return {"tasks": sorted(self.exposed)}

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        self.exposed[task_id] = dict(ports)

    async def unexpose(self, task_id: str) -> None:
        if self.exposed.pop(task_id, None) is None:
            raise HostError(ErrorCode.NOT_FOUND, f"no exposed task {task_id}")

    async def task(self, task_id: str) -> dict[str, Any]:
        if task_id not in self.exposed:
            raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id}")
        return {"id": task_id, "status": "running"}

    async def clean(self, dry_run: bool) -> dict[str, Any]:
        return {"removed": [], "dryRun": dry_run}

    async def accounts(self) -> dict[str, Any]:
        return {"accounts": [{"provider": name, "form": form} for name, (form, _) in self.signed_in.items()]}

    async def sign_in(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        self.signed_in[provider] = (form, dict(secrets))

    async def sign_out(self, provider: str) -> None:
        self.signed_in.pop(provider, None)


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One connection to a site, and what came over it."""

    def __init__(self, site: Site) -> None:
        self.transport = StringTransport()
        site.startFactory()
        self.site = site
        protocol: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        self.protocol.dataReceived(head.encode() + body)

    def leave(self) -> None:
        """Whoever asked is gone."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def answer(self) -> Answer:
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return Answer(int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, body)
