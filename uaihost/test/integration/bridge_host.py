"""A scripted host for a real bridge: speaks the protocol's host side with Autobahn alone, none of our link.

It plays tasks, agents and tunnels from a script, so that a bridge and its page are seen without an engine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

TOKEN = "token-of-the-scripted-host"

HUNKS = """@@ -1,6 +1,7 @@
 <!doctype html>
 <title>Corner shop</title>
-<h1>Hello from the shop</h1>
+<h1>Welcome to the corner shop</h1>
+<p>Fresh bread every morning.</p>
 <ul id="goods">
   <li>Apples</li>
 </ul>
"""

FILES = [
    {
        "path": "index.html",
        "status": "modified",
        "binary": False,
        "additions": 2,
        "deletions": 1,
        "hunks": HUNKS,
        "truncated": False,
    },
    {
        "path": "notes/opening-hours.md",
        "status": "added",
        "binary": False,
        "additions": 3,
        "deletions": 0,
        "hunks": "@@ -0,0 +1,3 @@\n+# Opening hours\n+\n+Every day from 7 to 19.\n",
        "truncated": False,
    },
    {
        "path": "logo.png",
        "status": "added",
        "binary": True,
        "additions": 0,
        "deletions": 0,
        "hunks": None,
        "truncated": False,
    },
]


class HostProtocol(WebSocketClientProtocol):
    """The socket; everything it hears goes to the factory's `host`."""

    def onOpen(self) -> None:
        self.factory.scripted.opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.factory.scripted.binary(payload)
        else:
            self.factory.scripted.frame(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.scripted.closed(code, reason)


class ScriptedHost:
    """One host.

    frames: every frame that the bridge sent. answers: by command, what is answered instead of the script;
    a HostError-like dict is sent as it is. tunnel: makes the upstream of a `tunnel.open`; see `Upstream`.
    pace: seconds between two steps of the script.
    """

    def __init__(self, reactor: Any, port: int, host_id: str = "host-1", token: str = TOKEN) -> None:
        self.reactor = reactor
        self.port = port
        self.host_id = host_id
        self.token = token
        self.pace = 0.0
        self.frames: list[dict[str, Any]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {}
        self.tunnel: Callable[[ScriptedHost, dict[str, Any]], Upstream] = Upstream
        self.upstreams: dict[str, Upstream] = {}
        self.socket: Any = None
        self.close: tuple[int | None, str | None] | None = None
        self._steps: list[Any] = []
        self.gone: Deferred[None] = Deferred()
        self.seq = 0
        self._next: str | None = None
        self._waiting: list[tuple[Callable[[dict[str, Any]], bool], Deferred[dict[str, Any]]]] = []
        self._permissions: dict[str, str] = {}

    async def connect(self) -> None:
        """Dial, authenticate, tell the capabilities."""
        await self.dial()
        self.send(kind="auth", token=self.token, hostId=self.host_id)
        self.send(
            kind="host.capabilities",
            capabilities={
                "agentKinds": [
                    {"kind": "mock", "models": ["careful", "free"]},
                    {"kind": "claude", "models": []},
                ],
                "runtimes": [{"name": "python", "version": "3.11"}],
            },
        )
        self.send(kind="ping", ts=1)
        await self.heard(lambda frame: frame["kind"] == "pong")

    async def dial(self) -> None:
        """The open socket, without a word."""
        factory: Any = WebSocketClientFactory(f"ws://127.0.0.1:{self.port}/host")
        factory.protocol = HostProtocol
        factory.noisy = False
        # Autobahn's own timers would outlive a test.
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0
        )
        factory.scripted = self
        self.gone = Deferred()
        self._opened: Deferred[None] = Deferred()
        await TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port).connect(factory)
        await self._opened

    def opened(self, socket: Any) -> None:
        self.socket = socket
        self._opened.callback(None)

    def closed(self, code: int | None, reason: str | None) -> None:
        self.close = (code, reason)
        self.socket = None
        for upstream in list(self.upstreams.values()):
            upstream.lost()
        self.upstreams.clear()
        self.gone.callback(None)

    async def leave(self) -> None:
        """Close and wait until it is closed; what the script had still to do is not done."""
        for step in self._steps:
            if step.active():
                step.cancel()
        if self.socket is not None:
            self.socket.sendClose(1000)
            await self.gone

    def drop(self) -> None:
        """End the connection without a word."""
        self.socket.transport.abortConnection()

    # ---- saying and hearing

    def send(self, **frame: Any) -> None:
        if self.is_open():
            self.socket.sendMessage(json.dumps(frame).encode(), False)

    def is_open(self) -> bool:
        return self.socket is not None and self.socket.state == self.socket.STATE_OPEN

    def send_bytes(self, data: bytes) -> None:
        if self.is_open():
            self.socket.sendMessage(data, True)

    def event(self, kind: str, task_id: str, fleeting: bool = False, **fields: Any) -> None:
        event = {"type": kind, "taskId": task_id, "at": int(time.time() * 1000), **fields}
        if not fleeting:
            self.seq += 1
            event["seq"] = self.seq
        self.send(kind="event", event=event)

    def heard(self, wanted: Callable[[dict[str, Any]], bool]) -> Deferred[dict[str, Any]]:
        """The first frame from now on that `wanted` takes."""
        done: Deferred[dict[str, Any]] = Deferred()
        self._waiting.append((wanted, done))
        return done.addTimeout(10, self.reactor)

    def frame(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        kind = frame["kind"]
        if kind == "command":
            self._command(frame)
        elif kind == "tunnel.open":
            self.upstreams[frame["tunnelId"]] = self.tunnel(self, frame)
        elif kind == "tunnel.data":
            self._next = frame["tunnelId"]
        elif kind in ("tunnel.requestEnd", "tunnel.close"):
            upstream = self.upstreams.get(frame["tunnelId"])
            if upstream is not None and kind == "tunnel.requestEnd":
                upstream.ended()
            elif upstream is not None:
                del self.upstreams[frame["tunnelId"]]
                upstream.lost()
                self.send(kind="tunnel.close", tunnelId=frame["tunnelId"], reason="closed by the bridge")
        for waiting in list(self._waiting):
            if waiting[0](frame):
                self._waiting.remove(waiting)
                waiting[1].callback(frame)

    def binary(self, payload: bytes) -> None:
        tunnel_id, self._next = self._next, None
        upstream = self.upstreams.get(tunnel_id or "")
        if upstream is not None:
            upstream.data(payload)

    # ---- the script

    def _command(self, frame: dict[str, Any]) -> None:
        name = frame["command"]
        if name in self.answers:
            result = self.answers[name](frame)
            if result is not None:
                self.result(frame["commandId"], result)
            return
        script = getattr(self, f"_do_{name}", None)
        if script is None:
            self.result(frame["commandId"], failed("unknown_command", f"no command {name}"))
            return
        script(frame["commandId"], *frame["args"])

    def result(self, command_id: str, result: dict[str, Any]) -> None:
        self.send(kind="result", commandId=command_id, result=result)

    def later(self, steps: float, do: Callable[..., object], *args: Any, **fields: Any) -> None:
        """`do` after some steps of the script."""
        self._steps.append(self.reactor.callLater(steps * self.pace, do, *args, **fields))

    def _do_taskUp(self, command_id: str, up: dict[str, Any]) -> None:
        task_id = up["task"]["id"]
        url = up["projects"][0]["repoUrl"]
        slug = up["projects"][0]["slug"]
        self.event("task.status", task_id, status="preparing")
        steps = [(f"clone {slug}", 480), ("image", 35), ("container", 610), ("setup", 1240)]
        if "missing" in url:
            message = f"the repository {url} does not exist or cannot be read; check the address"
            self.event("task.progress", task_id, step=steps[0][0], state="started")
            self.later(1, self._fail_up, task_id, command_id, steps[0][0], message)
            return
        for number, (step, took) in enumerate(steps):
            self.later(2 * number, self._progress, task_id, step, "started")
            self.later(2 * number + 1, self._progress, task_id, step, "done", took)
        ports = json.loads(up["projects"][0]["previewPorts"])
        previews = [
            {"name": p["name"], "containerPort": p["port"], "hostPort": 40000 + p["port"]} for p in ports
        ]
        self.later(2 * len(steps), self._is_up, task_id, command_id, previews)

    def _fail_up(self, task_id: str, command_id: str, step: str, message: str) -> None:
        self.event("task.progress", task_id, step=step, state="failed", message=message, elapsedMs=210)
        self.event("task.status", task_id, status="failed", message=message)
        self.result(command_id, failed("clone_failed", message))

    def _progress(self, task_id: str, step: str, state: str, took: int | None = None) -> None:
        fields: dict[str, Any] = {} if took is None else {"elapsedMs": took}
        self.event("task.progress", task_id, step=step, state=state, **fields)

    def _is_up(self, task_id: str, command_id: str, previews: list[dict[str, Any]]) -> None:
        self.event("task.status", task_id, status="running")
        self.event("ports.changed", task_id, previewPorts=previews)
        value = {"status": "running", "codeServerPort": 8100, "previewPorts": previews}
        self.result(command_id, {"ok": True, "value": {**value, "workspacePath": "/workspace"}})

    def _do_channelEnsure(self, command_id: str, wanted: dict[str, Any]) -> None:
        for agent in wanted["agents"]:
            self.event("channel.activity", wanted["taskId"], agentId=agent["id"], state="idle")
        agents = [{"id": agent["id"], "state": "idle"} for agent in wanted["agents"]]
        self.result(command_id, {"ok": True, "value": {"agents": agents}})

    def _do_channelDeliver(self, command_id: str, task_id: str, author: str, text: str) -> None:
        said = {"kind": "user", "id": author, "label": author}
        self.event("channel.message", task_id, messageId=command_id, author=said, text=text)
        self.result(command_id, {"ok": True, "value": {"messageId": command_id, "routedTo": ["mock"]}})
        self._activity(task_id, "thinking")
        if text.startswith("edit"):
            self.later(1, self._ask, task_id, command_id)
        else:
            self.later(1, self._answer, task_id, command_id, f"You said:\n\n> {text}\n\nAll done.")

    def _ask(self, task_id: str, command_id: str) -> None:
        request_id = f"req-{command_id[-6:]}"
        self._permissions[request_id] = command_id
        self._activity(task_id, "awaiting-permission", "edit index.html")
        self.event(
            "permission.requested",
            task_id,
            agentId="mock",
            requestId=request_id,
            tool="edit",
            title="Edit index.html",
            input={"path": "index.html", "old": "<h1>Hello from the shop</h1>", "new": "<h1>Welcome</h1>"},
        )

    def _do_channelResolvePermission(
        self, command_id: str, task_id: str, agent_id: str, request_id: str, decision: dict[str, str]
    ) -> None:
        kind = decision["kind"]
        fields: dict[str, Any] = {
            "agentId": agent_id,
            "requestId": request_id,
            "decision": kind,
            "by": "user",
        }
        self.event("permission.resolved", task_id, **fields)
        self.result(command_id, {"ok": True, "value": {}})
        asked = self._permissions.pop(request_id)
        if kind == "accept":
            self._activity(task_id, "tool", "edit index.html")
            text = "I changed the heading of `index.html`:\n\n```html\n<h1>Welcome</h1>\n```\n\nLook at it."
        else:
            text = "Understood, I leave the file as it is."
        self.later(1, self._answer, task_id, asked, text)

    def _answer(self, task_id: str, command_id: str, text: str) -> None:
        message_id = f"answer-{command_id}"
        words = [word + " " for word in text.split(" ")]
        for number, word in enumerate(words):
            delta = {"messageId": message_id, "agentId": "mock", "text": word}
            self.later(number / 3, self.event, "channel.delta", task_id, True, **delta)
        self.later(len(words) / 3 + 1, self._answered, task_id, message_id, text)

    def _answered(self, task_id: str, message_id: str, text: str) -> None:
        author = {"kind": "agent", "id": "mock", "label": "mock"}
        self.event("channel.message", task_id, messageId=message_id, author=author, text=text)
        self.event("agent.usage", task_id, agentId="mock", inputTokens=1200, outputTokens=80)
        self._activity(task_id, "idle")

    def _activity(self, task_id: str, state: str, detail: str | None = None) -> None:
        fields: dict[str, Any] = {} if detail is None else {"detail": detail}
        self.event("channel.activity", task_id, agentId="mock", state=state, **fields)

    def _do_channelInterrupt(self, command_id: str, task_id: str, agent_id: str) -> None:
        self._activity(task_id, "idle")
        self.result(command_id, {"ok": True, "value": {}})

    def _do_taskStatus(self, command_id: str, task_id: str) -> None:
        value: dict[str, Any] = {"status": "running", "codeServerPort": None, "previewPorts": []}
        self.result(command_id, {"ok": True, "value": value})

    def _do_taskDiff(self, command_id: str, wanted: dict[str, Any]) -> None:
        project = wanted["projects"][0]
        commit = {"base": "1" * 40, "head": "2" * 40}
        found = {**project, **commit, "files": FILES, "truncated": False}
        self.result(command_id, {"ok": True, "value": {"projects": [found]}})

    def _do_attachmentWrite(self, command_id: str, wanted: dict[str, Any]) -> None:
        value = {"path": f"/attachments/{wanted['filename']}", "bytes": len(wanted["dataBase64"]) * 3 // 4}
        self.result(command_id, {"ok": True, "value": value})

    def _do_taskDown(self, command_id: str, wanted: dict[str, Any]) -> None:
        task_id = wanted["taskId"]
        self.event("task.status", task_id, status="stopping")
        for number, step in enumerate(("channel", "save", "container", "remove")):
            self.later(number, self._progress, task_id, step, "done", 120)
        self.later(4, self._is_down, task_id, command_id)

    def _is_down(self, task_id: str, command_id: str) -> None:
        self.event("task.status", task_id, status="stopped")
        self.event("ports.changed", task_id, previewPorts=[])
        saved = [{"slug": "shop", "branch": "shop", "wip": None, "repository": "/srv/shop.git"}]
        self.result(command_id, {"ok": True, "value": {"status": "stopped", "saved": saved}})


PAGE = b"<!doctype html><title>Corner shop</title><h1>Hello from the shop</h1>"


class Upstream:
    """What a tunnel leads to; this one answers every request with a page."""

    def __init__(self, host: ScriptedHost, opened: dict[str, Any]) -> None:
        self.host = host
        self.id = opened["tunnelId"]
        self.opened = opened
        self.body = b""
        self.is_lost = False
        self.start()

    def start(self) -> None:
        """The request's head is there."""

    def data(self, data: bytes) -> None:
        """A piece of the request's body."""
        self.body += data

    def ended(self) -> None:
        """The request's body is complete."""
        self.ack(200, [["Content-Type", "text/html"], ["Content-Length", str(len(PAGE))]])
        self.send(PAGE)
        self.close()

    def lost(self) -> None:
        """The bridge closed it, or is gone."""
        self.is_lost = True

    def ack(self, status: int, headers: list[list[str]], text: str = "OK") -> None:
        self.host.send(
            kind="tunnel.ack", tunnelId=self.id, ok=True, status=status, statusText=text, headers=headers
        )

    def refuse(self, status: int, message: str) -> None:
        self.host.send(kind="tunnel.ack", tunnelId=self.id, ok=False, status=status, message=message)
        self.host.upstreams.pop(self.id, None)

    def send(self, data: bytes) -> None:
        self.host.send(kind="tunnel.data", tunnelId=self.id)
        self.host.send_bytes(data)

    def close(self, reason: str = "upstream ended") -> None:
        self.host.send(kind="tunnel.close", tunnelId=self.id, reason=reason)
        self.host.upstreams.pop(self.id, None)


def failed(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "code": code, "message": message}
