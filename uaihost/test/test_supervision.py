"""The service manager's side, with a clock of the tests' own and with real datagram sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.supervision import LATE, LINE, LONGEST_STOP, MORE, TELL, Orders, Supervised, Supervisor

EXTEND = f"EXTEND_TIMEOUT_USEC={int(MORE * 1e6)}"


class Told:
    """What a service manager was told: words, in order."""

    def __init__(self) -> None:
        self.datagrams: list[list[str]] = []

    def __call__(self, data: bytes) -> None:
        self.datagrams.append(data.decode().split("\n"))

    @property
    def words(self) -> list[str]:
        return [word for datagram in self.datagrams for word in datagram]

    def count(self, word: str) -> int:
        return self.words.count(word)


class Inner:
    """A service whose start and stop end when the test says so."""

    def __init__(self) -> None:
        self.start: Deferred[None] = Deferred()
        self.stop: Deferred[None] = Deferred()
        self.line = "bridge connected; 2 tasks run"
        self.order: list[str] = []

    def startService(self) -> None:
        self.order.append("start")

    async def started(self) -> None:
        await self.start

    def stopService(self) -> Deferred[None]:
        self.order.append("stop")
        return self.stop

    async def summary(self) -> str:
        if not self.line:
            raise RuntimeError("the database is closed")
        return self.line


class OrdersTests(SynchronousTestCase):
    def test_orders_are_read_and_taken_out_of_the_environment(self) -> None:
        environ = {
            "NOTIFY_SOCKET": "/run/systemd/notify",
            "WATCHDOG_USEC": "60000000",
            "WATCHDOG_PID": "7",
            "HOME": "/",
        }
        self.assertEqual(Orders.taken(environ, 7), Orders("/run/systemd/notify", 60.0))
        self.assertEqual(environ, {"HOME": "/"})

    def test_an_abstract_name_begins_with_nul(self) -> None:
        self.assertEqual(Orders.taken({"NOTIFY_SOCKET": "@a/b"}, 1), Orders("\0a/b"))

    def test_a_watchdog_of_another_process_is_not_ours(self) -> None:
        environ = {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"}
        self.assertEqual(Orders.taken(environ, 7), Orders("/s"))

    def test_what_makes_no_sense_counts_as_nothing(self) -> None:
        for environ in (
            {},
            {"WATCHDOG_USEC": "1000000"},
            {"NOTIFY_SOCKET": "@"},
            {"NOTIFY_SOCKET": "vsock:2:1"},
            {"NOTIFY_SOCKET": "relative"},
        ):
            self.assertEqual(Orders.taken(dict(environ), 1), Orders())
        for usec in ("0", "-5", "soon", "\u0662"):
            self.assertEqual(Orders.taken({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": usec}, 1), Orders("/s"))


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told = Told()

    def supervisor(self, watchdog: float | None = 30.0) -> Supervisor:
        made = Supervisor(self.clock, Orders("/s", watchdog), send=self.told)
        self.addCleanup(made.stopped)
        return made

    def run_for(self, seconds: float, step: float = 1.0) -> None:
        self.clock.pump([step] * int(seconds / step))

    def test_a_long_start_is_not_taken_for_a_hanging_one(self) -> None:
        supervisor = self.supervisor()
        supervisor.starting()
        self.run_for(200)
        self.assertGreaterEqual(self.told.count(EXTEND), 200)
        self.assertNotIn("READY=1", self.told.words)
        supervisor.ready()
        self.assertEqual(self.told.count("READY=1"), 1)
        before = self.told.count(EXTEND)
        self.run_for(200)
        self.assertEqual(self.told.count(EXTEND), before)

    def test_the_watchdog_is_fed_before_half_its_time_has_passed(self) -> None:
        supervisor = self.supervisor(watchdog=30.0)
        supervisor.starting()
        supervisor.ready()
        gaps, last = [], 0
        for second in range(1, 301):
            before = self.told.count("WATCHDOG=1")
            self.clock.advance(1)
            if self.told.count("WATCHDOG=1") > before:
                gaps.append(second - last)
                last = second
        self.assertGreaterEqual(len(gaps), 19)
        self.assertLessEqual(max(gaps), 15)
        # Not more often than makes sense.
        self.assertGreaterEqual(min(gaps), 14)

    def test_a_watchdog_of_one_second_is_fed_at_every_look(self) -> None:
        supervisor = self.supervisor(watchdog=1.5)
        supervisor.starting()
        self.run_for(10)
        self.assertEqual(self.told.count("WATCHDOG=1"), 10)

    def test_a_reactor_whose_every_timer_is_late_is_left_to_the_watchdog(self) -> None:
        supervisor = self.supervisor()
        supervisor.starting()
        supervisor.ready()
        self.run_for(40)
        fed = self.told.count("WATCHDOG=1")
        self.run_for(70, step=LATE + 2)
        # One look in time had been seen before it drowned.
        self.assertLessEqual(self.told.count("WATCHDOG=1"), fed + 1)
        self.run_for(40)
        self.assertGreaterEqual(self.told.count("WATCHDOG=1"), fed + 2)

    def test_one_long_step_is_forgiven(self) -> None:
        supervisor = self.supervisor()
        supervisor.starting()
        supervisor.ready()
        self.run_for(13)
        self.clock.advance(20)
        self.assertEqual(self.told.count("WATCHDOG=1"), 1)

    def test_a_stop_asks_for_time_as_long_as_it_is_bearable(self) -> None:
        supervisor = self.supervisor(watchdog=None)
        supervisor.starting()
        supervisor.ready()
        self.told.datagrams.clear()
        supervisor.stopping()
        self.assertEqual(self.told.datagrams[0][0], "STOPPING=1")
        self.run_for(LONGEST_STOP * 2)
        self.assertLessEqual(abs(self.told.count(EXTEND) - LONGEST_STOP), 1)
        supervisor.stopped()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_line_is_one_line_and_told_once(self) -> None:
        supervisor = self.supervisor()
        for _ in range(3):
            supervisor.say("bridge waiting\nREADY=1\tnow")
        self.assertEqual(self.told.words, ["STATUS=bridge waiting READY=1 now"])
        supervisor.say("x" * 9000)
        self.assertEqual(self.told.words[-1], "STATUS=" + "x" * LINE)

    def test_where_nobody_listens_nothing_is_sent_and_nothing_is_timed(self) -> None:
        supervisor = Supervisor(self.clock, Orders(), send=self.told)
        supervisor.starting()
        supervisor.ready()
        supervisor.say("fine")
        supervisor.stopping()
        supervisor.stopped()
        self.assertEqual((self.told.datagrams, self.clock.getDelayedCalls()), ([], []))

    def test_a_manager_that_is_gone_disturbs_nobody(self) -> None:
        gone = str(Path(self.mktemp()).absolute())
        supervisor = Supervisor(self.clock, Orders(gone))
        supervisor.starting()
        supervisor.ready()
        self.run_for(3)
        supervisor.stopped()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SupervisedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told = Told()
        self.inner = Inner()
        supervisor = Supervisor(self.clock, Orders("/s", 30.0), send=self.told)
        self.service = Supervised(self.clock, self.inner, supervisor)

    def test_ready_is_said_when_it_has_started_and_not_before(self) -> None:
        self.service.startService()
        self.assertEqual(self.inner.order, ["start"])
        self.assertNotIn("READY=1", self.told.words)
        self.inner.start.callback(None)
        self.assertIn("READY=1", self.told.words)
        self.assertIn("STATUS=bridge connected; 2 tasks run", self.told.words)
        self.inner.line = "bridge waiting (no route); 2 tasks run"
        self.clock.advance(TELL)
        self.assertIn("STATUS=bridge waiting (no route); 2 tasks run", self.told.words)

    def test_a_start_that_fails_is_never_ready_and_says_why(self) -> None:
        self.service.startService()
        self.inner.start.errback(HostError(ErrorCode.CONFLICT, "the host cannot start: the folder is taken"))
        self.assertNotIn("READY=1", self.told.words)
        self.assertIn("STATUS=the host cannot start: the folder is taken", self.told.words)

    def test_a_start_that_ends_after_the_stop_began_is_not_ready(self) -> None:
        self.service.startService()
        stopping = self.service.stopService()
        self.inner.start.callback(None)
        self.inner.stop.callback(None)
        self.successResultOf(stopping)
        self.assertNotIn("READY=1", self.told.words)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_is_said_first_and_time_is_asked_for_while_results_leave(self) -> None:
        self.service.startService()
        self.inner.start.callback(None)
        self.told.datagrams.clear()
        stopping = self.service.stopService()
        self.assertEqual(self.told.words[0], "STOPPING=1")
        self.assertNoResult(stopping)
        self.inner.line = "stopping; 1 commands in flight"
        self.clock.pump([1.0] * 60)
        self.assertGreaterEqual(self.told.count(EXTEND), 60)
        self.assertIn("STATUS=stopping; 1 commands in flight", self.told.words)
        self.inner.stop.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_line_that_cannot_be_made_stops_nothing(self) -> None:
        self.service.startService()
        self.inner.line = ""
        self.inner.start.callback(None)
        self.clock.advance(TELL)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.inner.line = "fine again"
        self.clock.advance(TELL)
        self.assertIn("STATUS=fine again", self.told.words)

    def test_a_stop_that_fails_leaves_no_timer(self) -> None:
        self.service.startService()
        self.inner.start.callback(None)
        stopping = self.service.stopService()
        self.inner.stop.errback(RuntimeError("no"))
        self.failureResultOf(stopping, RuntimeError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RealSocketTests(SynchronousTestCase):
    """The contract of the datagrams, with sockets of both kinds (unix(7))."""

    def heard(self, bound: str | bytes, spelled: str) -> list[str]:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(bound)
        listener.setblocking(False)
        clock = Clock()
        environ = {"NOTIFY_SOCKET": spelled, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
        supervisor = Supervisor(clock, Orders.taken(environ, os.getpid()))
        supervisor.starting()
        clock.advance(1)
        supervisor.ready()
        supervisor.say("well")
        supervisor.stopping()
        supervisor.stopped()
        heard = []
        while True:
            try:
                heard.append(listener.recv(4096).decode())
            except BlockingIOError:
                return heard

    def check(self, heard: list[str]) -> None:
        self.assertEqual(
            heard,
            [
                f"STATUS=starting\n{EXTEND}",
                f"{EXTEND}\nWATCHDOG=1",
                "READY=1",
                "STATUS=well",
                f"STOPPING=1\nSTATUS=stopping\n{EXTEND}",
            ],
        )

    def test_a_socket_with_a_path(self) -> None:
        # Below /tmp: a socket's name holds 107 bytes, and trial's folders are deep.
        path = f"/tmp/uaihost-notify-{os.getpid()}"
        self.addCleanup(os.unlink, path)
        self.check(self.heard(path, path))

    def test_a_socket_with_an_abstract_name(self) -> None:
        name = f"uaihost-notify-{os.getpid()}"
        self.check(self.heard(b"\0" + name.encode(), f"@{name}"))

    def test_a_manager_that_does_not_read_does_not_block_us(self) -> None:
        path = f"/tmp/uaihost-notify-full-{os.getpid()}"
        self.addCleanup(os.unlink, path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(path)
        supervisor = Supervisor(Clock(), Orders(path))
        for number in range(5000):
            supervisor.say(f"line {number}")
        supervisor.stopped()
        self.assertEqual(listener.recv(4096), b"STATUS=line 0")
