"""A session through any order of crashes, restarts, interrupts, limits and decisions.

Whatever happens: every message that the agent printed is said once and in order; every word that was queued
begins exactly one turn, in order; every turn that began has ended exactly once before the next begins; and in
the end the agent takes words.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.python.failure import Failure

from uaihost.agents.adapter import PermissionAsked, PermissionWithdrawn
from uaihost.agents.course import GO_ON
from uaihost.agents.progress import Decided, PermissionsOrphaned, TurnBegan, TurnFinished
from uaihost.agents.turn import State
from uaihost.errors import HostError
from uaihost.state import channel as table
from uaihost.state.channel import PermissionRow
from uaihost.test.agents.cases import SessionCase
from uaihost.test.agents.container import talk
from uaihost.test.support import given, settings, strategies

STEPS = (
    "word",
    "crash",
    "keeper",
    "daemon",
    "decide",
    "interrupt",
    "limit",
    "retry",
    "restart",
    "renew",
    "full",
)


class Schedule(SessionCase):
    """One run; `play` does one step and lets a little time go by."""

    def begin(self) -> None:
        super().begin()
        self.words = 0

    def word(self) -> None:
        self.words += 1
        text = f"word {self.words}"
        tool = {"id": "1", "name": "Run", "detail": "ls"}
        ask = {"request": f"r{self.words}", "tool": "Run", "title": "ls", "input": {"n": self.words}}
        lines: list[dict[str, Any]] = [
            {"type": "message", "text": f"begin {self.words}"},
            {"type": "tool", "state": "started", **tool},
            {"type": "tool", "state": "ended", "ok": True, **tool},
        ]
        if self.words % 3 == 0:
            lines += [{"type": "permission", **ask}]
        elif self.words % 4 != 0:
            lines += talk(text)
        self.container.script[text] = lines
        self.queue(text)

    def play(self, step: str, pause: int) -> None:
        match step:
            case "word":
                self.word()
            case "crash":
                if self.container.run is not None:
                    self.container.die(1)
            case "keeper":
                if self.container.run is not None:
                    self.container.lose_keeper()
            case "daemon":
                self.restart_daemon()
            case "decide":
                self.decide()
            case "limit":
                if self.busy():
                    resets = int((self.clock.seconds() + 5) * 1000)
                    self.container.print(type="end", reason="failed", error="", fault="quota", resets=resets)
            case "full":
                self.store.fail_after = 0
            case _:
                work = ensureDeferred(getattr(self.session, step)())
                work.addErrback(Failure.trap, HostError)
        self.tick(pause)
        self.store.fail_after = None

    def busy(self) -> bool:
        return self.session.state is State.BUSY and self.container.exited is None

    def decide(self) -> None:
        """A person accepts what the agent waits for."""
        if self.session.state is State.AWAITING:
            (name,) = self.session.row.asked
            row = PermissionRow("t", "a", name, name, 0, "Run", "ls", "{}", "", "accept", "ann", 1)
            self.successResultOf(self.session.answer(lambda: Decided(row)))

    def settle(self) -> None:
        """Nothing fails any more and everybody does their part, until nothing is left to be done."""
        self.container.script.clear()
        for _ in range(60 + 4 * self.words):
            if self.quiet():
                break
            self.decide()
            if self.busy() and self.session.row.cursor == self.container.end:
                self.container.print(type="end", reason="done")
            if self.session.state is State.FAILED:
                self.successResultOf(self.session.restart())
            self.clock.advance(1)
            self.tick(8)
            self.clock.advance(30)
            self.tick(3)
        self.flushLoggedErrors()

    def quiet(self) -> bool:
        row = self.session.row
        waiting = table.queued(self.store.db, "t", "a") is not None or row.pending
        return self.session.state is State.IDLE and not waiting and row.cursor == self.container.end

    def check(self) -> None:
        self.assertEqual(self.session.state, State.IDLE)
        printed = [json.loads(line) for line, _ in self.container.log]
        messages = [line["text"] for line in printed if line["type"] == "message"]
        self.assertEqual([text for text in self.room.said() if text in messages], messages)
        open_turn: TurnBegan | None = None
        for each in self.room.happened:
            if isinstance(each, TurnBegan):
                self.assertIsNone(open_turn)
                open_turn = each
            elif isinstance(each, TurnFinished):
                self.assertIsNotNone(open_turn)
                open_turn = None
        self.assertIsNone(open_turn)
        began = [each.text for each in self.room.happened if isinstance(each, TurnBegan)]
        words = [f"word {n + 1}" for n in range(self.words)]
        self.assertEqual(list(dict.fromkeys(began)), words)
        heard = [text.removeprefix(GO_ON) for text in self.container.prompts()]
        self.assertTrue(set(heard) <= set(words))
        self.assertEqual(table.queued(self.store.db, "t", "a"), None)
        waiting: set[str] = set()
        for happening in self.room.happened:
            match happening:
                case PermissionAsked(request_id=name):
                    waiting.add(name)
                case PermissionWithdrawn(request_id=name):
                    waiting.discard(name)
                case Decided(row=row):
                    waiting.discard(row.asked_as)
                case PermissionsOrphaned(request_ids=names):
                    waiting -= set(names)
        self.assertEqual(waiting, set(), "a request that nobody waits for stays on people's screens")


class ScheduleTests(Schedule):
    @given(
        strategies.lists(
            strategies.tuples(strategies.sampled_from(STEPS), strategies.integers(0, 12)), max_size=25
        )
    )
    @settings(max_examples=80)
    def test_nothing_is_lost_or_doubled(self, steps: list[tuple[str, int]]) -> None:
        self.begin()
        for step, pause in steps:
            self.play(step, pause)
        self.settle()
        self.check()
