"""The probe: what it reads, whom it reaches, and that the host understands what it says; without Docker."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers import judgement, surroundings
from uaihost.containers.judgement import Asked, Target
from uaihost.shim import probe
from uaihost.test.support import given, strategies

PROBE = Path(probe.__file__)
LIMITLESS = str((1 << 63) - 4096)


def files(texts: dict[str, str]) -> mock._patch[object]:
    """Reads go to `texts` by path."""
    return mock.patch.object(probe, "read", texts.get)


class ReadingTests(SynchronousTestCase):
    def test_numbers_and_what_means_no_limit(self) -> None:
        for text, expected in (
            ("100\n", 100),
            ("0", 0),
            ("max\n", None),
            ("-1\n", None),
            (LIMITLESS, None),
            ("", None),
            (None, None),
            ("12 34", 12),
        ):
            self.assertEqual(probe.number(text), expected, text)

    def test_limits_of_both_kinds_of_control_groups(self) -> None:
        one = {
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "4096\n",
            "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "8192\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/pids/pids.max": "64\n",
        }
        two = {
            "/sys/fs/cgroup/memory.max": "4096\n",
            "/sys/fs/cgroup/memory.swap.max": "4096\n",
            "/sys/fs/cgroup/cpu.max": "150000 100000\n",
            "/sys/fs/cgroup/pids.max": "64\n",
        }
        expected = {"memory": 4096, "memory_and_swap": 8192, "pids": 64, "cpus": 1.5}
        for unified, texts in ((False, one), (True, two)):
            with files(texts), mock.patch.object(Path, "exists", lambda _, answer=unified: answer):
                self.assertEqual(probe.limits(), expected)

    def test_no_limits_are_none(self) -> None:
        nothing = dict.fromkeys(("memory", "memory_and_swap", "pids", "cpus"))
        for unified in (False, True):
            with mock.patch.object(Path, "exists", lambda _, answer=unified: answer):
                with files({}):
                    self.assertEqual(probe.limits(), nothing)
                with files(
                    {"/sys/fs/cgroup/cpu.max": "max 100000\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}
                ):
                    self.assertEqual(probe.limits(), nothing)

    def test_the_gateway(self) -> None:
        head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        number = int.from_bytes(socket.inet_aton("10.213.0.1"), sys.byteorder)
        route = f"eth0\t00000000\t{number:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        for text, expected in ((head + route, "10.213.0.1"), (head, None), (head + "eth0\tx\n", None)):
            with files({"/proc/net/route": text}):
                self.assertEqual(probe.gateway(), expected)

    def test_mounts_with_strange_names(self) -> None:
        text = (
            "1 0 0:1 / / ro,relatime master:4 - overlay overlay rw,lowerdir=x\n"
            "2 1 0:2 / /a\\040b\\134 rw,nosuid - ext4 /dev/vda rw\n"
        )
        with files({"/proc/self/mountinfo": text}):
            self.assertEqual(probe.mounts(), [("/", "overlay", False), ("/a b\\", "ext4", True)])

    def test_abstract_sockets_of_an_engine_are_seen(self) -> None:
        text = (
            "Num RefCount Path\n0: 2 @/containerd-shim/x\n0: 2 @/tmp/.X11-unix/X0\n0: 2 /run/x/docker.sock\n"
        )
        with files({"/proc/net/unix": text}):
            self.assertIn("@/containerd-shim/x", probe.sockets([]))
            self.assertNotIn("@/tmp/.X11-unix/X0", probe.sockets([]))

    def test_a_mounted_socket_is_seen_wherever_it_is(self) -> None:
        with mock.patch.object(probe, "is_socket", lambda path: path == "/run/uai/harmless"):
            self.assertEqual(probe.sockets([("/run/uai/harmless", "ext4", True)]), ["/run/uai/harmless"])

    @given(strategies.integers(0, 200))
    def test_only_an_answer_is_an_answer(self, problem: int) -> None:
        word = probe.word_of(problem)
        self.assertEqual(word == "open", problem == 0)
        self.assertEqual(word == "refused", problem in (errno.ECONNREFUSED, errno.ECONNRESET))


class ReachedTests(SynchronousTestCase):
    def listening(self) -> tuple[socket.socket, int]:
        made = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(made.close)
        return made, made.getsockname()[1]

    def test_a_word_for_each_in_order(self) -> None:
        _, port = self.listening()
        gone, closed = self.listening()
        gone.close()
        targets = [("127.0.0.1", closed), ("gateway", port), ("127.0.0.1", port), ("nonsense", 1)]
        self.assertEqual(probe.reached(targets, 5, "127.0.0.1"), ["refused", "open", "open", "blocked"])
        self.assertEqual(probe.reached([("gateway", port)], 5, None), ["blocked"])
        self.assertEqual(probe.reached([], 5, None), [])

    def test_silence_is_given_up_early(self) -> None:
        full, port = socket.create_server(("127.0.0.1", 0), backlog=0), 0
        self.addCleanup(full.close)
        port = full.getsockname()[1]
        # With its queue full the kernel leaves further connections unanswered.
        for _ in range(3):
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        self.assertEqual(probe.reached([("127.0.0.1", port)], 0.1, None), ["silent"])
        self.assertLess(time.monotonic() - began, 5)


class ProcessTests(SynchronousTestCase):
    def test_the_host_understands_it_and_does_not_pass_itself(self) -> None:
        served = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(served.close)
        port = served.getsockname()[1]
        request = json.dumps({"targets": [["127.0.0.1", port]], "timeout": 1})
        ran = subprocess.run(
            [sys.executable, "-I", "-S", PROBE, request], capture_output=True, timeout=60, check=True
        )
        seen = judgement.parsed(ran.stdout)
        self.assertEqual(seen.reached, ["open"])
        around = surroundings.look()
        self.assertEqual(seen.namespaces, around.namespaces)
        target = Target(judgement.LOOPBACK, "127.0.0.1", port)
        asked = Asked(
            seen.uid, seen.gid, "own", around.namespaces, [target], frozenset((judgement.LOOPBACK,)), True
        )
        found = judgement.judged(seen, asked, 0)
        self.assertFalse(found.passed)
        failed = {check.name for check in found.checks if check.required and not check.good}
        self.assertTrue({"own namespaces", "own network", "mounts", judgement.LOOPBACK} <= failed, failed)
