"""What the owner does to tasks from the machine itself, while no bridge is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from uaihost.commands.lanes import Lanes
from uaihost.commands.owner import OwnerCommands
from uaihost.commands.registry import lifecycle_key
from uaihost.errors import ErrorCode
from uaihost.state import outbox
from uaihost.test.commands.bench import CommandCase, trouble
from uaihost.test.commands.fakes import task_up
from uaihost.workspaces.restore import Kept


@attrs.define
class FakeArchive:
    name: str
    size: int = 7
    ticket: str = "ticket"
    notes: dict[str, list[str]] = attrs.field(factory=dict)


class FakeExports:
    def __init__(self) -> None:
        self.made: list[tuple[str, list[str]]] = []

    async def make(self, task_id: str, kept: Sequence[Kept]) -> FakeArchive:
        self.made.append((task_id, [one.name for one in kept]))
        return FakeArchive(f"{task_id}.tar.gz")


class FakeSaved:
    def __init__(self) -> None:
        self.all: list[Kept] = []

    async def kept(self, task_id: str | None = None) -> list[Kept]:
        return [one for one in self.all if one.task == task_id]


def kept(task: str, name: str) -> Kept:
    return Kept(task, name, name, "", "fix", "1" * 40, None, "/v", None, None, 0, 1.0, ())


class OwnerTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.lanes = Lanes()
        self.saved, self.exports = FakeSaved(), FakeExports()
        self.owner = OwnerCommands(self.tasks, self.lanes, self.saved, self.exports)

    def up(self) -> None:
        self.done(self.tasks.up("c1", task_up()))

    def stop(self) -> dict[str, Any]:
        return self.done(self.owner.stop({"taskId": "t1"}))

    def test_stopping_saves_removes_and_tells_the_bridge_later(self) -> None:
        self.up()
        assert self.db is not None
        before = self.done(self.db.run(outbox.depth))
        done = self.stop()
        self.assertEqual((done["status"], done["restore"]), ("stopped", "uaihost restore t1"))
        self.assertEqual([one["slug"] for one in done["saved"]], ["shop"])
        self.assertNotIn("t1", self.engine.containers)
        told = [event["status"] for event in self.events("task.status")]
        self.assertEqual(told[-2:], ["stopping", "stopped"])
        self.assertGreater(self.done(self.db.run(outbox.depth)), before, "they wait for the bridge")

    def test_stopping_again_says_the_same(self) -> None:
        self.up()
        first = self.stop()
        self.assertEqual(self.stop()["saved"], first["saved"])

    def test_what_is_not_safe_is_not_removed(self) -> None:
        self.up()
        self.workspaces.broken["save"] = trouble("no space left")
        error = self.refused(self.owner.stop({"taskId": "t1"}))
        self.assertIn("no space left", error.message)
        self.assertIn("t1", self.engine.containers)

    def test_it_waits_for_the_turn_of_the_commands(self) -> None:
        self.up()
        held: Deferred[None] = Deferred()
        first = Deferred.fromCoroutine(self.lanes.turn(lifecycle_key("t1"), lambda: held))
        stopping = Deferred.fromCoroutine(self.owner.stop({"taskId": "t1"}))
        self.assertNoResult(stopping)
        self.assertIn("t1", self.engine.containers)
        held.callback(None)
        self.successResultOf(first)
        self.assertEqual(self.successResultOf(stopping)["status"], "stopped")

    def test_what_was_begun_is_completed_when_whoever_asked_goes_away(self) -> None:
        self.up()
        held: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self.lanes.turn(lifecycle_key("t1"), lambda: held))
        stopping = Deferred.fromCoroutine(self.owner.stop({"taskId": "t1"}))
        stopping.addErrback(lambda failure: None)
        stopping.cancel()
        held.callback(None)
        self.assertNotIn("t1", self.engine.containers)
        self.assertEqual(self.events("task.status")[-1]["status"], "stopped")

    def test_a_task_that_starts_is_given_up(self) -> None:
        self.workspaces.slow["prepare shop"] = Deferred()
        rising = Deferred.fromCoroutine(self.tasks.up("c1", task_up()))
        self.assertNoResult(rising)
        self.assertEqual(self.stop()["status"], "stopped")
        self.assertEqual(self.failureResultOf(rising).value.code, ErrorCode.CANCELLED)

    def test_ports_that_are_exposed_are_taken_back(self) -> None:
        self.done(self.exposed.expose("own", {"web": 3000}))
        done = self.done(self.owner.stop({"taskId": "own"}))
        self.assertEqual((done["saved"], done["restore"]), ([], None))

    def test_a_task_that_runs_is_exported_as_it_is_now(self) -> None:
        self.up()
        self.saved.all = [kept("t1", "shop"), kept("t1", "shop-earlier"), kept("t2", "shop")]
        made = self.done(self.owner.export({"taskId": "t1"}))
        self.assertEqual(self.exports.made, [("t1", ["shop"])])
        self.assertEqual((made["download"], made["live"]), ("/api/downloads/ticket", True))
        self.assertIn("t1", self.engine.containers, "it goes on")
        self.assertIn("save shop", self.workspaces.calls)

    def test_a_task_that_is_gone_is_exported_as_it_was_kept(self) -> None:
        self.saved.all = [kept("t1", "shop"), kept("t1", "shop-earlier")]
        made = self.done(self.owner.export({"taskId": "t1"}))
        self.assertEqual(self.exports.made, [("t1", ["shop", "shop-earlier"])])
        self.assertFalse(made["live"])

    def test_what_nobody_knows(self) -> None:
        for words in ({}, {"taskId": 1}, {"taskId": "../x"}, {"taskId": ""}):
            for verb in (self.owner.stop, self.owner.export):
                self.assertEqual(self.refused(verb(words)).code, ErrorCode.INVALID_ARGS, words)
        for verb in (self.owner.stop, self.owner.export):
            self.assertEqual(self.refused(verb({"taskId": "none"})).code, ErrorCode.NOT_FOUND)
