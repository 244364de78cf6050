"""How the process ends: signals that drain, a second one that does not, and a failure's status."""

from __future__ import annotations

import os
import signal
from unittest.mock import patch

from twisted.internet.error import ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase

from uaihost import exits
from uaihost.exits import Exits


class FakeReactor:
    def __init__(self, *, running: bool = True) -> None:
        self.running = running
        self.stopped = 0
        self.waiting: list[object] = []

    def stop(self) -> None:
        if self.stopped:
            raise ReactorNotRunning
        self.stopped += 1

    def callFromThread(self, function: object, *args: object) -> None:
        function(*args)  # type: ignore[operator]

    def callWhenRunning(self, function: object) -> None:
        self.waiting.append(function)

    def run(self) -> None:
        self.running = True
        for function in self.waiting:
            function()  # type: ignore[operator]


class ExitTests(SynchronousTestCase):
    def setUp(self) -> None:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number, handler in before.items():
            self.addCleanup(signal.signal, number, handler)

    def test_the_first_signal_stops_the_reactor_and_the_second_ends_at_once(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            reactor = FakeReactor(running=False)
            Exits(reactor).watch_signals()
            reactor.run()
            with patch("os._exit") as gone:
                os.kill(os.getpid(), number)
                self.assertEqual((reactor.stopped, gone.call_count), (1, 0))
                os.kill(os.getpid(), number)
                gone.assert_called_once_with(128 + number)

    def test_a_failure_stops_the_reactor_and_its_status_says_whether_to_try_again(self) -> None:
        for end, status in ((Exits.refuse, 1), (Exits.fail, 75)):
            reactor = FakeReactor()
            with patch("atexit.register") as register:
                end(Exits(reactor), "why")
            register.assert_called_once_with(exits._exit_with, status)
            self.assertEqual(reactor.stopped, 1)

    def test_a_failure_before_the_reactor_runs_stops_it_when_it_does(self) -> None:
        reactor = FakeReactor(running=False)
        with patch("atexit.register"):
            Exits(reactor).fail("a port is taken")
        self.assertEqual(reactor.stopped, 0)
        reactor.run()
        self.assertEqual(reactor.stopped, 1)

    def test_failing_on_the_way_out_is_no_error(self) -> None:
        reactor = FakeReactor()
        reactor.stop()
        with patch("atexit.register"):
            Exits(reactor).fail("too late")
        self.assertEqual(reactor.stopped, 1)
