"""The pure parts of channels: routing, budget, instructions, permissions."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.agents.adapter import PermissionAsked
from uaihost.channel.instructions import standing, workspace
from uaihost.channel.permissions import WITHDRAWN, Permissions, input_hash
from uaihost.channel.routing import AGENT_ID, Slash, mentions, route, slash
from uaihost.errors import ErrorCode, HostError
from uaihost.test.channel.rig import agent, crew
from uaihost.test.support import given, strategies

CREW = ["a", "b", "code-1"]
ASKED = PermissionAsked("r", "Run", "ls", {"command": "ls"})


class RoutingTests(TestCase):
    def test_who_is_mentioned(self) -> None:
        table: list[tuple[str, list[str]]] = [
            ("hello", []),
            ("@a look", ["a"]),
            ("please, @b: and then @a.", ["b", "a"]),
            ("(@code-1)", ["code-1"]),
            ("@a @a @a", ["a"]),
            ("@nobody and @A", []),
            ("mail me@a or ann@a.org", []),
            ("@a-b @a_ @ab", []),
            ("see `@a` and\n```\n@b\n```\nthen @code-1", ["code-1"]),
            ("```\n@a never closed", []),
            ("path/@a ./@b", []),
            ("@a@b", ["a"]),
            ("ü@a", []),
            ("»@a«", ["a"]),
        ]
        for text, expected in table:
            self.assertEqual(mentions(text, CREW), expected, text)

    def test_without_a_mention_the_last_partner_hears_it_else_the_first(self) -> None:
        self.assertEqual(route("hello", CREW, None), ["a"])
        self.assertEqual(route("hello", CREW, "b"), ["b"])
        self.assertEqual(route("hello", CREW, "gone"), ["a"])
        self.assertEqual(route("hello @code-1 @b", CREW, "a"), ["code-1", "b"])
        self.assertEqual(route("hello", [], None), [])

    @given(strategies.text(alphabet="@ab-c1 `\n./", max_size=30), strategies.sampled_from([*CREW, None]))
    def test_a_word_is_heard_by_members_only_each_once_and_by_somebody(
        self, text: str, partner: str | None
    ) -> None:
        heard = route(text, CREW, partner)
        self.assertEqual(len(heard), len(set(heard)))
        self.assertLessEqual(set(heard), set(CREW))
        self.assertTrue(heard)

    @given(strategies.from_regex(AGENT_ID, fullmatch=True))
    def test_every_legal_id_can_be_addressed(self, agent_id: str) -> None:
        self.assertEqual(mentions(f"well, @{agent_id}, do it", [agent_id]), [agent_id])

    def test_orders_to_the_channel(self) -> None:
        self.assertEqual(slash("/help"), Slash("help", ()))
        self.assertEqual(slash(" /restart @a b "), Slash("restart", ("a", "b")))
        self.assertEqual(slash("/retry-gh"), Slash("retry-gh", ()))
        for text in ("", "help", "/etc/passwd is odd", "/helpme", "say /help", "/"):
            self.assertIsNone(slash(text), text)


class InstructionTests(TestCase):
    def test_everything_that_was_said_is_in_them_and_the_crew(self) -> None:
        given_crew = crew(agent("a", defaultPrompt="Write tests."), agent("b"), context="We ship today.")
        text = standing(given_crew, given_crew.agents[0])
        for part in ("We ship today.", "Keep it small.", "Write tests.", "branch work", "@b (B, mock)"):
            self.assertIn(part, text)
        self.assertNotIn("@a (A, mock)", text)

    def test_one_alone_hears_of_nobody(self) -> None:
        given_crew = crew(agent("a"))
        self.assertNotIn("Also in this task", standing(given_crew, given_crew.agents[0]))
        self.assertEqual(workspace(given_crew), "/workspace/app")


class PermissionTests(TestCase):
    def setUp(self) -> None:
        self.permissions = Permissions("t")

    def refused(self, code: ErrorCode, *given_decision: Any) -> str:
        with self.assertRaises(HostError) as caught:
            self.permissions.decide(*given_decision)
        self.assertEqual(caught.exception.code, code)
        return str(caught.exception.message)

    def test_a_decision_is_made_once(self) -> None:
        self.permissions.ask("a", ASKED, 1)
        row = self.permissions.decide("a", "r", "accept", "ann", 2)
        assert row is not None
        self.assertEqual((row.decision, row.decided_by, row.decided_at), ("accept", "ann", 2))
        self.assertIsNone(self.permissions.decide("a", "r", "accept", "bob", 3))
        self.assertIn("ann said accept", self.refused(ErrorCode.CONFLICT, "a", "r", "decline", "bob", 3))

    def test_what_nobody_asked_or_knows_is_refused(self) -> None:
        self.permissions.ask("a", ASKED, 1)
        self.refused(ErrorCode.NOT_FOUND, "b", "r", "accept", "ann", 2)
        self.refused(ErrorCode.NOT_FOUND, "a", "other", "accept", "ann", 2)
        self.refused(ErrorCode.INVALID_ARGS, "a", "r", "maybe", "ann", 2)

    def test_a_decision_never_counts_for_another_input_under_the_same_name(self) -> None:
        self.permissions.ask("a", ASKED, 1)
        other = PermissionAsked("r", "Run", "ls", {"command": "rm -rf ."})
        self.assertTrue(self.permissions.is_open("a", ASKED))
        self.assertFalse(self.permissions.is_open("a", other))
        self.permissions.withdraw("a", "r", 2)
        row = self.permissions.ask("a", other, 3)
        self.assertEqual((row.request_id, row.asked_as), ("r~2", "r"))
        self.assertIn("withdrawn", self.refused(ErrorCode.CONFLICT, "a", "r", "accept", "ann", 4))
        self.refused(ErrorCode.CONFLICT, "a", "r", "decline", "ann", 4)
        self.assertIsNotNone(self.permissions.open_request("a", "r"))

    def test_an_answered_request_that_is_asked_again_is_a_new_one(self) -> None:
        self.permissions.ask("a", ASKED, 1)
        self.permissions.decide("a", "r", "accept", "ann", 2)
        self.assertFalse(self.permissions.is_open("a", ASKED))
        self.assertEqual(self.permissions.ask("a", ASKED, 3).request_id, "r~2")
        self.assertEqual(self.permissions.ask("a", ASKED, 3).request_id, "r~3")

    def test_what_is_withdrawn_counts_as_declined(self) -> None:
        self.permissions.ask("a", ASKED, 1)
        row = self.permissions.withdraw("a", "r", 2)
        assert row is not None
        self.assertEqual((row.decision, row.decided_by), ("decline", WITHDRAWN))
        self.assertIsNone(self.permissions.withdraw("a", "r", 3))

    def test_the_hash_is_of_the_content_and_not_of_its_order(self) -> None:
        self.assertEqual(input_hash("Run", {"x": 1, "y": [2]}), input_hash("Run", {"y": [2], "x": 1}))
        different: list[tuple[str, dict[str, Any]]] = [
            ("Run", {"x": 2}),
            ("Run", {"x": "1"}),
            ("Edit", {"x": 1}),
            ("Run", {}),
        ]
        self.assertEqual(len({input_hash(*each) for each in [*different, ("Run", {"x": 1})]}), 5)
