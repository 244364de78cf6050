"""The daemon is killed twenty times during one turn of each program: nothing twice, nothing missing."""

from __future__ import annotations

from uaihost.test.integration.agents_rig import AgentsCase, agent, once, restart_host

KINDS = ("claude", "codex")
RESTARTS = 20
# The first half of a turn is thought, then a command that lasts until it is let go.
THOUGHT = 30
COMMAND = "echo {kind} >> {kind}.txt; while [ ! -e go.txt ]; do sleep 0.1; done; echo let go"
SCRIPT = f"@{{kind}} slow:{THOUGHT}:150 ;; run:{COMMAND} ;; slow:40:50"


class RestartTests(AgentsCase):
    def test_twenty_restarts_during_a_turn(self) -> None:
        chat = self.world.task(*(agent(kind) for kind in KINDS))
        for kind in KINDS:
            chat.resting(kind)
        before = len(chat.events())
        for kind in KINDS:
            chat.say(SCRIPT.format(kind=kind))
        for number in range(RESTARTS):
            restart_host(self.world)
            if number == RESTARTS // 2:
                for kind in KINDS:
                    chat.decide(chat.asked(kind))
            if number == RESTARTS - 3:
                chat.until("the commands", lambda: all(chat.read(f"{kind}.txt") for kind in KINDS))
                chat.inside("touch", "/workspace/shop/go.txt")
        for kind in KINDS:
            chat.heard(kind, "piece 40", before)
            chat.resting(kind)
            self.check(kind, before)
        lines = [f"{line['author_id']} {line['text']}" for line in chat.transcript()]
        self.assertTrue(once(lines), lines)

    def check(self, kind: str, before: int) -> None:
        chat = self.world.tasks[-1]
        thought = "".join(f"piece {number}\n" for number in range(1, THOUGHT + 1)).strip()
        last = "".join(f"piece {number}\n" for number in range(1, 41)).strip()
        texts = [text.strip() for text in chat.texts(kind, before)]
        self.assertEqual("\n".join(texts), f"{thought}\n{last}")
        self.assertEqual(chat.read(f"{kind}.txt"), f"{kind}\n")
        self.assertEqual(len(chat.of("permission.requested", kind, before)), 1)
        self.assertEqual(len(chat.of("permission.resolved", kind, before)), 1)
        self.assertEqual(len(chat.requests(f"echo {kind} >>")), 2)
