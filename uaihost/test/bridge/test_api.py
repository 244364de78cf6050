"""The API and the page's files over HTTP, in memory: bytes in, bytes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from uaihost.bridge.api import FILES, STATIC, Api, site_of
from uaihost.bridge.guard import HEADERS, MAX_BODY, Guard
from uaihost.bridge.names import Names
from uaihost.bridge.stream import KEEP_ALIVE, LIMIT
from uaihost.bridge.wellness import FIGURES, FRESH
from uaihost.test.bridge.fakes import FakeSocket
from uaihost.test.bridge.rig import BridgeCase

KEY = "the-key"


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A client's connection."""

    def __init__(self, site: Any) -> None:
        self.transport = StringTransport()
        self.protocol = site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def take(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def answer(self) -> Answer:
        """The one whole answer that has arrived."""
        head, body = self.take().split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = unchunked(body)
        return Answer(int(first.split()[1]), headers, body)


def unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, rest = data.split(b"\r\n", 1)
        body += rest[: int(size, 16)]
        data = rest[int(size, 16) + 2 :]
    return body


@attrs.frozen
class Stand:
    """A database that does what it is told to."""

    run: Any


class ApiCase(BridgeCase):
    def setUp(self) -> None:
        super().setUp()
        api = self.api = Api(self.database, self.feed, self.hosts, self.tasks, self.calls, self.clock)
        self.site = site_of(api, Guard(Names(8789, self.tasks), KEY), self.clock)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Connection:
        """A request with the key; `headers` replace ours, an empty value leaves one out."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Host": "localhost:8789", "Authorization": f"Bearer {KEY}"}
        if method == "POST":
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        connection = Connection(self.site)
        connection.protocol.dataReceived(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + payload)
        return connection

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return self.send(method, path, body, **headers).answer()

    def error(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        answer = self.ask(method, path, body, **headers)
        self.assertEqual(list(answer.json), ["error"])
        self.assertTrue(answer.json["error"]["message"])
        return answer.status, answer.json["error"]["code"]

    def ready(self, socket: FakeSocket) -> str:
        task_id: str = self.ask("POST", "/api/tasks", {"repoUrl": "/srv/shop"}).json["id"]
        previews = [{"name": "web", "containerPort": 3000, "hostPort": 40001}]
        self.answer(socket, self.commands(socket)[-1], {"status": "running", "previewPorts": previews})
        self.event(socket, "task.status", task_id, 1, status="running")
        self.answer(socket, self.commands(socket)[-1], {"agents": []})
        return task_id


class RouteTests(ApiCase):
    def test_health(self) -> None:
        answer = self.ask("GET", "/healthz", Authorization="")
        self.assertEqual((answer.status, answer.json), (200, {"ok": True}))

    def test_alive_and_ready_say_so_without_a_key_and_nothing_else(self) -> None:
        for path in ("/livez", "/readyz"):
            answer = self.ask("GET", path, Authorization="")
            self.assertEqual((answer.status, answer.json), (200, {"ok": True}))

    def test_a_database_that_fails_is_not_ready_and_is_not_asked_by_everybody(self) -> None:
        asked = []

        def fail(work: Any) -> Any:
            asked.append(work)
            raise OSError("gone")

        self.patch(self.api.wellness, "_database", Stand(fail))
        for _ in range(3):
            answer = self.ask("GET", "/readyz", Authorization="")
            self.assertEqual((answer.status, answer.json), (503, {"ok": False}))
        self.assertEqual(len(asked), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.patch(self.api.wellness, "_database", self.database)
        self.clock.advance(FRESH)
        self.assertEqual(self.ask("GET", "/readyz").status, 200)

    def test_figures_ask_for_the_key(self) -> None:
        self.assertEqual(self.error("GET", "/metrics", Authorization=""), (401, "unauthorized"))
        self.assertEqual(self.error("GET", "/metrics", Authorization="Bearer other"), (401, "unauthorized"))

    def test_each_figure_is_in_the_document(self) -> None:
        text = (Path(__file__).parents[3] / "docs" / "observability.md").read_text(encoding="utf-8")
        for figure in FIGURES.values():
            labels = ", ".join(f"`{label}`" for label in figure.labels)
            self.assertIn(f"| `{figure.name}` | {figure.kind} | {labels} | {figure.meaning} |", text)

    def test_figures(self) -> None:
        fresh = self.figures()
        self.assertEqual(fresh[("uaibridge_hosts_connected",)], 0)
        socket = self.connect()
        self.ask("POST", "/api/tasks", {"repoUrl": "/srv/secret-shop"})
        self.error("GET", "/nothing")
        after = self.figures()
        for key, value in {
            ("uaibridge_hosts_connected",): 1,
            ("uaibridge_hosts_known",): 1,
            ("uaibridge_host_connects_total",): 1,
            ("uaibridge_commands_waiting",): 1,
            ("uaibridge_requests_total", "4xx"): 1,
            # The first look at the figures, and the task.
            ("uaibridge_requests_total", "2xx"): 2,
        }.items():
            self.assertEqual(after[key], value, key)
        # Nothing shows up late, and nobody's name does.
        self.assertEqual(set(after), set(fresh))
        self.assertNotIn(b"shop", self.ask("GET", "/metrics").body)
        socket.receiver.closed(1006, "")
        gone = self.figures()
        self.assertEqual(gone[("uaibridge_hosts_connected",)], 0)
        self.assertEqual(gone[("uaibridge_host_losses_total",)], 1)

    def figures(self) -> dict[tuple[str, ...], float]:
        text = self.ask("GET", "/metrics").body.decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def test_state(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        state = self.ask("GET", "/api/state").json
        self.assertEqual([(host["id"], host["connected"]) for host in state["hosts"]], [("host-1", True)])
        self.assertEqual([task["id"] for task in state["tasks"]], [task_id])
        self.assertEqual(state["lastEventId"], 1)

    def test_a_task_is_accepted_and_seen(self) -> None:
        socket = self.connect()
        answer = self.ask("POST", "/api/tasks", {"repoUrl": "/srv/shop", "name": "Shop", "prompt": "Go"})
        self.assertEqual((answer.status, list(answer.json)), (202, ["id"]))
        task = self.ask("GET", f"/api/tasks/{answer.json['id']}").json
        self.assertEqual((task["name"], task["status"], task["ready"]), ("Shop", "pending", False))
        self.assertEqual(task["events"], [])
        self.assertEqual(self.commands(socket)[0]["command"], "taskUp")

    def test_a_ready_task_shows_its_events_and_links(self) -> None:
        task_id = self.ready(self.connect())
        task = self.ask("GET", f"/api/tasks/{task_id}").json
        self.assertTrue(task["ready"])
        self.assertEqual([(event["id"], event["type"]) for event in task["events"]], [(1, "task.status")])
        self.assertEqual(task["previews"][0]["url"], f"http://{task_id}-web.preview.localhost:8789/")

    def test_events_after_one(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        for seq in (2, 3):
            self.event(socket, "agent.usage", task_id, seq, agentId="a", inputTokens=1, outputTokens=1)
        answer = self.ask("GET", f"/api/tasks/{task_id}/events?after=1").json
        self.assertEqual([event["id"] for event in answer["events"]], [2, 3])
        self.assertFalse(answer["more"])
        self.assertEqual(self.error("GET", f"/api/tasks/{task_id}/events?after=x"), (400, "invalid_args"))

    def test_commands_of_a_task_and_their_answers(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        for method, path, body, command, value in (
            ("POST", "messages", {"text": "hi"}, "channelDeliver", {"messageId": "m", "routedTo": []}),
            ("GET", "diff", None, "taskDiff", {"projects": []}),
            ("POST", "push", {"pullRequest": True}, "taskPush", {"projects": []}),
            (
                "POST",
                "permissions/r1",
                {"agentId": "a", "decision": "decline"},
                "channelResolvePermission",
                {},
            ),
            ("POST", "interrupt", {"agentId": "a"}, "channelInterrupt", {}),
            (
                "POST",
                "attachments",
                {"filename": "a", "dataBase64": ""},
                "attachmentWrite",
                {"path": "/attachments/a", "bytes": 0},
            ),
            ("POST", "down", {}, "taskDown", {"status": "stopped", "saved": []}),
        ):
            connection = self.send(method, f"/api/tasks/{task_id}/{path}", body)
            sent = self.commands(socket)[-1]
            self.assertEqual(sent["command"], command)
            self.answer(socket, sent, value)
            answer = connection.answer()
            self.assertEqual((answer.status, answer.json), (200, value), path)

    def test_a_push_with_and_without_a_pull_request(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        asked: list[tuple[Any, dict[str, Any]]] = [({}, {}), ({"pullRequest": True}, {"pullRequest": {}})]
        for body, more in asked:
            self.send("POST", f"/api/tasks/{task_id}/push", body)
            self.assertEqual(self.commands(socket)[-1]["args"], [{"taskId": task_id, **more}])
        self.assertEqual(self.error("POST", f"/api/tasks/{task_id}/push", {"pullRequest": 1})[0], 400)

    def test_a_decision_says_how_long_it_counts_and_what_was_answered(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        path = f"/api/tasks/{task_id}/permissions/r1"
        for more in ({"scope": "task"}, {"answers": {"Which?": "This"}}):
            connection = self.send("POST", path, {"agentId": "a", "decision": "accept", **more})
            sent = self.commands(socket)[-1]
            self.assertEqual(sent["args"][3], {"kind": "accept", **more})
            self.answer(socket, sent, {})
            self.assertEqual(connection.answer().status, 200)
        before = len(self.commands(socket))
        for wrong in (
            {"decision": "perhaps"},
            {"decision": "accept", "scope": "ever"},
            {"decision": "accept", "answers": {"Which?": 1}},
            {"decision": "decline", "scope": "task"},
            {"decision": "decline", "answers": {}},
        ):
            answer = self.error("POST", path, {"agentId": "a", **wrong})
            self.assertEqual(answer, (400, "invalid_args"), wrong)
        self.assertEqual(len(self.commands(socket)), before)

    def test_what_each_agent_has_used(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        for seq, (agent, read, cost) in enumerate((("a", 10, 0.5), ("a", 5, 0.25), ("b", 1, None)), 2):
            told = {} if cost is None else {"costUsd": cost}
            fields = {"agentId": agent, "inputTokens": read, "outputTokens": 2, **told}
            self.event(socket, "agent.usage", task_id, seq, **fields)
        self.event(socket, "agent.usage", task_id, 9, agentId="b", inputTokens="many")
        self.assertEqual(
            self.ask("GET", f"/api/tasks/{task_id}").json["usage"],
            {
                "a": {"inputTokens": 15, "outputTokens": 4, "costUsd": 0.75},
                "b": {"inputTokens": 1, "outputTokens": 2, "costUsd": None},
            },
        )

    def test_a_raw_command(self) -> None:
        socket = self.connect()
        connection = self.send("POST", "/api/command", {"command": "taskStatus", "args": ["t"]})
        self.answer(socket, self.commands(socket)[-1], [1])
        self.assertEqual(connection.answer().json, {"value": [1]})
        connection = self.send("POST", "/api/command", {"command": "nope", "args": [], "timeout": 5})
        self.refuse(socket, self.commands(socket)[-1], "unknown_command", "no command nope")
        answer = connection.answer()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (400, "unknown_command"))
        connection = self.send("POST", "/api/command", {"command": "slow", "args": [], "timeout": 5})
        self.clock.advance(5)
        self.assertEqual(connection.answer().status, 504)

    def test_every_code_has_its_status(self) -> None:
        socket = self.connect()
        for code, status in (
            ("invalid_args", 400),
            ("not_found", 404),
            ("conflict", 409),
            ("too_large", 413),
            ("clone_failed", 422),
            ("internal", 500),
            ("unavailable", 503),
            ("timeout", 504),
            ("never heard of", 500),
        ):
            connection = self.send("POST", "/api/command", {"command": "x", "args": []})
            self.refuse(socket, self.commands(socket)[-1], code, "why")
            answer = connection.answer()
            self.assertEqual((answer.status, answer.json["error"]["message"]), (status, "why"))

    def test_bodies_that_are_not_what_is_expected(self) -> None:
        self.connect()
        for body in (
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"repoUrl": 7}',
            b'{"repoUrl": "x", "previewPorts": 3}',
            b"\xff",
        ):
            self.assertEqual(self.error("POST", "/api/tasks", body), (400, "invalid_args"), body)

    def test_nothing_there(self) -> None:
        for method, path in (
            ("GET", "/api/tasks/nope"),
            ("GET", "/api/tasks/nope/events"),
            ("GET", "/api/nope"),
            ("GET", "/nope"),
            ("GET", "/static/../api.py"),
            ("GET", "/static/%2e%2e%2fapi.py"),
        ):
            self.assertEqual(self.error(method, path), (404, "not_found"), path)
        self.assertEqual(self.ask("POST", "/api/state", {}).status, 405)

    def test_without_a_host_a_task_is_unavailable(self) -> None:
        self.assertEqual(self.error("POST", "/api/tasks", {"repoUrl": "/srv/shop"}), (503, "unavailable"))

    def test_a_defect_is_no_traceback(self) -> None:
        def broken(task_id: str) -> None:
            raise ZeroDivisionError("secret")

        self.patch(self.tasks, "get", broken)
        answer = self.ask("GET", "/api/tasks/t")
        self.assertEqual((answer.status, answer.json["error"]["code"]), (500, "internal"))
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class GuardedTests(ApiCase):
    def test_without_the_key_the_api_says_so(self) -> None:
        self.assertEqual(self.error("GET", "/api/state", Authorization=""), (401, "unauthorized"))
        self.assertEqual(self.error("GET", "/api/events", Authorization=""), (401, "unauthorized"))

    def test_without_the_key_the_page_says_how_to_get_the_link(self) -> None:
        answer = self.ask("GET", "/", Authorization="")
        self.assertEqual(answer.status, 401)
        self.assertIn(b"uaihost up", answer.body)

    def test_the_link_gives_the_cookie_and_loses_the_key(self) -> None:
        answer = self.ask("GET", f"/?key={KEY}", Authorization="")
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/"))
        cookie = answer.headers["set-cookie"].split(";")[0]
        self.assertEqual(self.ask("GET", "/", Authorization="", Cookie=cookie).status, 200)
        state = self.ask("GET", "/api/state", Authorization="", Cookie=cookie)
        self.assertEqual(state.status, 200)
        self.assertEqual(self.ask("GET", "/?key=wrong", Authorization="").status, 401)

    def test_every_answer_has_the_guards_headers(self) -> None:
        for answer in (
            self.ask("GET", "/"),
            self.ask("GET", "/api/state"),
            self.ask("GET", "/api/state", Authorization=""),
            self.ask("GET", "/api/state", Host="evil.example:8789"),
            self.ask("GET", "/static/app.js"),
        ):
            for name, value in HEADERS.items():
                self.assertEqual(answer.headers[name.lower()], value)

    def test_other_hosts_on_a_kept_connection_are_refused_too(self) -> None:
        connection = self.send("GET", "/healthz")
        self.assertEqual(connection.answer().status, 200)
        connection.protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: evil.example:8789\r\n\r\n")
        self.assertEqual(connection.answer().status, 421)
        connection = self.send("GET", "/healthz", Host="localhost:8789\r\nHost: evil.example:8789")
        self.assertEqual(connection.answer().status, 421)

    def test_a_change_of_another_origin_or_kind_does_nothing(self) -> None:
        socket = self.connect()
        body = {"repoUrl": "/srv/shop"}
        for headers, status in (
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Content_Type": "text/plain"}, 415),
        ):
            self.assertEqual(self.error("POST", "/api/tasks", body, **headers)[0], status)
        self.assertEqual(self.commands(socket), [])

    def test_a_body_that_is_too_large_is_not_kept(self) -> None:
        connection = self.send("POST", "/api/tasks", b"", Content_Length=str(MAX_BODY + 1))
        connection.protocol.dataReceived(b"x" * (MAX_BODY + 1))
        self.assertEqual(connection.answer().status, 413)
        connection = self.send("POST", "/api/tasks", b"", Content_Length="", Transfer_Encoding="chunked")
        connection.protocol.dataReceived(b"3\r\n{} \r\n0\r\n\r\n")
        self.assertEqual(connection.answer().status, 413)

    def test_the_pages_files_are_all_there_and_load_nothing_foreign(self) -> None:
        for name in FILES:
            answer = self.ask("GET", f"/static/{name}", Authorization="")
            self.assertEqual(answer.status, 200, name)
            text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
            if not name.endswith(".svg"):
                self.assertNotRegex(text, r"(src|href)=\"(https?:)?//", name)
            self.assertNotIn("innerHTML", text)
            self.assertNotRegex(text, r"<(script|style)>|\son[a-z]+=\"|style=\"", name)
        page = (STATIC / "index.html").read_text()
        self.assertIn('<script type="module" src="/static/app.js">', page)


class StreamTests(ApiCase):
    def stream(self, path: str = "/api/events", **headers: str) -> Connection:
        return self.send("GET", path, Accept="text/event-stream", **headers)

    def frames(self, connection: Connection) -> list[tuple[str, str, Any]]:
        """(id, event, data) of each event that arrived since the last call."""
        data = connection.take()
        if data.startswith(b"HTTP/1.1"):
            head, data = data.split(b"\r\n\r\n", 1)
            self.assertIn(b"text/event-stream", head)
        found = []
        for block in unchunked(data).decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":"
            )
            if "data" in fields:
                found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
        return found

    def usage(self, socket: FakeSocket, task_id: str, seq: int) -> None:
        self.event(socket, "agent.usage", task_id, seq, agentId="a", inputTokens=1, outputTokens=1)

    def test_what_was_missed_comes_first_then_what_happens(self) -> None:
        socket = self.connect()
        for seq in (1, 2, 3):
            self.usage(socket, "t", seq)
        connection = self.stream("/api/events?after=1")
        self.assertEqual([frame[0] for frame in self.frames(connection)], ["2", "3"])
        self.usage(socket, "t", 4)
        self.assertEqual([frame[0] for frame in self.frames(connection)], ["4"])

    def test_a_browser_that_comes_back_names_the_last_one_it_saw(self) -> None:
        socket = self.connect()
        for seq in (1, 2, 3):
            self.usage(socket, "t", seq)
        connection = self.stream("/api/events?after=0", Last_Event_ID="2")
        self.assertEqual([frame[0] for frame in self.frames(connection)], ["3"])

    def test_deltas_are_live_and_have_no_id(self) -> None:
        socket = self.connect()
        connection = self.stream()
        self.event(socket, "channel.delta", "t", messageId="m", agentId="a", text="hi")
        ((id, event, data),) = self.frames(connection)
        self.assertEqual((id, event, data["text"]), ("", "event", "hi"))

    def test_one_tasks_events_only(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        connection = self.stream(f"/api/tasks/{task_id}/events?after=1")
        self.usage(socket, "other", 2)
        self.usage(socket, task_id, 3)
        self.assertEqual([frame[2]["taskId"] for frame in self.frames(connection)], [task_id])

    def test_records_of_tasks_and_hosts_are_told(self) -> None:
        connection = self.stream()
        socket = self.connect()
        task_id = self.ready(socket)
        frames = self.frames(connection)
        self.assertTrue(any(event == "hosts" and data[0]["connected"] for _, event, data in frames))
        last = [data for _, event, data in frames if event == "task"][-1]
        self.assertEqual((last["id"], last["ready"]), (task_id, True))

    def test_a_silent_stream_has_comments(self) -> None:
        connection = self.stream()
        connection.take()
        self.clock.advance(KEEP_ALIVE)
        self.assertIn(b":\n\n", connection.take())

    def test_a_listener_that_leaves_leaves_nothing_behind(self) -> None:
        connection = self.stream()
        self.assertEqual(len(self.comments()), 1)
        connection.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.comments(), [])
        connection.take()
        self.usage(self.connect(), "t", 1)
        self.assertEqual(connection.take(), b"")

    def comments(self) -> list[Any]:
        """The streams' timers."""
        calls: Any = self.clock.getDelayedCalls()
        return [call for call in calls if call.func.__name__ == "_comment"]

    def test_a_listener_that_does_not_read_is_dropped(self) -> None:
        socket = self.connect()
        connection = self.stream()
        connection.take()
        connection.transport.producer.pauseProducing()  # type: ignore[union-attr]
        text = "x" * 100_000
        for _ in range(LIMIT // 100_000 + 2):
            self.event(socket, "channel.delta", "t", messageId="m", agentId="a", text=text)
        self.assertTrue(connection.transport.disconnecting)
        self.assertEqual(connection.take(), b"")

    def test_a_long_history_comes_at_the_listeners_pace(self) -> None:
        socket = self.connect()
        for seq in range(1, 1201):
            self.usage(socket, "t", seq)
        connection = self.stream()
        ids = [int(frame[0]) for frame in self.frames(connection)]
        self.assertEqual(ids, list(range(1, 1201)))
