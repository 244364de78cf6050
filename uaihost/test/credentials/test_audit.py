"""The record of uses: what a line holds, its order, and how files make room."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials import audit
from uaihost.credentials.audit import AuditLog
from uaihost.errors import HostError

P = ParamSpec("P")
T = TypeVar("T")


class Slow(Inline):
    """Begins what it is asked for, and is done with it when it is let go."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting
        return function(*args, **kwargs)


class AuditTests(TestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.clock = Clock()
        self.clock.advance(12.5)
        self.log = AuditLog(self.clock, Inline(), self.path)

    def use(self, path: str = "o/r", task: str = "t1") -> None:
        self.log(user="ada", task=task, what="git", host="github.com", path=path, outcome="ok")

    def test_a_line(self) -> None:
        self.use()
        (line,) = self.path.read_text().splitlines()
        self.assertEqual(
            json.loads(line),
            {
                "at": 12500,
                "user": "ada",
                "task": "t1",
                "what": "git",
                "host": "github.com",
                "path": "o/r",
                "outcome": "ok",
            },
        )
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual({key for key, count in self.log.uses.items() if count}, {("git", "ok")})

    def test_what_a_task_wrote_is_one_line_of_bounded_length(self) -> None:
        self.use("x\n{}\u2028" + "y" * 1000)
        (line,) = self.path.read_bytes().splitlines()
        self.assertLess(len(line), 600)
        (found,) = audit.read(self.path)
        self.assertTrue(found["path"].startswith("x\n{}"))

    def test_uses_stay_in_order_while_the_disk_is_slow(self) -> None:
        slow = Slow()
        self.log = AuditLog(self.clock, slow, self.path)
        for number in range(3):
            self.use(str(number))
        written = Deferred.fromCoroutine(self.log.written())
        self.assertNoResult(written)
        while slow.waiting:
            slow.waiting.pop().callback(None)
        self.successResultOf(written)
        self.assertEqual([one["path"] for one in audit.read(self.path)], ["0", "1", "2"])

    def test_a_full_file_makes_room_and_the_oldest_goes(self) -> None:
        self.log = AuditLog(self.clock, Inline(), self.path, limit=1)
        for number in range(8):
            self.use(str(number))
        files = sorted(path.name for path in self.path.parent.glob(f"{self.path.name}*"))
        self.assertEqual(len(files), 1 + audit.KEPT)
        self.assertEqual([one["path"] for one in audit.read(self.path)], ["3", "4", "5", "6", "7"])

    def test_a_disk_that_takes_nothing_stops_nobody(self) -> None:
        self.path.mkdir()
        self.use()
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.successResultOf(Deferred.fromCoroutine(self.log.written()))

    def test_a_line_that_was_cut_off(self) -> None:
        self.use("0")
        with self.path.open("a") as file:
            file.write('{"task": "t1", "pa\n[]\n')
        self.use("1")
        self.assertEqual([one["path"] for one in audit.read(self.path)], ["0", "1"])

    async def test_the_verb(self) -> None:
        ask = self.log.verbs()["audit.read"]
        for number in range(4):
            self.use(str(number), task=f"t{number % 2}")
        found = await ask({"task": "t1", "last": 10})
        self.assertEqual([one["path"] for one in found["uses"]], ["1", "3"])
        found = await ask({"last": 1})
        self.assertEqual([one["path"] for one in found["uses"]], ["3"])
        refused: tuple[dict[str, Any], ...] = ({}, {"last": 0}, {"last": "1"}, {"last": 1, "task": 5})
        for words in refused:
            with self.assertRaises(HostError):
                await ask(words)
