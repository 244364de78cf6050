"""Two Claudes and a Codex in one task: words passed on by mention, reviews in order, loops that end."""

from __future__ import annotations

from uaihost.test.integration.agents_rig import AgentsCase, Channel, agent

CREW = (agent("claude", "ada"), agent("claude", "ben"), agent("codex", "cleo"))


class CrewTests(AgentsCase):
    def resting(self, chat: Channel) -> None:
        for name in ("ada", "ben", "cleo"):
            chat.resting(name)

    def test_a_word_goes_around(self) -> None:
        chat = self.world.task(*CREW)
        self.resting(chat)
        before = chat.say("@ada say:{at}ben say:{{at}}cleo say:it went around")
        chat.heard("cleo", "it went around", before)
        self.resting(chat)
        said = [event["author"]["id"] for event in chat.of("channel.message", None, before)]
        self.assertEqual([name for name in said if name in ("ada", "ben", "cleo")], ["ada", "ben", "cleo"])

    def test_work_is_reviewed_in_the_order_that_was_given(self) -> None:
        chat = self.world.task(*CREW, reviewerOrder=["cleo", "ben"])
        self.resting(chat)
        self.world.api.otherwise = "say:I have looked at it"
        self.addCleanup(setattr, self.world.api, "otherwise", "")
        before = chat.say("@ada write:/workspace/shop/work.txt:done by ada ;; say:my work is done")
        chat.decide(chat.asked("ada"))
        chat.heard("ben", "I have looked at it", before)
        self.resting(chat)
        said = [event["author"]["id"] for event in chat.of("channel.message", None, before)]
        said = [name for name in said if name in ("ada", "ben", "cleo")]
        self.assertEqual(said, ["ada", "cleo", "ben"])
        self.assertIn("my work is done", chat.requests("", "responses")[-1].text)

    def test_an_author_that_is_addressed_answers_before_the_next_reviewer_is_asked(self) -> None:
        chat = self.world.task(*CREW, reviewerOrder=["cleo", "ben"])
        self.resting(chat)
        self.world.api.otherwise = "say:I have looked at it"
        self.addCleanup(setattr, self.world.api, "otherwise", "")
        # The reviewer reads the author's answer, and does what it says.
        answer = "say:{{at}}ada say:I am sure"
        before = chat.say(f"@ada write:/workspace/shop/work.txt:done by ada ;; say:{answer}")
        chat.decide(chat.asked("ada"))
        chat.heard("ben", "I have looked at it", before)
        self.resting(chat)
        said = [event["author"]["id"] for event in chat.of("channel.message", None, before)]
        said = [name for name in said if name in ("ada", "ben", "cleo")]
        self.assertEqual(said, ["ada", "cleo", "ada", "ben"])
        chat.heard("ada", "I am sure", before)
        asked = [text for text in chat.texts("system", before) if "is asked to review" in text]
        self.assertEqual([text.split()[0] for text in asked], ["@cleo", "@ben"])

    def test_agents_of_one_account_do_not_share_a_conversation(self) -> None:
        chat = self.world.task(*CREW[:2])
        for name in ("ada", "ben"):
            chat.resting(name)
        chat.answer("ada", "say:only ada knows oleander", "oleander")
        chat.answer("ben", "say:and ben", "and ben")
        self.assertNotIn("oleander", str(self.world.api.asked[-1].body["messages"]))
        chat.kill(chat.program("ada", "claude"))
        chat.answer("ada", "say:still here", "still here")
        self.assertIn("oleander", str(self.world.api.asked[-1].body["messages"]))

    def test_a_loop_of_courtesies_ends_by_itself_and_one_word_resumes(self) -> None:
        chat = self.world.task(*CREW[:2])
        for name in ("ada", "ben"):
            chat.resting(name)
        self.world.api.otherwise = "say:@ada @ben thank you"
        self.addCleanup(setattr, self.world.api, "otherwise", "")
        before = chat.say("@ada begin")
        chat.heard("system", "paus", before)
        for name in ("ada", "ben"):
            chat.resting(name)
        turns = len(self.world.api.asked)
        self.assertLess(len(chat.texts("agent", before)), 20)
        self.world.api.otherwise = "say:back to work"
        before = chat.say("@ben say:I go on")
        chat.heard("ben", "I go on", before)
        self.assertGreater(len(self.world.api.asked), turns)
