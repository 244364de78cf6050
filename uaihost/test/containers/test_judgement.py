"""What passes and what does not, from answers of the probe."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgspec
from twisted.trial.unittest import TestCase

from uaihost.containers import judgement
from uaihost.containers.judgement import (
    DAEMON,
    HOST,
    LAN,
    LOOPBACK,
    METADATA,
    TASKS,
    Asked,
    Granted,
    Seen,
    Target,
)
from uaihost.containers.report import Check
from uaihost.interfaces import Limits
from uaihost.test.support import given, strategies

LIMITS = Limits(memory=1 << 30, cpus=1.5, pids=64, swap=1 << 20)
TARGETS = (
    Target(TASKS, "10.213.0.18", 80),
    Target(LAN, "192.168.1.1", 80),
    Target(METADATA, "169.254.169.254", 80),
    Target(HOST, "gateway", 4001),
    Target(HOST, "192.168.1.5", 4001),
    Target(LOOPBACK, "127.0.0.1", 4002),
    Target(DAEMON, "gateway", 5876),
)
HOSTS = {name: f"{name}:[1]" for name in ("pid", "net", "mnt", "ipc", "uts")}
ASKED = Asked(1000, 1001, "own", HOSTS, TARGETS, frozenset((HOST, LOOPBACK)), filtered=True, limits=LIMITS)
MOUNTS: list[tuple[str, str, bool]] = [
    ("/", "overlay", False),
    ("/proc", "proc", True),
    ("/proc/sys", "proc", False),
    ("/proc/keys", "tmpfs", True),
    ("/dev", "tmpfs", True),
    ("/sys", "sysfs", False),
    ("/sys/fs/cgroup", "tmpfs", True),
    ("/sys/fs/cgroup/memory", "cgroup", False),
    ("/run", "tmpfs", True),
    ("/etc/hosts", "ext4", False),
    ("/workspace", "ext4", True),
    ("/run/uai", "ext4", True),
    ("/run/host", "ext4", False),
    ("/attachments", "ext4", False),
]
SEEN = Seen(
    uid=1000,
    gid=1001,
    groups=[1001],
    capabilities=dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000000"),
    no_new_privileges="1",
    seccomp="2",
    namespaces={name: f"{name}:[2]" for name in HOSTS},
    mounts=MOUNTS,
    sockets=[],
    devices=["/dev/null", "/dev/tty"],
    limits=Granted(1 << 30, (1 << 30) + (1 << 20), 64, 1.5),
    interfaces=["eth0", "lo"],
    gateway="10.213.0.1",
    reached=["blocked", "blocked", "silent", "refused", "refused", "refused", "refused"],
)


def changed(**changes: Any) -> Seen:
    return msgspec.structs.replace(SEEN, **changes)


def words(**by_kind: str) -> list[str]:
    """The probe's words with those of some kinds changed."""
    kinds = {
        "tasks": TASKS,
        "lan": LAN,
        "metadata": METADATA,
        "host": HOST,
        "loopback": LOOPBACK,
        "daemon": DAEMON,
    }
    named = {kinds[name]: word for name, word in by_kind.items()}
    return [named.get(target.kind, word) for target, word in zip(TARGETS, SEEN.reached, strict=True)]


class JudgedTests(TestCase):
    def check(self, name: str, seen: Seen = SEEN, **asked: Any) -> Check:
        found = judgement.judged(seen, attrs.evolve(ASKED, **asked), 7)
        [check] = [check for check in found.checks if check.name == name]
        self.assertEqual(found.passed, all(each.good for each in found.checks if each.required))
        return check

    def test_a_good_container_passes_every_check(self) -> None:
        found = judgement.judged(SEEN, ASKED, 7)
        self.assertTrue(found.passed)
        self.assertEqual([check for check in found.checks if not check.good], [])
        self.assertEqual(
            found.text(),
            "Isolation: 17 of 17 checks passed\n"
            "own network: its own, eth0\n"
            "limits: 1 GiB memory, 1.5 cores, 64 processes",
        )
        self.assertEqual((found.json()["passed"], found.json()["at"]), (True, 7))
        self.assertEqual(json.loads(json.dumps(found.json()))["checks"][0]["name"], "no engine socket")

    def test_each_fault_fails_its_check_and_the_report(self) -> None:
        capable = {**SEEN.capabilities, "CapBnd": "0000000000000400"}
        faults: list[tuple[str, dict[str, Any], str]] = [
            ("no engine socket", {"sockets": ["/run/docker.sock"]}, "/run/docker.sock"),
            ("not privileged", {"devices": ["/dev/null", "/dev/sda"]}, "/dev/sda"),
            (
                "not privileged",
                {"mounts": [m if m[0] != "/sys" else ("/sys", "sysfs", True) for m in MOUNTS]},
                "/sys",
            ),
            ("not privileged", {"mounts": [m for m in MOUNTS if m[0] != "/proc/sys"]}, "/proc/sys"),
            ("ordinary user", {"uid": 0}, "user 0"),
            ("ordinary user", {"gid": 0}, "group 0"),
            ("ordinary user", {"groups": [1001, 999]}, "999"),
            ("capabilities", {"capabilities": capable}, "CapBnd"),
            ("capabilities", {"capabilities": {}}, "CapEff"),
            ("no new privileges", {"no_new_privileges": "0"}, "gain"),
            ("no new privileges", {"no_new_privileges": None}, "gain"),
            ("seccomp", {"seccomp": "0"}, "seccomp"),
            ("own namespaces", {"namespaces": {**SEEN.namespaces, "pid": "pid:[1]"}}, "pid"),
            ("own namespaces", {"namespaces": {**SEEN.namespaces, "ipc": None}}, "ipc"),
            ("own network", {"namespaces": {**SEEN.namespaces, "net": "net:[1]"}}, "machine's network"),
            ("own network", {"interfaces": ["docker0", "eth0", "lo"]}, "docker0"),
            ("own network", {"interfaces": None}, "machine's network"),
            ("mounts", {"mounts": [*MOUNTS, ("/mnt", "ext4", False)]}, "/mnt (ext4, read-only)"),
            ("mounts", {"mounts": [*MOUNTS, ("/run/host", "ext4", True)]}, "/run/host (ext4, writable)"),
            ("mounts", {"mounts": [*MOUNTS, ("/sys/fs/cgroup/pids", "cgroup", True)]}, "writable"),
            ("mounts", {"mounts": [*MOUNTS, ("/proc/x", "ext4", False)]}, "/proc/x"),
            ("mounts", {"mounts": [*MOUNTS, ("/x\nall is well", "ext4", False)]}, "/x?all is well"),
            ("limits", {"limits": Granted(None, None, 64, 1.5)}, "memory"),
            ("limits", {"limits": Granted(1 << 30, None, None, None)}, "pids, cpus"),
            ("limits", {"limits": Granted(2 << 30, 2 << 30, 64, 1.5)}, "more than was set"),
            ("limits", {"limits": Granted(1 << 30, 2 << 30, 64, 1.5)}, "more than was set"),
            ("limits", {"limits": Granted(1 << 30, 1 << 30, 65, 1.5)}, "more than was set"),
            ("limits", {"limits": Granted(1 << 30, 1 << 30, 64, 2.0)}, "more than was set"),
        ]
        for name, change, said in faults:
            check = self.check(name, changed(**change))
            self.assertEqual((check.outcome, check.required), ("open", True), (name, change))
            self.assertIn(said, check.detail)
            text = judgement.judged(changed(**change), ASKED, 7).text()
            self.assertIn(f"The task was not started:\n- {name}: ", text)

    def test_an_image_that_can_be_written_is_said_and_not_required(self) -> None:
        seen = changed(mounts=[("/", "overlay", True), *MOUNTS[1:]])
        check = self.check("read-only image", seen)
        self.assertEqual((check.outcome, check.required), ("open", False))
        found = judgement.judged(seen, ASKED, 7)
        self.assertTrue(found.passed)
        self.assertIn(
            "Isolation: 16 of 17 checks passed\nNot closed, and not required:\n- read-only image",
            found.text(),
        )

    def test_no_network_has_loopback_alone(self) -> None:
        self.assertTrue(self.check("own network", changed(interfaces=["lo"]), network="none").good)
        self.assertFalse(self.check("own network", network="none").good)

    def test_what_is_reached(self) -> None:
        for kind, name, word, outcome in (
            (TASKS, "tasks", "open", "open"),
            (TASKS, "tasks", "refused", "open"),
            (TASKS, "tasks", "silent", "blocked"),
            (LAN, "lan", "open", "open"),
            (LAN, "lan", "refused", "open"),
            (LAN, "lan", "blocked", "blocked"),
            (METADATA, "metadata", "open", "open"),
            (METADATA, "metadata", "refused", "open"),
            (METADATA, "metadata", "silent", "blocked"),
            (HOST, "host", "open", "open"),
            (HOST, "host", "refused", "blocked"),
            (HOST, "host", "silent", "blocked"),
            (LOOPBACK, "loopback", "open", "open"),
            (LOOPBACK, "loopback", "refused", "blocked"),
            (DAEMON, "daemon", "open", "open"),
            (DAEMON, "daemon", "refused", "blocked"),
        ):
            check = self.check(kind, changed(reached=words(**{name: word})))
            self.assertEqual((check.outcome, check.required), (outcome, True), (kind, word))

    def test_what_the_filter_would_close_is_said_where_there_is_none(self) -> None:
        why = "the daemon may not set firewall rules: run it as root"
        seen = changed(reached=words(host="open", lan="refused", metadata="open"))
        found = judgement.judged(seen, attrs.evolve(ASKED, filtered=False, why=why), 7)
        self.assertTrue(found.passed)
        opened = [check for check in found.checks if not check.good]
        self.assertEqual(
            [(check.name, check.required) for check in opened],
            [(HOST, False), (LAN, False), (METADATA, False)],
        )
        for check in opened:
            self.assertIn(why, check.detail)
        self.assertIn("reached at its gateway:4001, 192.168.1.5:4001; ", opened[0].detail)
        for name in ("tasks", "loopback", "daemon"):
            seen = changed(reached=words(**{name: "open"}))
            self.assertFalse(
                judgement.judged(seen, attrs.evolve(ASKED, filtered=False, why=why), 7).passed, name
            )

    def test_without_a_network_everything_is_required(self) -> None:
        seen = changed(interfaces=["lo"], reached=words(lan="open"))
        self.assertFalse(
            judgement.judged(seen, attrs.evolve(ASKED, network="none", filtered=False), 7).passed
        )

    def test_what_nothing_answers_to_proves_nothing(self) -> None:
        for kind in (HOST, LOOPBACK):
            check = self.check(kind, proven=ASKED.proven - {kind})
            self.assertEqual((check.outcome, check.required), ("unknown", True))
            check = self.check(kind, targets=(), proven=frozenset(), seen=changed(reached=[]))
            self.assertEqual((check.outcome, check.required), ("unknown", True))

    def test_what_was_not_tried_counts_against_it(self) -> None:
        for reached in ([], SEEN.reached[:-1], [*SEEN.reached, "blocked"]):
            self.assertFalse(judgement.judged(changed(reached=reached), ASKED, 7).passed)

    def test_what_the_owner_lets_through_is_open_and_said(self) -> None:
        targets = [attrs.evolve(t, permitted=t.kind == LAN) for t in TARGETS]
        check = self.check(LAN, changed(reached=words(lan="open")), targets=targets)
        self.assertEqual((check.outcome, check.required), ("open", False))
        self.assertIn("192.168.1.1:80 is let through by egress_allow", check.detail)
        half = [attrs.evolve(t, permitted=t.address == "gateway") for t in TARGETS]
        check = self.check(HOST, changed(reached=words(host="open")), targets=half)
        self.assertEqual(
            (check.outcome, check.required, check.detail), ("open", True, "reached at 192.168.1.5:4001")
        )

    def test_what_there_is_none_of_is_no_fault_but_what_must_be_tried_is(self) -> None:
        for kind in judgement.REACH:
            targets = [target for target in TARGETS if target.kind != kind]
            pairs = zip(TARGETS, SEEN.reached, strict=True)
            left = [word for target, word in pairs if target.kind != kind]
            check = self.check(kind, changed(reached=left), targets=targets)
            fine = kind in (TASKS, LAN, DAEMON)
            self.assertEqual((check.outcome, check.required), ("ok" if fine else "unknown", not fine), kind)


class ParsedTests(TestCase):
    def test_the_probe_s_answer(self) -> None:
        self.assertEqual(judgement.parsed(msgspec.json.encode(SEEN)), SEEN)

    def test_nonsense_is_refused(self) -> None:
        whole = json.loads(msgspec.json.encode(SEEN))
        for field in whole:
            with self.assertRaises(ValueError):
                judgement.parsed(json.dumps({k: v for k, v in whole.items() if k != field}).encode())
        for answer in (
            b"",
            b"null",
            b"[" * 100_000,
            b"\xff",
            json.dumps({**whole, "uid": "0"}).encode(),
            b" " * (2 << 20),
        ):
            with self.assertRaises(ValueError):
                judgement.parsed(answer)

    @given(strategies.binary(max_size=200))
    def test_no_bytes_do_more_than_be_refused(self, answer: bytes) -> None:
        with self.assertRaises(ValueError):
            judgement.parsed(answer)

    @given(strategies.data())
    def test_a_damaged_answer_is_refused_or_judged(self, data: Any) -> None:
        whole = json.loads(msgspec.json.encode(SEEN))
        field = data.draw(strategies.sampled_from(sorted(whole)))
        leaf = strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=9)
        whole[field] = data.draw(
            leaf
            | strategies.lists(leaf, max_size=4)
            | strategies.dictionaries(strategies.text(max_size=6), leaf, max_size=3)
        )
        try:
            seen = judgement.parsed(json.dumps(whole).encode())
        except ValueError:
            return
        found = judgement.judged(seen, ASKED, 7)
        self.assertTrue(found.text().startswith("Isolation: "))
        # Only what this container is allowed to be in more than one way may have changed and pass.
        if found.passed and seen != SEEN:
            self.assertIn(
                field, ("groups", "sockets", "devices", "interfaces", "gateway", "limits", "mounts", "uid")
            )
