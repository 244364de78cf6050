"""Reviews in a whole channel: agents in memory, real rows, work copies whose files change by a script."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.channel.reviewing import FAULT_PAUSE, LOOK_LIMIT
from uaihost.errors import ErrorCode, HostError
from uaihost.state import channel as table
from uaihost.test.agents.container import talk
from uaihost.test.channel.case import ChannelCase
from uaihost.test.channel.rig import agent


class Files:
    """The work copies: `mark` is what they are like; a `hold` keeps those who look waiting."""

    def __init__(self) -> None:
        self.mark = 1
        self.looks = 0
        self.error: Exception | None = None
        self.hold: Deferred[None] | None = None

    async def fingerprint(self, task_id: str) -> str:
        self.looks += 1
        if self.hold is not None:
            await self.hold
        if self.error is not None:
            raise self.error
        return f"mark {self.mark}"


class Script(dict[str, Any]):
    """What an agent says, by the end of what it is told; `work` changes the files first."""

    def __init__(self, files: Files, answer: str) -> None:
        super().__init__()
        self.files = files
        self.answer = answer

    def get(self, text: str, default: Any = None) -> Any:
        # An agent that works can be told so by a person, or by another agent's words.
        if text.endswith("work"):
            self.files.mark += 1
        return super().get(text, talk(self.answer))


class Stuck(Script):
    """It hangs in what it is told so."""

    def get(self, text: str, default: Any = None) -> Any:
        said = super().get(text)
        return [] if "hang" in text else said


class Silent(Script):
    """It answers when the test says so."""

    def get(self, text: str, default: Any = None) -> Any:
        return []


class ReviewCase(ChannelCase):
    def setUp(self) -> None:
        self.files = self.changes = Files()
        super().setUp()
        for agent_id, answer in (("a", "done"), ("r", "fine by me"), ("s", "fine too")):
            self.engine.of(agent_id).script = Script(self.files, answer)
        self.order("r", "s")
        self.ensure(agent("a"), agent("r"), agent("s"))

    def order(self, *reviewers: str) -> None:
        self.successResultOf(self.channels.set_reviewers("t1", reviewers, ["a", "r", "s"]))

    def asked(self) -> list[str]:
        """Who was asked to review, one after the other."""
        suffix = " is asked to review what @a has changed."
        said = self.journal.texts("system")
        return [text.removesuffix(suffix) for text in said if text.endswith(suffix)]

    def work(self, text: str = "@a work") -> None:
        self.deliver(text)
        self.tick()

    def again(self) -> None:
        """Another daemon."""
        self.successResultOf(self.channels.stop())
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))


class RoundTests(ReviewCase):
    def test_reviewers_are_asked_one_after_the_other_in_their_order(self) -> None:
        self.order("s", "r")
        self.work()
        self.assertEqual(self.asked(), ["@s", "@r"])
        said = [(event["author"]["id"], event["text"]) for event in self.journal.of("channel.message")]
        answers = [who for who, _ in said if who in "ars"]
        self.assertEqual(answers, ["a", "s", "r"])
        request = self.engine.of("s").prompts()[0]
        self.assertIn("@a said of it:\nyou said done", request)
        self.assertEqual(len(self.engine.of("s").prompts()), 1)

    def test_the_second_waits_for_the_first(self) -> None:
        self.engine.of("r").script = Silent(self.files, "")
        self.work()
        self.assertEqual(self.asked(), ["@r"])
        self.assertEqual(self.engine.of("s").prompts(), [])
        for line in talk("fine"):
            self.engine.of("r").print(**line)
        self.tick()
        self.assertEqual(self.asked(), ["@r", "@s"])

    def test_nobody_is_asked_when_nothing_has_changed(self) -> None:
        self.work("@a look around")
        self.assertEqual(self.asked(), [])
        self.assertEqual(self.files.looks, 2)

    def test_nobody_looks_when_nobody_reviews(self) -> None:
        for reviewers in ((), ("a",)):
            self.order(*reviewers)
            self.work()
        self.assertEqual((self.files.looks, self.asked()), (0, []))

    def test_one_that_is_not_in_the_crew_is_passed_over(self) -> None:
        self.order("x", "s")
        self.work()
        self.assertEqual(self.asked(), ["@s"])

    def test_the_author_speaks_first_when_it_is_addressed_and_a_change_begins_a_new_round(self) -> None:
        class Strict(Script):
            def get(self, text: str, default: Any = None) -> Any:
                answer, self.answer = self.answer, "fine now"
                return talk(answer)

        self.engine.of("r").script = Strict(self.files, "@a there is work")
        self.work()
        self.tick(100)
        self.assertEqual(self.asked(), ["@r", "@r", "@s"])
        self.assertEqual(len(self.engine.of("a").prompts()), 2)

    def test_an_author_that_changes_nothing_then_leaves_the_word_to_the_next(self) -> None:
        self.engine.of("r").script = Script(self.files, "@a are you sure?")
        self.work()
        self.tick(100)
        self.assertEqual(self.asked(), ["@r", "@s"])
        self.assertEqual(self.engine.of("a").prompts()[1], "@r says:\nyou said @a are you sure?")

    def test_a_change_before_the_reviewer_has_ended_is_reviewed_by_everybody(self) -> None:
        self.engine.of("r").script = Silent(self.files, "")
        self.work()
        *said, end = talk("@a there is work")
        for line in said:
            self.engine.of("r").print(**line)
        self.tick()
        self.assertEqual(len(self.engine.of("a").prompts()), 2)
        self.engine.of("r").script = Script(self.files, "fine now")
        self.engine.of("r").print(**end)
        self.tick(100)
        self.assertEqual(self.asked(), ["@r", "@r", "@s"])

    def test_what_others_change_between_turns_is_not_the_authors(self) -> None:
        self.work("@a look around")
        self.files.mark += 1
        self.work("@a look again")
        self.assertEqual(self.asked(), [])

    def test_what_a_turn_changed_that_was_cut_off_is_reviewed_with_the_next(self) -> None:
        self.engine.of("a").script = Stuck(self.files, "done")
        self.work("@a hang and work")
        self.deliver("/interrupt @a")
        self.tick()
        self.engine.of("a").print(type="end", reason="cancelled")
        self.tick()
        self.assertEqual((self.states()[0], self.asked()), (("a", "idle"), []))
        self.work("@a look around")
        self.assertEqual(self.asked(), ["@r", "@s"])


class LookTests(ReviewCase):
    def test_the_authors_turn_waits_until_its_files_are_known(self) -> None:
        held, self.files.hold = Deferred[None](), None
        self.files.hold = held
        self.deliver("@a work")
        self.deliver("@s hello")
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), [])
        self.assertEqual(self.engine.of("s").prompts(), ["@s hello"])
        self.files.hold = None
        held.callback(None)
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), ["@a work"])
        self.assertEqual(self.asked(), ["@r", "@s"])

    def test_a_look_that_takes_too_long_holds_up_nobody_for_ever(self) -> None:
        self.files.hold = Deferred()
        self.deliver("@a work")
        self.tick()
        self.clock.advance(LOOK_LIMIT)
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), ["@a work"])
        self.files.hold = Deferred()
        self.clock.advance(LOOK_LIMIT)
        self.tick()
        self.assertEqual(self.states()[0], ("a", "idle"))

    def test_files_that_cannot_be_looked_at_are_told_of_and_hold_up_nobody(self) -> None:
        self.files.error = HostError(ErrorCode.CONFLICT, "app has no HEAD")
        self.work()
        self.assertEqual(self.engine.of("a").prompts(), ["@a work"])
        self.assertEqual(
            self.journal.texts("system"),
            [
                "Nobody was asked to review what @a did: its files cannot be looked at (app has no HEAD)",
            ],
        )
        self.files.error = None
        self.work()
        self.assertEqual(self.asked(), ["@r", "@s"])

    def test_a_fault_of_ours_costs_the_review_alone(self) -> None:
        self.files.error = ZeroDivisionError()
        self.work()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.engine.of("a").prompts(), ["@a work"])
        self.assertIn("(ZeroDivisionError)", self.journal.texts("system")[-1])

    def test_a_look_that_cannot_be_stored_is_made_again(self) -> None:
        held = Deferred[None]()
        self.deliver("@a work")
        self.tick(1)
        self.files.hold = held
        self.tick()
        self.assertEqual(self.files.looks, 2)
        self.store.fail_after = 0
        self.files.hold = None
        held.callback(None)
        self.store.fail_after = None
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual(self.asked(), [])
        self.clock.advance(FAULT_PAUSE)
        self.tick()
        self.assertEqual(self.asked(), ["@r", "@s"])


class RestartTests(ReviewCase):
    def stored(self) -> dict[str, Any]:
        row = self.successResultOf(self.store.run(lambda db: table.channel(db, "t1")))
        found: dict[str, Any] = json.loads(row.review or "{}")
        return found

    def test_wherever_the_daemon_dies_each_is_asked_once(self) -> None:
        """Before each line that an agent prints, and while it is looked at the files."""
        self.deliver("@a work")
        for _ in range(60):
            self.tick(1)
            self.again()
        self.tick(100)
        self.assertEqual(self.asked(), ["@r", "@s"])
        self.assertEqual([len(self.engine.of(name).prompts()) for name in "ars"], [1, 1, 1])

    def test_a_look_that_was_owed_is_made_up_for(self) -> None:
        self.deliver("@a work")
        self.tick(1)
        held = self.files.hold = Deferred()
        self.tick()
        self.assertTrue(self.stored()["looking"])
        self.successResultOf(self.channels.stop())
        self.files.hold = None
        held.callback(None)
        self.assertEqual(self.asked(), [])
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick()
        self.assertEqual(self.asked(), ["@r", "@s"])

    def test_nobody_is_passed_over_while_the_crew_comes_together(self) -> None:
        """The author is back and hears a word before its reviewers are there."""
        self.deliver("@a work")
        self.tick(1)
        held = self.files.hold = Deferred()
        self.tick()
        self.deliver("@a and then?")
        self.successResultOf(self.channels.stop())
        self.files.hold = None
        held.callback(None)
        self.channels = self.daemon()
        slow = Deferred[None]()
        waiting: list[None] = []
        run = self.store.run

        async def late(work: Any) -> Any:
            # The second to come is read from a slow disk.
            if len(self.channels.states("t1")) == 2 and not waiting:
                waiting.append(None)
                await slow
            return await run(work)

        self.patch(self.store, "run", late)
        resumed = Deferred.fromCoroutine(self.channels.resume(["t1"]))
        self.tick()
        self.assertEqual((self.asked(), self.engine.of("a").prompts()), ([], ["@a work"]))
        slow.callback(None)
        self.successResultOf(resumed)
        self.tick()
        self.assertEqual(self.asked(), ["@r", "@s"])
        self.assertEqual(self.engine.of("a").prompts()[1:], ["@a and then?"])

    def test_a_row_of_an_older_version_is_gone_on_with(self) -> None:
        self.successResultOf(self.channels.stop())
        old = json.dumps({"mark": "mark 0", "stage": "looking", "left": [], "answer": "did it"})
        self.successResultOf(self.store.run(lambda db: table.set_review(db, "t1", old)))
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick()
        self.assertEqual(self.asked(), ["@r", "@s"])
        self.assertIn("did it", self.engine.of("r").prompts()[0])

    def test_what_the_author_is_to_answer_outlives_the_daemon(self) -> None:
        self.engine.of("r").script = Script(self.files, "@a are you sure?")
        self.engine.of("a").script["@r says:\nyou said @a are you sure?"] = []
        self.work()
        self.assertEqual(self.stored()["stage"], "addressed")
        self.again()
        for line in talk("yes"):
            self.engine.of("a").print(**line)
        self.tick(100)
        self.assertEqual(self.asked(), ["@r", "@s"])
