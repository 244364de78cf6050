"""The live log: what was kept, what comes, by level and task, and its end."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.web.fakes import Answer, Caller, FakeDaemon
from uaihost.web.log_stream import BEAT, PERIOD, STREAMS
from uaihost.web.pages import Pages
from uaihost.web.site import LocalApi


class LogStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.clock = Clock()
        self.site = LocalApi(self.daemon, self.clock, door=None, pages=Pages()).site()
        self.addCleanup(self.site.stopFactory)

    def log(self, message: str, level: str = "info", **more: str) -> None:
        self.daemon.recent.add({"time": "t", "level": level, "logger": "l", "message": message, **more})

    def follow(self, query: str = "") -> Caller:
        caller = Caller(self.site)
        caller.send("GET", f"/api/log{query}", {"Host": "x"})
        return caller

    def said(self, caller: Caller) -> list[str]:
        return [record["message"] for _, record in events(caller.answer)]

    def test_what_was_kept_and_then_what_comes(self) -> None:
        self.log("early")
        caller = self.follow()
        self.assertEqual(self.said(caller), ["early"])
        self.assertEqual(caller.answer.headers["content-type"], "text/event-stream")
        self.log("late")
        self.log("later")
        self.clock.advance(PERIOD)
        self.assertEqual(self.said(caller), ["early", "late", "later"])

    def test_whoever_comes_again_misses_nothing_and_hears_nothing_twice(self) -> None:
        for number in range(5):
            self.log(f"line {number}")
        caller = self.follow("?after=3")
        self.assertEqual([number for number, _ in events(caller.answer)], [4, 5])

    def test_by_level_and_task(self) -> None:
        self.log("of one", task="t1")
        self.log("of two", "error", task="t2")
        self.log("of none", "warn")
        self.assertEqual(self.said(self.follow("?level=warn")), ["of two", "of none"])
        self.assertEqual(self.said(self.follow("?task=t1")), ["of one"])
        self.assertEqual(self.follow("?level=loud").answer.status, 400)
        for after in ("x", "-1", "9" * 30):
            self.assertEqual(self.follow(f"?after={after}").answer.status, 400)

    def test_lines_cannot_end_an_event(self) -> None:
        self.log("one\n\ndata: forged\n\n")
        self.assertEqual(self.said(self.follow()), ["one\n\ndata: forged\n\n"])

    def test_silence_is_broken_by_a_comment(self) -> None:
        caller = self.follow()
        before = caller.answer.body
        self.clock.pump([PERIOD] * int(BEAT / PERIOD + 1))
        self.assertEqual(caller.answer.body[len(before) :], b": here\n\n")

    def test_who_does_not_read_is_not_sent_more(self) -> None:
        caller = self.follow()
        producer: Any = caller.transport.producer
        producer.pauseProducing()
        self.log("first")
        self.clock.advance(PERIOD)
        self.log("second")
        self.clock.pump([PERIOD] * 3)
        self.assertEqual(self.said(caller), ["first"])
        producer.resumeProducing()
        self.clock.advance(PERIOD)
        self.assertEqual(self.said(caller), ["first", "second"])

    def test_so_many_and_no_more(self) -> None:
        open_ones = [self.follow() for _ in range(STREAMS)]
        self.assertEqual(self.follow().answer.status, 503)
        open_ones[0].leave()
        self.assertEqual(self.follow().answer.status, 200)

    def test_nothing_goes_on_for_who_is_gone(self) -> None:
        caller = self.follow()
        during = len(self.clock.getDelayedCalls())
        caller.leave()
        # What is left is the site's own.
        self.assertEqual(len(self.clock.getDelayedCalls()), during - 1)


def events(answer: Answer) -> list[tuple[int, Any]]:
    found = []
    for event in answer.body.decode().split("\n\n"):
        if event.startswith("id: "):
            number, _, data = event.partition("\ndata: ")
            found.append((int(number.removeprefix("id: ")), json.loads(data)))
    return found
