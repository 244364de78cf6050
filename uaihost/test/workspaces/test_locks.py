"""Locks with names: in the order of asking, shared or alone, and against another process."""

from __future__ import annotations

import fcntl
import os

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import short_folder
from uaihost.workspaces.locks import Locks


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = short_folder(self)
        self.locks = Locks(self.clock, self.folder)
        self.held: list[str] = []

    def take(self, how: str, word: str) -> Deferred[None]:
        """Hold the lock until the result is fired."""
        end: Deferred[None] = Deferred()

        async def hold() -> None:
            async with getattr(self.locks, how)("one"):
                self.held.append(word)
                await end
                self.held.remove(word)

        Deferred.fromCoroutine(hold())
        return end

    def test_alone_is_alone_and_in_order(self) -> None:
        first, second = self.take("exclusive", "first"), self.take("exclusive", "second")
        self.take("exclusive", "third")
        self.clock.advance(1)
        self.assertEqual(self.held, ["first"])
        first.callback(None)
        self.assertEqual(self.held, ["second"])
        second.callback(None)
        self.assertEqual(self.held, ["third"])

    def test_those_who_share_keep_out_who_wants_to_be_alone(self) -> None:
        first, second = self.take("shared", "first"), self.take("shared", "second")
        self.take("exclusive", "alone")
        self.assertEqual(self.held, ["first", "second"])
        first.callback(None)
        self.clock.advance(1)
        self.assertEqual(self.held, ["second"])
        second.callback(None)
        self.clock.advance(1)
        self.assertEqual(self.held, ["alone"])

    def test_at_once_never_waits(self) -> None:
        async def attempt() -> bool:
            async with self.locks.at_once("one") as held:
                return held

        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(attempt())))
        shared = self.take("shared", "reader")
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(attempt())))
        shared.callback(None)
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(attempt())))

    def test_another_process_is_waited_for(self) -> None:
        self.take("exclusive", "made").callback(None)
        file = os.open(self.folder / "one", os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_EX)
        self.take("exclusive", "ours")
        self.clock.advance(1)
        self.assertEqual(self.held, [])
        os.close(file)
        self.clock.advance(1)
        self.assertEqual(self.held, ["ours"])

    def test_a_failure_lets_go(self) -> None:
        async def fail() -> None:
            async with self.locks.exclusive("one"):
                raise ValueError("x")

        self.failureResultOf(Deferred.fromCoroutine(fail()), ValueError)
        self.take("exclusive", "next")
        self.assertEqual(self.held, ["next"])
