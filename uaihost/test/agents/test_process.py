"""Giving a keeper up in bounded time; the way to its socket is tested with uaihost.unix."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.agents.framing import Hello
from uaihost.agents.process import ATTEMPTS, AgentProcess
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder


class NoListener:
    """Hears only that the process is lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def greeted(self, hello: Hello) -> None:
        raise AssertionError("nobody is there")

    def line_received(self, line: bytes | None, end: int) -> None:
        raise AssertionError("nobody is there")

    def agent_exited(self, status: int, err: str) -> None:
        raise AssertionError("nobody is there")

    def process_lost(self, reason: str) -> None:
        self.lost.append(reason)


class GivingUpTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.listener = NoListener()
        self.starts = 0
        self.failure: HostError | None = None
        self.process = AgentProcess(self.clock, short_folder(self), "a", self.start, self.listener)

    async def start(self) -> None:
        self.starts += 1
        if self.failure is not None:
            raise self.failure

    def test_a_keeper_that_never_comes_is_given_up_after_one_start(self) -> None:
        self.process.attach(0)
        self.clock.pump([*ATTEMPTS, 1.0])
        self.assertEqual(self.starts, 1)
        self.assertEqual(len(self.listener.lost), 1)
        self.assertIn("does not answer", self.listener.lost[0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_container_that_cannot_start_it_says_why_at_once(self) -> None:
        self.failure = HostError(ErrorCode.UNAVAILABLE, "the engine is stopped; start it")
        self.process.attach(0)
        self.assertEqual(self.listener.lost, ["the engine is stopped; start it"])

    def test_letting_go_ends_the_attempts(self) -> None:
        self.process.attach(0)
        self.process.detach()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.listener.lost, [])
