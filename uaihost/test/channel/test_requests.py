"""Requests for leave in a whole channel: asked once, decided once, outliving daemon and process, expiring."""

from __future__ import annotations

import sqlite3
from typing import Any

import attrs

from uaihost.errors import ErrorCode
from uaihost.state import channel as table
from uaihost.test.channel.case import ChannelCase
from uaihost.test.channel.rig import agent


class GoesOn(dict[str, Any]):
    """An agent that, told to go on, asks the same again."""

    def __init__(self, asks: dict[str, Any]) -> None:
        super().__init__()
        self.asks = asks

    def get(self, text: str, default: Any = None) -> Any:
        return [self.asks] if text.endswith("act") else super().get(text, default)


class PermissionTests(ChannelCase):
    ASK = {"type": "permission", "request": "r", "tool": "Run", "title": "ls", "input": {"command": "ls"}}

    def setUp(self) -> None:
        super().setUp()
        self.engine.of("a").script["act"] = [self.ASK]
        self.ensure(agent("a"))
        self.deliver("act")
        self.tick()

    def resolve(self, request_id: str, decision: str) -> Any:
        return self.channels.resolve("t1", "a", request_id, decision, "ann")

    def answers(self) -> list[tuple[str, bool]]:
        applied = self.engine.of("a").applied
        return [(each["request"], each["accept"]) for each in applied if each["type"] == "answer"]

    def test_a_request_is_told_and_answered_once(self) -> None:
        asked = self.journal.of("permission.requested")[0]
        self.assertEqual((asked["requestId"], asked["input"]), ("r", {"command": "ls"}))
        self.assertEqual(self.states(), [("a", "awaiting-permission")])
        self.successResultOf(self.resolve("r", "accept"))
        self.successResultOf(self.resolve("r", "accept"))
        self.fails(ErrorCode.CONFLICT, self.resolve("r", "decline"))
        self.fails(ErrorCode.NOT_FOUND, self.resolve("other", "accept"))
        self.assertEqual(self.answers(), [("r", True)])
        self.assertEqual(len(self.journal.of("permission.resolved")), 1)

    def test_another_input_under_the_same_name_is_another_question(self) -> None:
        self.engine.of("a").print(**(self.ASK | {"input": {"command": "rm -rf ."}}))
        self.tick()
        requested = [each["requestId"] for each in self.journal.of("permission.requested")]
        self.assertEqual(requested, ["r", "r~2"])
        self.fails(ErrorCode.CONFLICT, self.resolve("r", "accept"))
        self.assertEqual(self.answers(), [])
        self.successResultOf(self.resolve("r~2", "decline"))
        self.assertEqual(self.answers(), [("r", False)])

    def test_always_is_a_rule_of_the_task_until_it_is_taken_back(self) -> None:
        self.successResultOf(self.channels.resolve("t1", "a", "r", "accept", "ann", "task"))
        self.assertIn("Run is accepted in this task", self.journal.texts("system")[-1])
        self.engine.of("a").print(**(self.ASK | {"request": "r2", "input": {"command": "id"}}))
        self.tick()
        self.assertEqual(self.answers(), [("r", True), ("r2", True)])
        self.assertIn("accepted by rule of ann", self.journal.texts("system")[-1])
        self.successResultOf(self.channels.stop())
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick()
        self.deliver("/rules")
        self.assertIn("Run (by ann)", self.journal.texts("system")[-1])
        self.deliver("/ask Run")
        self.assertIn("ask again before they use Run", self.journal.texts("system")[-1])
        self.engine.of("a").print(**(self.ASK | {"request": "r3"}))
        self.tick()
        self.assertEqual(self.answers(), [("r", True), ("r2", True)])
        self.assertEqual(self.states(), [("a", "awaiting-permission")])

    def test_nobody_in_time_is_a_decline(self) -> None:
        asked = self.journal.of("permission.requested")[0]
        self.assertEqual(asked["expiresAt"], asked["at"] + 7 * 24 * 3600 * 1000)
        for _ in range(8):
            self.clock.advance(24 * 3600)
            self.tick(5)
        self.assertEqual(self.answers(), [("r", False)])
        self.assertIn("nobody answered in time", self.journal.texts("system")[-1])
        self.fails(ErrorCode.CONFLICT, self.resolve("r", "accept"))

    def test_a_request_of_one_who_left_while_the_daemon_was_down_expires_too(self) -> None:
        self.successResultOf(self.channels.stop())

        def leave(db: sqlite3.Connection) -> None:
            (row,) = table.agents(db, "t1")
            table.save_agent(db, attrs.evolve(row, present=False))

        self.successResultOf(self.store.run(leave))
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.assertEqual((self.states(), self.journal.of("permission.resolved")), ([], []))
        for _ in range(8):
            self.clock.advance(24 * 3600)
        (resolved,) = self.journal.of("permission.resolved")
        self.assertEqual((resolved["requestId"], resolved["decision"]), ("r", "decline"))

    def lose_the_process(self) -> None:
        """It starts anew, and is told to go on."""

        class Silent(dict[str, Any]):
            def get(self, text: str, default: Any = None) -> Any:
                return [] if text.endswith("act") else super().get(text, default)

        self.engine.of("a").script = Silent()
        self.engine.of("a").lose_keeper()
        self.tick(1)
        self.clock.advance(20)
        self.tick()
        self.assertIn("act", self.engine.of("a").prompts()[-1])

    def test_a_request_outlives_its_process_and_the_next_is_bound_to_it(self) -> None:
        self.lose_the_process()
        self.assertEqual(self.journal.of("permission.resolved"), [])
        self.engine.of("a").print(**(self.ASK | {"request": "again"}))
        self.tick()
        self.assertEqual(len(self.journal.of("permission.requested")), 1)
        self.successResultOf(self.resolve("r", "accept"))
        self.assertEqual(self.answers(), [("again", True)])

    def test_a_decision_made_while_nobody_waits_is_given_once(self) -> None:
        self.lose_the_process()
        self.successResultOf(self.resolve("r", "accept"))
        self.assertEqual(self.answers(), [])
        for name in ("again", "once more"):
            self.engine.of("a").print(**(self.ASK | {"request": name}))
            self.tick()
        self.assertEqual(self.answers(), [("again", True)])
        self.assertEqual(len(self.journal.of("permission.resolved")), 1)
        self.assertEqual(self.states(), [("a", "awaiting-permission")])

    def decide_and_die(self) -> None:
        """Somebody decides; before the agent hears it its process dies, and the daemon with it."""
        self.engine.of("a").script = GoesOn(self.ASK | {"request": "again"})
        self.engine.of("a").die()
        self.successResultOf(self.resolve("r", "accept"))
        self.successResultOf(self.channels.stop())
        self.assertEqual(self.answers(), [])

    def test_a_decision_that_died_with_process_and_daemon_is_given_to_the_next_process(self) -> None:
        self.decide_and_die()
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick(5)
        self.clock.advance(20)
        self.tick()
        self.assertEqual(self.answers(), [("again", True)])
        self.assertEqual(len(self.journal.of("permission.requested")), 1)
        self.assertEqual(len(self.journal.of("permission.resolved")), 1)

    def test_so_is_one_whose_process_was_replaced_while_the_daemon_was_away(self) -> None:
        self.decide_and_die()
        self.engine.of("a").lose_keeper()
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick()
        self.assertEqual(self.answers(), [("again", True)])
        self.assertEqual(len(self.journal.of("permission.requested")), 1)

    def test_one_that_a_living_process_has_not_read_is_given_by_the_next_daemon_once(self) -> None:
        container = self.engine.of("a")
        container.apply = lambda number, line: False  # type: ignore[method-assign]
        self.successResultOf(self.resolve("r", "accept"))
        self.successResultOf(self.channels.stop())
        del container.apply
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick()
        self.assertEqual(self.answers(), [("r", True)])

    def test_the_same_question_repeated_is_one(self) -> None:
        self.engine.of("a").print(**self.ASK)
        self.tick()
        self.assertEqual(len(self.journal.of("permission.requested")), 1)

    def test_a_decision_that_cannot_be_stored_is_not_given_and_can_be_made_again(self) -> None:
        self.store.fail_after = 0
        self.failureResultOf(self.resolve("r", "accept"), sqlite3.OperationalError)
        self.store.fail_after = None
        self.assertEqual(self.answers(), [])
        self.clock.advance(5)
        self.tick()
        self.successResultOf(self.resolve("r", "accept"))
        self.tick()
        self.assertEqual(self.answers(), [("r", True)])
