"""What every real agent is proved on: a person talks to it, decides for it, stops it, and it is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uaihost.test.integration.agents_rig import KEY, TOKEN, AgentsCase, Channel, agent, gone, restart_host

# A command that is asked for and goes on until it is killed.
ENDLESS = "python3 -c 'import time; time.sleep(4321)'"
# Seconds until a task is back whose container died: its rules are set anew, which waits for other daemons' of
# this machine.
COMES_BACK = 120.0
CLEAN = """
for place in /tmp /home/dev /workspace/*; do ls -d $place/ran-* 2>/dev/null; done; true
"""


class Proofs(AgentsCase):
    """kind: of the agent, which is its id too; the name of its program holds it."""

    kind: str

    @contextmanager
    def chat(self) -> Iterator[Channel]:
        """A task with the agent: the last test's, if it went well there."""
        found = self.world.spare.pop(self.kind, None) or self.world.task(agent(self.kind))
        found.resting(self.kind)
        yield found
        self.world.spare[self.kind] = found

    # ---- words

    def test_an_answer_comes_in_pieces_and_then_once(self) -> None:
        with self.chat() as chat, chat.stream() as deltas:
            before = chat.say(f"@{self.kind} slow:12:60")
            whole = "".join(f"piece {number}\n" for number in range(1, 13))
            chat.heard(self.kind, "piece 12", before)
            chat.resting(self.kind)
            (said,) = chat.texts(self.kind, before)
            self.assertEqual(said.strip(), whole.strip())
            self.assertTrue(whole.startswith("".join(deltas()).lstrip()), deltas())
            self.assertGreater(len(deltas()), 0)
            states = [event["state"] for event in chat.of("channel.activity", self.kind, before)]
            self.assertEqual((states[0], states[-1]), ("thinking", "idle"))
            (usage,) = chat.of("agent.usage", self.kind, before)
            self.assertEqual((usage["inputTokens"], usage["outputTokens"]), (100, 20))

    def test_it_remembers_what_was_said(self) -> None:
        with self.chat() as chat:
            chat.answer(self.kind, "say:the word was heliotrope", "heliotrope")
            chat.answer(self.kind, "say:next", "next")
            self.assertTrue(self.remembers("heliotrope"))

    # ---- tools

    def test_what_is_accepted_runs_once(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} run:echo ran >> accepted.txt ;; say:that was all")
            asked = chat.asked(self.kind)
            self.assertIn("echo ran >> accepted.txt", str(asked["input"]))
            self.assertEqual(chat.read("accepted.txt"), "")
            chat.decide(asked)
            chat.heard(self.kind, "that was all", before)
            chat.resting(self.kind)
            self.assertEqual(chat.read("accepted.txt"), "ran\n")
            (resolved,) = chat.of("permission.resolved", self.kind, before)
            self.assertEqual(resolved["decision"], "accept")

    def test_what_is_declined_does_not_run_and_the_turn_goes_on(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} run:touch declined.txt ;; say:without it then")
            chat.decide(chat.asked(self.kind), "decline")
            chat.heard(self.kind, "without it then", before)
            chat.resting(self.kind)
            self.assertFalse(self.exists(chat, "declined.txt"))

    def test_a_file_is_written_after_consent(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} write:/workspace/shop/made.txt:first line ;; say:it is there")
            chat.decide(chat.asked(self.kind))
            chat.heard(self.kind, "it is there", before)
            chat.resting(self.kind)
            self.assertEqual(chat.read("made.txt").strip(), "first line")

    def test_a_question_is_answered_by_a_choice(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} ask:Which colour?|red|blue")
            asked = chat.asked(self.kind)
            (question,) = asked["questions"]
            self.assertEqual(question["question"], "Which colour?")
            self.assertEqual([option["label"] for option in question["options"]], ["red", "blue"])
            chat.decide(asked, answers={"Which colour?": "blue"})
            chat.heard(self.kind, "blue", before)
            chat.resting(self.kind)

    # ---- interrupts

    def test_an_interrupted_thought_ends_and_the_agent_listens(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} slow:900:100")
            chat.until("the model asked", lambda: chat.requests("slow:900:100"))
            chat.until("it thinks", lambda: chat.state(self.kind) == "thinking")
            chat.interrupt(self.kind)
            chat.resting(self.kind, 15)
            self.assertNotIn("piece 900", str(chat.texts(self.kind, before)))
            chat.answer(self.kind, "say:I listen", "I listen")
            self.assertEqual(len(chat.requests("slow:900:100")), 1)

    def test_an_interrupted_command_is_gone(self) -> None:
        with self.chat() as chat:
            chat.say(f"@{self.kind} run:{ENDLESS}")
            chat.decide(chat.asked(self.kind))
            chat.until("the command", lambda: self.running(chat))
            chat.interrupt(self.kind)
            chat.resting(self.kind, 15)
            self.assertTrue(gone(lambda: self.running(chat)), "the command goes on")
            chat.answer(self.kind, "say:I listen again", "I listen again")

    # ---- deaths

    def test_a_killed_program_goes_on_with_what_it_had_asked(self) -> None:
        with self.chat() as chat:
            self.survives(chat, "program", lambda: chat.kill(chat.program(self.kind, self.kind)))

    def test_a_killed_keeper_goes_on_with_what_its_agent_had_asked(self) -> None:
        with self.chat() as chat:
            self.survives(chat, "keeper", lambda: chat.kill(chat.keeper(self.kind)))

    def test_a_killed_daemon_goes_on_with_what_was_asked(self) -> None:
        with self.chat() as chat:
            self.survives(chat, "daemon", lambda: restart_host(self.world))
            self.assertEqual(len(chat.requests("daemon.txt")), 2, "a turn went on, it did not begin again")

    def test_a_killed_container_goes_on_with_what_was_asked(self) -> None:
        with self.chat() as chat:
            self.survives(chat, "container", lambda: chat.docker("kill", chat.container))

    def test_a_killed_program_leaves_no_command_behind(self) -> None:
        with self.chat() as chat:
            chat.say(f"@{self.kind} run:{ENDLESS}")
            chat.decide(chat.asked(self.kind))
            (command, *_) = chat.until("the command", lambda: self.running(chat))
            chat.kill(chat.program(self.kind, self.kind))
            self.assertTrue(gone(lambda: [pid for pid in self.running(chat) if pid == command]))
            # It goes on by itself and asks for the same again.
            chat.decide(chat.asked(self.kind), "decline")
            chat.resting(self.kind)

    def survives(self, chat: Channel, name: str, kill: Callable[[], object]) -> None:
        """Something dies while a request is open; people decide after, on the same card, and it runs once."""
        chat.answer(self.kind, f"say:remember the {name}", f"remember the {name}")
        before = chat.say(f"@{self.kind} run:echo {name} >> {name}.txt ;; say:{name} survived")
        asked = chat.asked(self.kind)
        last = len(chat.events())
        kill()
        if name != "daemon":
            # Before its death is noticed a decision goes to the dead, who may have heard it.
            chat.until("a new start", lambda: "starting" in chat.states(self.kind, last), COMES_BACK)
        chat.decide(asked)
        chat.heard(self.kind, f"{name} survived", before, COMES_BACK)
        chat.resting(self.kind)
        self.assertEqual(chat.read(f"{name}.txt"), f"{name}\n")
        self.assertEqual(len(chat.of("permission.requested", self.kind, before)), 1, "a second card")
        self.assertEqual(
            [e["decision"] for e in chat.of("permission.resolved", self.kind, before)], ["accept"]
        )
        self.assertEqual(len([t for t in chat.texts(self.kind, before) if f"{name} survived" in t]), 1)
        self.assertTrue(self.remembers(f"remember the {name}"))

    # ---- what vendors refuse

    def test_a_usage_limit_parks_the_turn_which_goes_on_once(self) -> None:
        with self.chat() as chat:
            if self.kind == "claude":
                # It is told the end of limits of subscriptions alone.
                self.world.sign_in("claude", TOKEN, "--token-file")
                self.addCleanup(self.world.sign_in, "claude", KEY)
                chat.resting(self.kind)
            before = chat.say(f"@{self.kind} limit:9:1 ;; say:after the limit")
            parked = chat.until(
                "parked",
                lambda: [e for e in chat.of("channel.activity", self.kind, before) if e.get("until")],
            )[0]
            self.assertEqual(parked["state"], "idle")
            self.assertIn("usage limit until", parked["detail"])
            self.assertEqual(chat.texts(self.kind, before), [])
            asked = len(chat.requests("after the limit"))
            restart_host(self.world)
            chat.heard(self.kind, "after the limit", before)
            chat.resting(self.kind)
            self.assertEqual(len(chat.requests("after the limit")), asked + 1)
            said = next(e for e in chat.of("channel.message", None, before) if e["author"]["id"] == self.kind)
            self.assertGreaterEqual(said["at"], parked["until"])

    def test_an_unknown_key_says_what_to_type(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} fail:401")
            chat.heard("system", f"uaihost login {self.kind}", before)
            chat.resting(self.kind)
            with self.well():
                self.world.sign_in(self.kind, KEY)
                chat.heard(self.kind, "well again", before)
                chat.resting(self.kind)

    def test_retries_are_shown_and_end_and_a_person_tries_again(self) -> None:
        with self.chat() as chat:
            before = chat.say(f"@{self.kind} fail:500")
            note = chat.heard("system", "/retry", before)
            self.assertIn(f"@{self.kind}", note)
            chat.resting(self.kind)
            details = [str(e.get("detail")) for e in chat.of("channel.activity", self.kind, before)]
            self.assertTrue(any("retry" in detail for detail in details), details)
            # Codex tries a request four times, and four times the stream of which it is part.
            self.assertLessEqual(len(chat.requests("fail:500")), 16)
            with self.well():
                before = chat.say(f"/retry @{self.kind}")
                chat.heard(self.kind, "well again", before)
                chat.resting(self.kind)

    @contextmanager
    def well(self) -> Iterator[None]:
        """Nothing fails at the model."""
        self.world.api.well = True
        try:
            yield
        finally:
            self.world.api.well = False

    # ---- looks

    def remembers(self, word: str) -> bool:
        """Whether the model was last told `word` of the conversation before."""
        return word in str(self.world.api.asked[-1].body)

    def running(self, chat: Channel) -> list[int]:
        return chat.processes("time.sleep(4321)")

    def exists(self, chat: Channel, name: str) -> bool:
        return bool(chat.inside("sh", "-c", f"ls /workspace/shop/{name} 2>/dev/null; true").strip())

    def nothing_ran(self, chat: Channel, project: str) -> None:
        """Nothing of what the repository planted has left its mark, and nobody else has got the key."""
        chat.answer(self.kind, "say:good morning", "good morning")
        chat.say(f"@{self.kind} run:echo yes > worked.txt ;; say:worked")
        chat.decide(chat.asked(self.kind))
        chat.heard(self.kind, "worked")
        chat.resting(self.kind)
        self.assertEqual(chat.read("worked.txt", project), "yes\n")
        self.assertEqual(chat.inside("sh", "-c", CLEAN).split(), [])
        self.assertEqual({each.key for each in chat.requests("good morning")}, {KEY})
