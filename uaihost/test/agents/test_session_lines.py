"""Lines that a session owes its agent: each once, in order, secrets filled in as they leave."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.agents.adapter import Adapter, AgentEvent, AgentSettings, Send
from uaihost.agents.life import LAZY
from uaihost.agents.mock import MockAdapter
from uaihost.agents.turn import State
from uaihost.errors import ErrorCode, HostError
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow
from uaihost.test.agents.cases import SessionCase
from uaihost.test.agents.container import talk


class OwingAdapter(MockAdapter):
    """Answers each line {"type": "need", "key": ..} of its agent at once."""

    def feed(self, line: bytes) -> list[AgentEvent]:
        message = json.loads(line)
        if message["type"] == "need":
            secret = b"{{key}}" if message["secret"] else b"none"
            answer = b'{"type": "take", "key": "%s"}' % secret
            return [Send(answer, message["secret"], message.get("renew", False))]
        return super().feed(line)


def need(secret: bool = True, renew: bool = False) -> dict[str, Any]:
    return {"type": "need", "secret": secret, "renew": renew}


class OwedLineTests(SessionCase):
    def adapter(self, row: AgentRow) -> Adapter:
        return OwingAdapter(AgentSettings(row.agent_id, row.model, "/f", row.instructions), row.memory)

    def taken(self) -> list[str]:
        return [each["key"] for each in self.container.applied if each["type"] == "take"]

    def work(self, *lines: dict[str, Any]) -> None:
        self.container.script["work"] = list(lines)
        self.ready()
        self.queue("work")
        self.tick(10)

    def test_a_secret_is_filled_in_as_it_leaves_and_is_nowhere_stored(self) -> None:
        self.work(need(), need(secret=False))
        self.assertEqual(self.taken(), ["sesame", "none"])
        self.assertNotIn("sesame", "\n".join(self.store.db.iterdump()))

    def test_what_comes_after_a_secret_waits_for_it(self) -> None:
        self.room.filling = Deferred()
        self.work(need(), need(secret=False))
        self.assertEqual(self.taken(), [])
        self.room.filling.callback(None)
        self.assertEqual(self.taken(), ["sesame", "none"])

    def test_a_daemon_that_dies_before_it_is_filled_in_leaves_it_to_the_next(self) -> None:
        self.room.filling = Deferred()
        self.work(need(renew=True), need(secret=False))
        self.room.filling = None
        self.restart_daemon()
        self.tick(10)
        self.assertEqual(self.taken(), ["sesame", "none"])
        self.assertEqual(self.room.renewed, [True, True])

    def test_a_secret_that_is_refused_ends_the_turn_with_what_to_do(self) -> None:
        self.room.refusal = HostError(ErrorCode.UNAVAILABLE, "nobody is signed in")
        self.work(need())
        self.assertIn("nobody is signed in", self.room.notes()[0])
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.session.state, State.IDLE)
        self.room.refusal = None
        del self.container.script["work"]
        self.successResultOf(self.session.retry())
        self.tick(5)
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.room.said(), ["you said work"])

    def test_each_is_owed_once_at_whatever_boundary_the_daemon_dies(self) -> None:
        for boundary in range(16):
            self.begin()
            self.container.script["work"] = [need(), need(secret=False), need(), *talk("work")]
            table.enqueue(self.store.db, "t", "a", "work")
            self.tick(boundary)
            self.restart_daemon()
            self.tick(40)
            self.assertEqual(self.taken(), ["sesame", "none", "sesame"], boundary)
            self.assertEqual(self.room.said(), ["you said work"], boundary)

    def test_what_is_stored_is_acknowledged(self) -> None:
        self.work(*talk("work"))
        self.clock.advance(LAZY)
        self.assertEqual(self.container.acknowledged, self.session.row.cursor)
        self.assertEqual(self.container.acknowledged, self.container.end)
