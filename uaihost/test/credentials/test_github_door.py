"""Frames and verbs that connect users to GitHub."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.credentials.github import GitHubTokens
from uaihost.credentials.github_door import GitHubDoor
from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.credentials.github_model import FakeExchange, GitHubModel
from uaihost.wire import frames


def connect(token: str, ends: float | None = None) -> frames.GhConnectSet:
    return frames.GhConnectSet("ada", 1, "ada-l", "User", token, ends)


class DoorTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.model = GitHubModel()
        self.store = MemoryStore()
        sealer = Sealer(b"k" * 32)

        async def key() -> Sealer:
            return sealer

        exchange = FakeExchange(self.model, self.clock.seconds)
        self.tokens = GitHubTokens(
            self.clock, lambda: 0.5, self.store, key, exchange, "github.com", lambda user, line: None
        )
        self.door = GitHubDoor(self.tokens)

    def done(self, work: Any) -> Any:
        return self.successResultOf(ensureDeferred(work))

    def answer(self, frame: Any) -> frames.GhConnectAck:
        return self.successResultOf(ensureDeferred(self.door.answer(frame)))

    def test_set_and_clear_are_acknowledged(self) -> None:
        self.assertEqual(self.answer(connect("ghr_1")), frames.GhConnectAck("ada", True))
        self.assertEqual(self.tokens.login("ada"), "ada-l")
        self.assertEqual(self.answer(frames.GhConnectClear("ada")), frames.GhConnectAck("ada", True))
        self.assertIsNone(self.tokens.login("ada"))
        self.assertEqual(self.answer(frames.GhConnectClear("ada")), frames.GhConnectAck("ada", True))

    def test_a_time_of_a_bridge_is_in_milliseconds_or_in_seconds(self) -> None:
        for given in (1_800_000_000_000, 1_800_000_000):
            self.answer(frames.GhConnectClear("ada"))
            self.answer(connect("ghr_1", given))
            self.assertEqual(self.tokens._held["ada"].secrets.refresh_ends, 1_800_000_000)

    def test_what_is_no_token_is_refused_and_never_repeated(self) -> None:
        for token in ("", "two words", "x\n"):
            ack = self.answer(connect(token))
            self.assertFalse(ack.ok)
            self.assertIn("invalid_args", ack.error or "")
            if token:
                self.assertNotIn(token, ack.error or "")
        self.assertIsNone(self.tokens.login("ada"))

    def test_a_disk_that_is_full_is_an_answer_too(self) -> None:
        self.store.fail_after = 0
        ack = self.answer(connect("ghr_1"))
        self.assertEqual((ack.ok, ack.error), (False, "internal: see the host's log"))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_verbs(self) -> None:
        verbs = self.door.verbs()
        self.answer(connect("ghr_1"))
        shown = self.done(verbs["github.status"]({}))["connections"]
        self.assertEqual([(row["userId"], row["login"]) for row in shown], [("ada", "ada-l")])
        self.assertNotIn("ghr_1", str(shown))
        self.done(verbs["github.clear"]({"user": "ada"}))
        said = self.done(verbs["github.retry"]({"user": "ada"}))["said"]
        self.assertIn("connect", said)
        for name in ("github.connect", "github.clear", "github.retry"):
            failure = self.failureResultOf(ensureDeferred(verbs[name]({"user": 3})), HostError)
            self.assertEqual(failure.value.code, ErrorCode.INVALID_ARGS)
