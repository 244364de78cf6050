"""The way to a keeper's socket through a folder that the agent can write, and giving up in bounded time."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.agents.framing import Hello
from uaihost.agents.process import ATTEMPTS, AgentProcess, Socket, Unreachable
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder

PARTS = ("agents", "a", "ctl.sock")


class SocketTests(TestCase):
    def setUp(self) -> None:
        self.run_folder = short_folder(self) / "run"
        self.home = self.run_folder / "agents" / "a"
        self.home.mkdir(parents=True)

    def listen(self, path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(path))
        listener.listen()
        return listener

    def reach(self) -> None:
        with Socket(self.run_folder, PARTS) as path, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_the_socket_is_reached_and_no_descriptor_is_left(self) -> None:
        listener = self.listen(self.home / "ctl.sock")
        before = descriptors()
        self.reach()
        self.assertEqual(descriptors(), before)
        peer, _ = listener.accept()
        peer.close()

    def test_a_path_longer_than_a_sockets_name_is_no_obstacle(self) -> None:
        deep = self.run_folder / ("d" * 120)
        (deep / "agents").mkdir(parents=True)
        self.listen(self.home / "ctl.sock")
        self.home.rename(deep / "agents" / "a")
        self.run_folder = deep
        self.reach()

    def test_a_link_in_place_of_any_part_is_not_followed(self) -> None:
        elsewhere = short_folder(self)
        (elsewhere / "a").mkdir()
        self.listen(elsewhere / "a" / "ctl.sock")
        self.home.rmdir()
        self.home.symlink_to(elsewhere / "a")
        self.assertRaises(OSError, self.reach)
        self.home.unlink()
        self.home.parent.rmdir()
        self.home.parent.symlink_to(elsewhere)
        self.assertRaises(OSError, self.reach)
        self.home.parent.unlink()
        self.home.mkdir(parents=True)
        (self.home / "ctl.sock").symlink_to(elsewhere / "a" / "ctl.sock")
        self.assertRaises(Unreachable, self.reach)

    def test_what_is_no_socket_is_not_opened(self) -> None:
        before = descriptors()
        (self.home / "ctl.sock").write_text("")
        self.assertRaises(Unreachable, self.reach)
        (self.home / "ctl.sock").unlink()
        os.mkfifo(self.home / "ctl.sock")
        self.assertRaises(Unreachable, self.reach)
        (self.home / "ctl.sock").unlink()
        self.assertRaises(FileNotFoundError, self.reach)
        self.assertEqual(descriptors(), before)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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
