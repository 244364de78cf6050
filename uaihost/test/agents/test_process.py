"""Giving a keeper up in bounded time; the way to its socket is tested with uaihost.unix."""

from __future__ import annotations

import json
import socket
from typing import cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from uaihost.agents.framing import Hello
from uaihost.agents.process import ATTEMPTS, COMPLAINTS, AgentProcess
from uaihost.errors import ErrorCode, HostError
from uaihost.test.sockets import SocketReactor, listening
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


class Heard(NoListener):
    """Hears of the agent's end, too."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[int, str]] = []

    def greeted(self, hello: Hello) -> None:
        pass

    def agent_exited(self, status: int, err: str) -> None:
        self.ends.append((status, err))


class FalseKeeperTests(TestCase):
    """Who answers at the socket may be anything that runs in the container."""

    HELLO = {"hello": 1, "run": "r", "start": 0, "pid": 1, "exited": None, "stdin_next": 0, "out_end": 0}

    def setUp(self) -> None:
        self.reactor = SocketReactor()
        folder = short_folder(self)
        (folder / "agents" / "a").mkdir(parents=True)
        self.server = listening(self, folder / "agents" / "a" / "ctl.sock")
        self.listener = Heard()
        self.process = AgentProcess(self.reactor, folder, "a", self.start, self.listener)
        self.addCleanup(self.process.detach)
        self.logged: list[str] = []
        observer = cast(ILogObserver, self.log)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.process.attach(0)

    async def start(self) -> None:
        """It is there."""

    def log(self, event: LogEvent) -> None:
        if str(event.get("log_namespace")).startswith("uaihost.agents"):
            self.logged.append(str(event))

    def say(self, *messages: object) -> None:
        self.reactor.turn()
        peer, _ = self.server.accept()
        self.addCleanup(peer.close)
        for message in (self.HELLO, *messages):
            self.tell(peer, json.dumps(message).encode() + b"\n")

    def tell(self, peer: socket.socket, data: bytes) -> None:
        peer.sendall(data)
        self.reactor.turn()

    def test_its_complaints_do_not_fill_the_log(self) -> None:
        self.say(*[{"error": "x" * 1000}] * (COMPLAINTS * 3))
        self.assertEqual(len(self.logged), COMPLAINTS)

    def test_nor_does_what_it_says_wrong_again_and_again(self) -> None:
        for _ in range(COMPLAINTS * 3):
            self.say([])
            self.reactor.advance(ATTEMPTS[0])
        self.assertEqual(len(self.logged), COMPLAINTS)

    def test_an_end_that_cannot_be_stored(self) -> None:
        self.say({"exited": 1 << 80}, {"exited": 1, "err": "\ud800!"})
        self.assertEqual(self.listener.ends, [(1, "?!")])
