"""Drives the independent bridge (uaihost/test/peer): starts it, gives orders, waits for its reports."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from uaihost.test.integration.node import installed, node

SOURCE = Path(__file__).resolve().parents[1] / "peer"

# Seconds a report may take; generous, since a build machine may be busy.
PATIENCE = 30.0

Report = dict[str, Any]


class Peer(ProcessProtocol):
    """The bridge as its driver sees it.

    reports: every report so far, oldest first, each with `seen`, when it came (reactor seconds).
    `expect` also takes what came before it was called, and each report satisfies one `expect` only.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.reports: list[Report] = []
        self.port = 0
        self.errors = b""
        self._unread: list[Report] = []
        self._waiting: list[tuple[Callable[[Report], bool], Deferred[Report]]] = []
        self._calls: dict[int, Deferred[Any]] = {}
        self._numbers = count(1)
        self._line = b""
        self._ended: Deferred[None] = Deferred()

    @classmethod
    async def start(cls, reactor: Any) -> Peer:
        """A bridge that listens; `stop` ends it."""
        peer = cls(reactor)
        folder = installed(SOURCE)
        program = node()
        reactor.spawnProcess(peer, program, [program, "bridge.mjs"], env=dict(os.environ), path=str(folder))
        peer.port = (await peer.expect("listening"))["port"]
        return peer

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/host"

    async def stop(self) -> None:
        """End it; its connections die with it."""
        assert self.transport is not None
        self.transport.closeStdin()
        await self._ended

    async def call(self, name: str, **arguments: Any) -> Any:
        """Have it do something (the controls of bridge.mjs) and return the answer.

        Raises:
            RuntimeError: it could not.
        """
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred()
        self._calls[number] = answer
        assert self.transport is not None
        order = json.dumps({"id": number, "do": name, **arguments})
        self.transport.write(order.encode() + b"\n")
        return await answer

    async def expect(
        self,
        event: str,
        test: Callable[[Report], bool] | None = None,
        *,
        timeout: float = PATIENCE,
        **fields: Any,
    ) -> Report:
        """The first report `event`, not taken yet, with these `fields` and for which `test` holds.

        Raises:
            TimeoutError: it did not come; the error shows what came instead.
        """

        def fits(report: Report) -> bool:
            return (
                report["event"] == event
                and all(report.get(key) == value for key, value in fields.items())
                and (test is None or test(report))
            )

        for report in self._unread:
            if fits(report):
                self._unread.remove(report)
                return report
        waiter: Deferred[Report] = Deferred()
        entry = (fits, waiter)
        self._waiting.append(entry)
        late = self.reactor.callLater(timeout, self._give_up, entry, f"{event} {fields}")
        try:
            return await waiter
        finally:
            if late.active():
                late.cancel()

    async def frame(self, kind: str, *, timeout: float = PATIENCE, **fields: Any) -> Report:
        """The next frame of this kind, with these fields."""

        def fits(report: Report) -> bool:
            found = report["frame"]
            return found["kind"] == kind and all(found.get(key) == value for key, value in fields.items())

        found: Report = (await self.expect("frame", fits, timeout=timeout))["frame"]
        return found

    async def ready(self) -> Report:
        """Wait for a connection and its first two frames; returns the report `connected`."""
        connected = await self.expect("connected")
        link = connected["link"]
        for kind in ("auth", "host.capabilities"):
            await self.expect("frame", lambda report, kind=kind: report["frame"]["kind"] == kind, link=link)  # type: ignore[misc]
        return connected

    async def command(self, command_id: str, command: str, *args: Any) -> Report:
        """Send a command and return its `result`."""
        await self.call(
            "frame", frame={"kind": "command", "commandId": command_id, "command": command, "args": args}
        )
        return await self.result(command_id)

    async def result(self, command_id: str) -> Report:
        """The next `result` of this command: `{"ok": ...}`."""
        found: Report = (await self.frame("result", commandId=command_id))["result"]
        return found

    async def open(
        self,
        tunnel_id: str,
        task: str,
        name: str | None,
        *,
        method: str = "GET",
        url: str = "/",
        headers: list[tuple[str, str]] | None = None,
        upgrade: bool = False,
        keep: str = "count",
    ) -> None:
        """Open a tunnel to the preview `name`, or to the editor; `keep` as bridge.mjs says."""
        request = {"method": method, "url": url, "headers": headers or [("Host", "preview.example")]}
        fields = {"tunnelId": tunnel_id, "taskId": task, "reqLine": request, "upgrade": upgrade}
        where = {"target": "editor"} if name is None else {"target": "preview", "name": name}
        await self.call("open", fields=fields | where, keep=keep)

    async def send(self, tunnel_id: str, data: bytes) -> None:
        """One piece of a tunnel's bytes."""
        await self.call("data", tunnelId=tunnel_id, base64=base64.b64encode(data).decode())

    async def end(self, tunnel_id: str) -> None:
        """The request's body is complete."""
        await self.call("frame", frame={"kind": "tunnel.requestEnd", "tunnelId": tunnel_id})

    async def close(self, tunnel_id: str, reason: str = "gone") -> None:
        await self.call("frame", frame={"kind": "tunnel.close", "tunnelId": tunnel_id, "reason": reason})

    async def fetch(
        self, tunnel_id: str, task: str, name: str | None, **options: Any
    ) -> tuple[Report, Report]:
        """A whole request without a body: the reports `ack` and `close` (with `base64`, the body)."""
        await self.open(tunnel_id, task, name, keep="body", **options)
        await self.end(tunnel_id)
        ack = await self.expect("ack", tunnelId=tunnel_id)
        return ack, await self.expect("close", tunnelId=tunnel_id)

    async def received(self, tunnel_id: str, length: int) -> bytes:
        """The next `length` bytes of a tunnel opened with keep="stream"; pieces are not split."""
        found = b""
        while len(found) < length:
            piece = await self.expect("data", tunnelId=tunnel_id)
            found += base64.b64decode(piece["base64"])
        return found

    def violations(self) -> list[str]:
        """What the host sent although the protocol forbids it."""
        return [report["what"] for report in self.reports if report["event"] == "violation"]

    # ---- ProcessProtocol ------------------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "event" in message:
                self._report(message)
            elif "error" in message:
                self._calls.pop(message["id"]).errback(RuntimeError(message["error"]))
            else:
                self._calls.pop(message["id"]).callback(message["value"])

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        gone = RuntimeError(f"the bridge ended: {self.errors.decode(errors='replace')}")
        for call in [*self._calls.values(), *(waiter for _, waiter in self._waiting)]:
            call.errback(gone)
        self._calls.clear()
        self._waiting.clear()
        self._ended.callback(None)

    def _report(self, report: Report) -> None:
        report["seen"] = self.reactor.seconds()
        self.reports.append(report)
        for entry in self._waiting:
            fits, waiter = entry
            if fits(report):
                self._waiting.remove(entry)
                waiter.callback(report)
                return
        self._unread.append(report)

    def _give_up(self, entry: tuple[Callable[[Report], bool], Deferred[Report]], what: str) -> None:
        self._waiting.remove(entry)
        last = [json.dumps(report)[:300] for report in self._unread[-10:]]
        entry[1].errback(TimeoutError(f"no {what}; not taken: {last}; stderr: {self.errors!r}"))
