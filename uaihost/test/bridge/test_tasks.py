"""A task's way: up, channel, first message, ready; down; and every turn it can take."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.bridge.new_task import NewAgent, NewTask
from uaihost.bridge.tasks import DOWN_PATIENCE, MESSAGE_PATIENCE
from uaihost.errors import ErrorCode, HostError
from uaihost.test.bridge.fakes import FakeSocket
from uaihost.test.bridge.rig import BridgeCase
from uaihost.wire.inputs import Decision

PREVIEWS = [{"name": "web", "containerPort": 3000, "hostPort": 40001}]
UP = {"status": "running", "codeServerPort": 8100, "previewPorts": PREVIEWS, "workspacePath": "/workspace"}


class TasksCase(BridgeCase):
    def create(self, **fields: Any) -> str:
        record = self.successResultOf(self.tasks.create(NewTask(**{"repoUrl": "/srv/shop", **fields})))
        return str(record.id)

    def last(self, socket: FakeSocket, name: str) -> dict[str, Any]:
        command = self.commands(socket)[-1]
        self.assertEqual(command["command"], name)
        return command

    def ready(self, socket: FakeSocket, **fields: Any) -> str:
        task_id = self.create(**fields)
        self.answer(socket, self.last(socket, "taskUp"), UP)
        self.event(socket, "task.status", task_id, 1, status="running")
        self.answer(socket, self.last(socket, "channelEnsure"), {"agents": []})
        return task_id

    def ask(self, coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    def refused(self, coroutine: Any) -> HostError:
        error: HostError = self.failureResultOf(self.ask(coroutine), HostError).value
        return error


class UpTests(TasksCase):
    def test_the_whole_way(self) -> None:
        socket = self.connect()
        task_id = self.create(prompt=" Begin! ")
        up = self.last(socket, "taskUp")
        self.assertEqual(up["args"][0]["task"]["id"], task_id)
        self.assertEqual(up["args"][0]["task"]["hostId"], "host-1")
        self.answer(socket, up, UP)
        ensure = self.last(socket, "channelEnsure")["args"][0]
        self.assertEqual(
            {key: ensure[key] for key in ("taskId", "workspacePath", "status", "projects")},
            {
                "taskId": task_id,
                "workspacePath": "/workspace",
                "status": "running",
                "projects": [{"slug": "shop", "defaultPrompt": ""}],
            },
        )
        self.assertEqual(ensure["branch"], up["args"][0]["task"]["branch"])
        self.answer(socket, self.last(socket, "channelEnsure"), {"agents": []})
        deliver = self.last(socket, "channelDeliver")
        self.assertEqual(deliver["args"], [task_id, "user", "Begin!"])
        self.answer(socket, deliver, {"messageId": "m", "routedTo": []})
        view = self.tasks.view_of(self.tasks.get(task_id))
        self.assertEqual((view["status"], view["ready"]), ("running", True))
        self.assertEqual(view["previews"][0]["url"], f"http://{task_id}-web.preview.localhost:8789/")
        self.assertEqual(view["editorUrl"], f"http://{task_id}.editor.localhost:8789/")

    def test_a_crew_goes_to_the_host_with_its_order_and_what_all_are_told(self) -> None:
        socket = self.connect()
        crew: list[str | NewAgent] = [
            NewAgent("mock", "writer", "The writer", defaultPrompt="Be brief.", initialPrompt="Begin."),
            NewAgent("mock", "critic"),
        ]
        task_id = self.create(agents=crew, reviewerOrder=["critic"], globalContext="The shop sells apples.")
        up = self.last(socket, "taskUp")
        task = up["args"][0]["task"]
        self.assertEqual((task["reviewerOrder"], task["agents"][0]["initialPrompt"]), (["critic"], "Begin."))
        self.answer(socket, up, UP)
        ensure = self.last(socket, "channelEnsure")["args"][0]
        self.assertEqual(ensure["globalContext"], "The shop sells apples.")
        self.assertEqual(ensure["agents"][0]["defaultPrompt"], "Be brief.")
        view = self.tasks.view_of(self.tasks.get(task_id))
        self.assertEqual([agent["label"] for agent in view["agents"]], ["The writer", "critic"])
        self.assertEqual(view["reviewerOrder"], ["critic"])

    def test_without_a_first_message_none_is_sent(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        self.assertTrue(self.tasks.view_of(self.tasks.get(task_id))["ready"])
        self.last(socket, "channelEnsure")

    def test_without_a_host_nothing_is_made(self) -> None:
        error = self.refused(self.tasks.create(NewTask("/srv/shop")))
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("uaihost up", error.message)
        self.assertEqual(self.tasks.view(), [])

    def test_of_several_hosts_one_must_be_named(self) -> None:
        self.connect("host-1")
        other = self.connect("host-2")
        self.assertIn("host-1, host-2", self.refused(self.tasks.create(NewTask("/srv/shop"))).message)
        self.create(hostId="host-2")
        self.last(other, "taskUp")
        self.assertIn(
            "host-9", self.refused(self.tasks.create(NewTask("/srv/shop", hostId="host-9"))).message
        )

    def test_a_failure_says_why_and_can_be_tried_again(self) -> None:
        socket = self.connect()
        task_id = self.create()
        self.refuse(socket, self.last(socket, "taskUp"), "clone_failed", "no such repository")
        view = self.tasks.view_of(self.tasks.get(task_id))
        self.assertEqual((view["status"], view["message"]), ("failed", "no such repository"))
        first = self.last(socket, "taskUp")
        self.successResultOf(self.ask(self.tasks.retry(task_id)))
        second = self.last(socket, "taskUp")
        self.assertEqual(first["args"], second["args"])
        self.assertNotEqual(first["commandId"], second["commandId"])
        self.assertEqual(self.tasks.get(task_id).status, "pending")
        self.assertEqual(self.refused(self.tasks.retry(task_id)).code, ErrorCode.CONFLICT)

    def test_a_restart_at_every_step_goes_on_from_there(self) -> None:
        socket = self.connect()
        task_id = self.create(prompt="Begin!")
        for name, value in (
            ("taskUp", UP),
            ("channelEnsure", {"agents": []}),
            ("channelDeliver", {"messageId": "m"}),
        ):
            sent = self.last(socket, name)
            self.begin(self.database)
            socket = self.connect()
            self.assertEqual([c["commandId"] for c in self.commands(socket)], [sent["commandId"]])
            self.answer(socket, sent, value)
        self.assertEqual(self.tasks.get(task_id).phase, "ready")
        self.begin(self.database)
        self.assertEqual(self.commands(self.connect()), [])

    def test_a_cut_between_result_and_record_asks_again(self) -> None:
        socket = self.connect()
        self.create()
        sent = self.last(socket, "taskUp")
        from uaihost.bridge import store

        self.successResultOf(self.database.run(lambda db: store.remove_command(db, sent["commandId"])))
        self.begin(self.database)
        again = self.last(self.connect(), "taskUp")
        self.assertEqual(again["args"], sent["args"])

    def test_a_value_that_is_none_fails_the_task(self) -> None:
        socket = self.connect()
        task_id = self.create()
        self.answer(socket, self.last(socket, "taskUp"), "what?")
        self.assertEqual(self.tasks.get(task_id).status, "failed")


class RoutingTests(TasksCase):
    def test_a_task_is_known_by_its_id_until_it_is_down(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        found = self.tasks.by_label(task_id)
        assert found is not None
        self.assertEqual((found.id, found.host_id, found.previews), (task_id, "host-1", frozenset({"web"})))
        self.ask(self.tasks.down(task_id))
        self.answer(socket, self.last(socket, "taskDown"), {"status": "stopped", "saved": []})
        self.assertIsNone(self.tasks.by_label(task_id))

    def test_a_task_exposed_on_its_host_is_seen_and_routed(self) -> None:
        socket = self.connect()
        self.event(socket, "task.status", "My-Port", 1, status="running")
        self.event(socket, "ports.changed", "My-Port", 2, previewPorts=PREVIEWS)
        found = self.tasks.by_label("my-port")
        assert found is not None
        self.assertEqual((found.id, found.previews), ("My-Port", frozenset({"web"})))
        self.answer(socket, self.last(socket, "taskStatus"), {**UP, "codeServerPort": 9})
        view = self.tasks.view_of(self.tasks.get("My-Port"))
        self.assertTrue(view["exposed"])
        self.assertEqual(view["previews"][0]["url"], "http://my-port-web.preview.localhost:8789/")
        self.assertEqual(view["editorUrl"], "http://my-port.editor.localhost:8789/")

    def test_ports_alone_make_it_known_too(self) -> None:
        socket = self.connect()
        self.event(socket, "ports.changed", "p", 1, previewPorts=PREVIEWS)
        self.assertIsNotNone(self.tasks.by_label("p"))

    def test_an_exposed_task_that_stops_is_not_routed_and_may_come_back(self) -> None:
        socket = self.connect()
        self.event(socket, "task.status", "p", 1, status="running")
        self.event(socket, "task.status", "p", 2, status="stopped")
        self.assertIsNone(self.tasks.by_label("p"))
        self.event(socket, "task.status", "p", 3, status="running")
        self.assertIsNotNone(self.tasks.by_label("p"))

    def test_an_exposed_task_has_ports_only(self) -> None:
        self.event(self.connect(), "task.status", "p", 1, status="running")
        for coroutine in (
            self.tasks.deliver("p", "user", "hi"),
            self.tasks.diff("p"),
            self.tasks.down("p"),
            self.tasks.retry("p"),
        ):
            self.assertEqual(self.refused(coroutine).code, ErrorCode.CONFLICT)

    def test_what_is_told_of_a_task_is_its_view(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        told = [json.loads(news.data) for news in self.news if news.kind == "task"]
        self.assertEqual(told[-1], self.tasks.view_of(self.tasks.get(task_id)))


class WaitingTests(TasksCase):
    WAITING = {"reason": "cloning", "text": "Receiving objects", "since": 1, "percent": 10}

    def test_what_a_task_waits_for_is_shown_and_goes_with_its_end(self) -> None:
        socket = self.connect()
        task_id = self.create()
        self.event(socket, "task.status", task_id, 1, status="preparing", waiting=self.WAITING)
        self.assertEqual(self.view(task_id)["waiting"], self.WAITING)
        self.event(socket, "task.status", task_id, 2, status="starting")
        self.assertIsNone(self.view(task_id)["waiting"])

    def test_how_a_wait_goes_on_is_told_and_not_logged(self) -> None:
        socket = self.connect()
        task_id = self.create()
        for seq, percent in enumerate((10, 20, 30), 1):
            waiting = {**self.WAITING, "percent": percent}
            self.event(socket, "task.status", task_id, seq, status="preparing", waiting=waiting)
        self.assertEqual(self.view(task_id)["waiting"]["percent"], 30)
        told = [news for news in self.events() if json.loads(news.data).get("waiting")]
        self.assertEqual([news.id is None for news in told], [False, True, True])

    def test_a_parked_task_can_be_opened(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        parked = {"reason": "parked", "text": "starts when it is used", "since": 1}
        self.event(socket, "task.status", task_id, 5, status="stopped", waiting=parked)
        view = self.view(task_id)
        self.assertEqual((view["status"], len(view["previews"])), ("stopped", 1))
        self.event(socket, "task.status", task_id, 6, status="stopped")
        self.assertEqual(self.view(task_id)["previews"], [])

    def test_it_outlives_a_restart(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        self.event(socket, "task.status", task_id, 5, status="running", waiting=self.WAITING)
        self.begin(self.database)
        self.assertEqual(self.view(task_id)["waiting"], self.WAITING)

    def view(self, task_id: str) -> dict[str, Any]:
        return self.tasks.view_of(self.tasks.get(task_id))


class ChannelTests(TasksCase):
    def test_a_word_is_answered_with_its_id(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        said = self.ask(self.tasks.deliver(task_id, "user", "hi"))
        self.answer(socket, self.last(socket, "channelDeliver"), {"messageId": "m", "routedTo": ["mock"]})
        self.assertEqual(self.successResultOf(said), {"messageId": "m", "routedTo": ["mock"]})

    def test_a_word_to_a_host_that_is_gone_waits_for_it_and_is_said_once(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        socket.receiver.closed(1006, "")
        said = self.ask(self.tasks.deliver(task_id, "user", "hi"))
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(said), {"queued": True})
        self.begin(self.database)
        socket = self.connect()
        self.assertEqual([c["args"] for c in self.commands(socket)], [[task_id, "user", "hi"]])
        self.answer(socket, self.last(socket, "channelDeliver"), {"messageId": "m", "routedTo": []})
        self.assertEqual(self.commands(self.connect()), [*self.commands(socket)][1:])

    def test_a_word_refused_late_is_said_in_the_channel(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        said = self.ask(self.tasks.deliver(task_id, "user", "hi"))
        self.clock.advance(MESSAGE_PATIENCE)
        self.assertEqual(self.successResultOf(said), {"queued": True})
        self.refuse(socket, self.last(socket, "channelDeliver"), "unavailable", "the agent is gone")
        note = json.loads(self.events()[-1].data)
        self.assertEqual(note["author"]["kind"], "system")
        self.assertIn("the agent is gone", note["text"])

    def test_a_refused_word_is_refused(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        said = self.ask(self.tasks.deliver(task_id, "user", " "))
        self.refuse(socket, self.last(socket, "channelDeliver"), "invalid_args", "the message is empty")
        self.assertEqual(self.failureResultOf(said, HostError).value.code, ErrorCode.INVALID_ARGS)

    def test_the_arguments_of_the_other_commands(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        project = {"id": f"{task_id}-shop", "slug": "shop"}
        for coroutine, name, args in (
            (
                self.tasks.decide(task_id, "mock", "r1", Decision("accept")),
                "channelResolvePermission",
                [task_id, "mock", "r1", {"kind": "accept"}],
            ),
            (
                self.tasks.decide(task_id, "mock", "r2", Decision("accept", "task", {"Which?": "This"})),
                "channelResolvePermission",
                [task_id, "mock", "r2", {"kind": "accept", "scope": "task", "answers": {"Which?": "This"}}],
            ),
            (self.tasks.interrupt(task_id, "mock"), "channelInterrupt", [task_id, "mock"]),
            (self.tasks.diff(task_id), "taskDiff", [{"taskId": task_id, "projects": [project]}]),
            (
                self.tasks.attach(task_id, "a.txt", "eA=="),
                "attachmentWrite",
                [{"taskId": task_id, "filename": "a.txt", "dataBase64": "eA=="}],
            ),
        ):
            work = self.ask(coroutine)
            command = self.last(socket, name)
            self.assertEqual(command["args"], args)
            self.answer(socket, command, {})
            self.successResultOf(work)

    def test_what_is_of_use_only_now_is_refused_while_the_host_is_gone(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        socket.receiver.closed(1006, "")
        for coroutine in (
            self.tasks.diff(task_id),
            self.tasks.interrupt(task_id, "mock"),
            self.tasks.decide(task_id, "mock", "r", Decision("accept")),
        ):
            self.assertEqual(self.refused(coroutine).code, ErrorCode.UNAVAILABLE)
        self.assertEqual(self.commands(self.connect()), [])

    def test_no_such_task(self) -> None:
        self.assertEqual(self.refused(self.tasks.diff("nope")).code, ErrorCode.NOT_FOUND)


class DownTests(TasksCase):
    def test_what_was_saved_is_told(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        taking = self.ask(self.tasks.down(task_id))
        down = self.last(socket, "taskDown")
        self.assertEqual(down["args"][0]["taskId"], task_id)
        self.assertEqual(down["args"][0]["task"]["id"], task_id)
        value = {"status": "stopped", "saved": [{"slug": "shop", "branch": "b"}]}
        self.answer(socket, down, value)
        self.assertEqual(self.successResultOf(taking), value)
        view = self.tasks.view_of(self.tasks.get(task_id))
        self.assertEqual((view["phase"], view["status"], view["previews"]), ("gone", "stopped", []))
        self.assertEqual(self.refused(self.tasks.down(task_id)).code, ErrorCode.CONFLICT)

    def test_a_refusal_leaves_the_task_as_it_was(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        taking = self.ask(self.tasks.down(task_id))
        self.refuse(socket, self.last(socket, "taskDown"), "unavailable", "the work cannot be saved")
        self.failureResultOf(taking, HostError)
        self.assertEqual(self.tasks.get(task_id).phase, "ready")
        self.assertEqual(self.tasks.get(task_id).message, "the work cannot be saved")

    def test_while_the_host_is_gone_it_waits_also_over_a_restart(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        socket.receiver.closed(1006, "")
        taking = self.ask(self.tasks.down(task_id))
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(taking), {"status": "stopping"})
        self.begin(self.database)
        socket = self.connect()
        self.answer(socket, self.last(socket, "taskDown"), {"status": "stopped", "saved": []})
        self.assertEqual(self.tasks.get(task_id).phase, "gone")

    def test_a_slow_one_goes_on_alone_and_says_when_it_fails(self) -> None:
        socket = self.connect()
        task_id = self.ready(socket)
        taking = self.ask(self.tasks.down(task_id))
        self.clock.advance(DOWN_PATIENCE)
        self.assertEqual(self.successResultOf(taking), {"status": "stopping"})
        self.refuse(socket, self.last(socket, "taskDown"), "conflict", "not now")
        self.assertIn("not now", json.loads(self.events()[-1].data)["text"])

    def test_down_while_it_comes_up_wins(self) -> None:
        socket = self.connect()
        task_id = self.create()
        up = self.last(socket, "taskUp")
        taking = self.ask(self.tasks.down(task_id))
        down = self.last(socket, "taskDown")
        self.answer(socket, up, UP)
        self.last(socket, "taskDown")
        self.answer(socket, down, {"status": "stopped", "saved": []})
        self.successResultOf(taking)
        self.assertEqual(self.tasks.get(task_id).phase, "gone")
