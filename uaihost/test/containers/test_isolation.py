"""What the probe is asked, and what becomes of every way in which it can fail."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.containers import isolation, spec
from uaihost.containers.firewall import Allowed, FirewallState, allowed
from uaihost.containers.isolation import Isolation, Report
from uaihost.containers.judgement import DAEMON, HOST, LAN, LOOPBACK, METADATA, TASKS
from uaihost.containers.surroundings import Route, Surroundings
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Launch, Limits, Ran
from uaihost.test.containers.test_judgement import HOSTS, MOUNTS, SEEN
from uaihost.test.fakes_containers import Call, FakeEngine

BRIDGE = spec.bridge_name("host", "one")
ROUTES = tuple(
    Route(name, ipaddress.IPv4Network(network), gateway)
    for name, network, gateway in (
        ("eth0", "0.0.0.0/0", "192.168.1.1"),
        (BRIDGE, "10.213.0.0/28", None),
        ("uai-0000beef", "10.213.0.16/28", None),
        ("eth0", "192.168.1.0/24", None),
    )
)
AROUND = Surroundings(("10.213.0.1", "10.213.0.17", "192.168.1.5"), ROUTES, HOSTS)


class Filter:
    """A packet filter. state: what it says."""

    def __init__(self, state: FirewallState, allow: tuple[Allowed, ...] = ()) -> None:
        self.state = state
        self.allow = allow
        self.applied = 0

    async def apply(self) -> FirewallState:
        self.applied += 1
        return self.state


class Canaries:
    """dead: ports where nothing answers."""

    wide, loopback = 4001, 4002

    def __init__(self, dead: frozenset[int]) -> None:
        self.dead = dead
        self.asked: list[tuple[str, int]] = []
        self.closed = False

    async def answers(self, address: str, port: int) -> bool:
        self.asked.append((address, port))
        return port not in self.dead

    def close(self) -> None:
        self.closed = True


class IsolationTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(7)
        self.filter = Filter(FirewallState(True))
        self.around = AROUND
        self.canaries: list[Canaries] = []
        self.dead: frozenset[int] = frozenset()
        self.seen: dict[str, Any] = {}
        self.words: Mapping[tuple[str, int], str] = {}
        self.engine = FakeEngine(self.answer)
        self.launched("one")

    def launched(self, task_id: str) -> None:
        launch = Launch(task_id, "small", 1000, 1001, (), ())
        self.successResultOf(self.engine.launch(launch))

    def answer(self, call: Call) -> Ran:
        targets = json.loads(call.argv[-1])["targets"]
        self.assertFalse(self.canaries[-1].closed)
        seen = {
            **json.loads(isolation_answer()),
            "reached": [self.words.get((address, port), "blocked") for address, port in targets],
            **self.seen,
        }
        return Ran(0, json.dumps(seen).encode(), b"")

    def made(self) -> Isolation:
        def canaries(_: object) -> Canaries:
            self.canaries.append(Canaries(self.dead))
            return self.canaries[-1]

        return Isolation(
            self.engine,
            self.filter,
            self.clock,
            "host",
            services=lambda: {"status page": 5876},
            look=lambda: self.around,
            canaries=canaries,
        )

    def report(self, **changes: Any) -> Report:
        asked: dict[str, Any] = {"network": "own", "uid": 1000, "gid": 1001, **changes}
        report: Report = self.successResultOf(self.made().check("one", **asked))
        for canaries in self.canaries:
            self.assertTrue(canaries.closed)
        return report

    def outcome(self, name: str, report: Report) -> tuple[str, bool]:
        [check] = [check for check in report.checks if check.name == name]
        return check.outcome, check.required

    def targets(self) -> list[tuple[str, int]]:
        [call] = self.engine.calls
        return [(address, port) for address, port in json.loads(call.argv[-1])["targets"]]

    def test_a_good_container_passes(self) -> None:
        report = self.report()
        self.assertEqual([check for check in report.checks if not check.good], [])
        self.assertTrue(report.passed)
        self.assertEqual(report.at, 7000)
        self.assertEqual(self.filter.applied, 1)

    def test_the_probe_is_started_out_of_the_task_s_reach(self) -> None:
        self.report()
        [call] = self.engine.calls
        self.assertEqual(call.argv[:-1], ("/usr/bin/python3", "-I", "-S", "/opt/uai/probe.py"))
        self.assertEqual((call.env["LD_PRELOAD"], call.env["PATH"], call.cwd), ("", "/usr/bin:/bin", "/"))

    def test_every_sort_of_destination_is_tried(self) -> None:
        self.report()
        own = ("gateway", "192.168.1.5", "10.213.0.1", "10.213.0.17")
        expected = [("10.213.0.18", 80), ("192.168.1.1", 80), *isolation.METADATA_ADDRESSES]
        expected += [(address, 4001) for address in own]
        expected += [(address, port) for address in ("127.0.0.1", *own) for port in (4002, 5876)]
        self.assertEqual(sorted(self.targets()), sorted(expected))

    def test_the_canaries_are_proven_first(self) -> None:
        self.report()
        self.assertEqual(
            self.canaries[0].asked, [("127.0.0.1", 4001), ("192.168.1.5", 4001), ("127.0.0.1", 4002)]
        )
        for port, name in ((4001, HOST), (4002, LOOPBACK)):
            self.dead = frozenset((port,))
            report = self.report()
            self.assertEqual(self.outcome(name, report), ("unknown", True))
            self.assertFalse(report.passed)

    def test_each_destination_that_is_reached_fails(self) -> None:
        for address, port, name in (
            ("10.213.0.18", 80, TASKS),
            ("192.168.1.1", 80, LAN),
            ("169.254.169.254", 80, METADATA),
            ("fd00:ec2::254", 80, METADATA),
            ("gateway", 4001, HOST),
            ("192.168.1.5", 4001, HOST),
            ("127.0.0.1", 4002, LOOPBACK),
            ("gateway", 5876, DAEMON),
        ):
            self.words = {(address, port): "open"}
            report = self.report()
            self.assertEqual(self.outcome(name, report), ("open", True), (address, port))
            self.assertFalse(report.passed)

    def test_without_the_right_to_filter_it_says_so_and_goes_on(self) -> None:
        self.filter.state = FirewallState(False, "the daemon may not set firewall rules: run it as root")
        self.words = {("gateway", 4001): "open", ("169.254.169.254", 80): "open"}
        report = self.report()
        self.assertTrue(report.passed)
        self.assertIn("the daemon may not set firewall rules: run it as root", report.text())
        self.words = {("gateway", 5876): "open"}
        self.assertFalse(self.report().passed)

    def test_rules_of_this_machine_count_only_for_networks_of_this_machine(self) -> None:
        self.around = Surroundings(AROUND.addresses, ROUTES[:1], HOSTS)
        self.words = {("gateway", 4001): "open"}
        report = self.report()
        self.assertEqual(self.outcome(HOST, report), ("open", False))
        self.assertIn("runs in a machine of its own", report.text())

    def test_without_a_network_no_rules_are_needed(self) -> None:
        self.seen = {"interfaces": ["lo"], "gateway": None}
        report = self.report(network="none")
        self.assertTrue(report.passed)
        self.assertEqual(self.filter.applied, 0)
        self.assertEqual(self.outcome(HOST, report), ("blocked", True))

    def test_what_the_owner_lets_through_is_told(self) -> None:
        self.filter.allow = allowed(["192.168.1.0/24"])
        self.words = {("192.168.1.1", 80): "refused"}
        report = self.report()
        self.assertEqual(self.outcome(LAN, report), ("open", False))
        self.assertTrue(report.passed)
        # A network is not the host in it.
        self.words = {("192.168.1.5", 4001): "open"}
        self.assertFalse(self.report().passed)
        self.filter.allow = allowed(["192.168.1.5"])
        self.assertEqual(self.outcome(HOST, self.report()), ("open", False))

    def test_limits_are_held_against_what_was_set(self) -> None:
        wide = Limits(memory=1 << 30, cpus=1.5, pids=64, swap=1 << 20)
        self.assertTrue(self.report(limits=wide).passed)
        self.assertFalse(self.report(limits=Limits(memory=1 << 29, cpus=1.5, pids=64)).passed)

    def test_a_probe_that_fails_is_a_failed_check(self) -> None:
        for ran, said in (
            (Ran(1, b"", b"Traceback\nValueError: x\n"), "status 1 ValueError: x"),
            (Ran(137, isolation_answer(), b""), "status 137"),
            (Ran(0, b"", b""), "answer is none"),
            (Ran(0, b"hello", b""), "answer is none"),
            (Ran(0, isolation_answer() + b"x", b""), "answer is none"),
            (Ran(0, b"x" * (2 << 20), b""), "more than 1024 KiB"),
        ):
            self.engine.answer = lambda _, ran=ran: ran  # type: ignore[misc]
            report = self.report()
            self.assertFalse(report.passed)
            self.assertIn(said, report.text())

    def test_a_container_that_cannot_be_asked_is_a_failed_check(self) -> None:
        self.engine.fail = HostError(ErrorCode.UNAVAILABLE, "start Docker or check DOCKER_HOST")
        report = self.report()
        self.assertFalse(report.passed)
        self.assertIn("start Docker", report.text())

    def test_a_probe_that_never_answers_is_ended(self) -> None:
        never: Deferred[Ran] = Deferred()

        async def execute(*args: Any, **kwargs: Any) -> Ran:
            return await never

        self.engine.execute = execute  # type: ignore[method-assign]
        checking = Deferred.fromCoroutine(self.made().check("one", network="own", uid=1000, gid=1001))
        self.clock.advance(isolation.PROBE_LIMIT - 1)
        self.assertNoResult(checking)
        self.clock.advance(2)
        report: Report = self.successResultOf(checking)
        self.assertFalse(report.passed)
        self.assertIn("no answer in 20 s", report.text())
        self.assertTrue(self.canaries[0].closed)


def isolation_answer() -> bytes:
    """What the probe says in a good container, but for what it reaches."""
    return json.dumps(
        {
            "uid": SEEN.uid,
            "gid": SEEN.gid,
            "groups": SEEN.groups,
            "capabilities": SEEN.capabilities,
            "no_new_privileges": "1",
            "seccomp": "2",
            "namespaces": SEEN.namespaces,
            "mounts": MOUNTS,
            "sockets": [],
            "devices": SEEN.devices,
            "limits": {"memory": 1 << 30, "memory_and_swap": (1 << 30) + (1 << 20), "pids": 64, "cpus": 1.5},
            "interfaces": ["eth0", "lo"],
            "gateway": "10.213.0.1",
            "reached": [],
        }
    ).encode()
