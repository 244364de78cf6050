"""Finding an engine: who is asked, in which order, and what a person is told; nothing is started here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import docker.errors
import requests.exceptions
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.containers import apt, setup
from uaihost.containers.client import SYSTEM_SOCKET, connect, explained
from uaihost.containers.setup import EngineHandle, Machine, Setup, advice, alive, stop_engine, tail
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder

USER = Machine(
    root=False,
    apt=True,
    dockerd=None,
    system_socket=False,
    socket_open=False,
    systemd=True,
    user="ann",
)


class AdviceTests(TestCase):
    def test_it_says_what_to_do(self) -> None:
        for changes, expected in (
            ({"system_socket": True, "dockerd": "/x"}, "`sudo usermod -aG docker ann` and log in again"),
            ({"dockerd": "/usr/sbin/dockerd"}, "`sudo systemctl start docker`"),
            ({"dockerd": "/usr/sbin/dockerd", "systemd": False}, "`sudo service docker start`"),
            ({}, "`sudo apt-get install --no-install-recommends docker.io`"),
            ({"apt": False}, "install Docker Engine"),
        ):
            self.assertIn(expected, advice(attrs.evolve(USER, **changes)), changes)


class FindTests(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self) / "engine"
        self.asked: list[str] = []
        self.said: list[str] = []
        self.clock = Clock()

    def search(self, environ: Mapping[str, str], living: set[str], machine: Machine = USER) -> Any:
        def answers(address: str) -> bool:
            self.asked.append(address)
            return address in living

        made = Setup(
            self.clock,
            Inline(),
            self.folder,
            self.said.append,
            environ,
            answers=answers,
            look=lambda _: machine,
        )
        return made.engine()

    def test_the_given_one_first_then_the_system_s_then_our_own(self) -> None:
        own = f"unix://{self.folder}/docker.sock"
        given = {"DOCKER_HOST": "tcp://box:2375"}
        for environ, living, expected in (
            (given, {"tcp://box:2375", SYSTEM_SOCKET, own}, "tcp://box:2375"),
            (given, {SYSTEM_SOCKET, own}, SYSTEM_SOCKET),
            ({}, {SYSTEM_SOCKET, own}, SYSTEM_SOCKET),
            ({}, {own}, own),
            ({}, {setup.ROOT_SOCKET}, setup.ROOT_SOCKET),
        ):
            handle = self.successResultOf(self.search(environ, living))
            self.assertEqual(handle, EngineHandle(expected, started_by_us=False))
            self.assertEqual(self.said[-1], f"using the engine at {expected}")
        self.assertIn("no engine answers at DOCKER_HOST tcp://box:2375", self.said)

    def test_nothing_is_made_by_who_may_not(self) -> None:
        error = self.failureResultOf(self.search({}, set()), HostError).value
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("no container engine answers. Docker is not installed", error.message)
        self.assertFalse(self.folder.exists())

    def test_root_without_apt_and_docker_is_told_as_well(self) -> None:
        machine = attrs.evolve(USER, root=True, apt=False)
        error = self.failureResultOf(self.search({}, set(), machine), HostError).value
        self.assertIn("install Docker Engine", error.message)

    def test_a_folder_too_long_for_sockets_is_refused(self) -> None:
        self.folder = self.folder / ("x" * 80)
        self.folder.parent.mkdir(parents=True)
        machine = attrs.evolve(USER, root=True, dockerd="/usr/sbin/dockerd")
        error = self.failureResultOf(self.search({}, set(), machine), HostError).value
        self.assertEqual(error.code, ErrorCode.INVALID_ARGS)

    def test_a_program_that_ends_at_once_shows_its_log(self) -> None:
        program = self.folder.parent / "dockerd"
        program.write_text("#!/bin/sh\necho 'failed to start: no cgroups' >&2\nexit 1\n")
        program.chmod(0o755)
        machine = attrs.evolve(USER, root=True, dockerd=str(program))
        searching = Deferred.fromCoroutine(self.search({}, set(), machine))
        seen: list[Any] = []
        searching.addBoth(seen.append)
        # Real time passes only for the little program itself.
        for _ in range(2000):
            self.clock.advance(0.01)
            if seen:
                break
            subprocess.run(["sleep", "0.01"], check=True)
        self.assertEqual(seen[0].value.code, ErrorCode.UNAVAILABLE)
        self.assertIn("failed to start: no cgroups", seen[0].value.message)
        self.assertEqual(self.said, ["starting the engine"])


class ProcessTests(TestCase):
    def test_alive_tells_a_zombie_from_a_process(self) -> None:
        proc = short_folder(self)
        for pid, text, expected in (
            (1, "1 (init) S 0", True),
            (2, "2 (a) Z b) R 0", True),
            (3, "3 (dockerd) Z 1", False),
            (4, "4 (x) X 1", False),
        ):
            (proc / str(pid)).mkdir()
            (proc / str(pid) / "stat").write_text(text)
            self.assertEqual(alive(pid, proc=proc), expected, text)
        self.assertFalse(alive(5, proc=proc))
        self.assertTrue(alive(os.getpid()))
        self.assertTrue(alive(2, "a) Z b", proc))
        self.assertFalse(alive(1, "dockerd", proc))

    def test_a_pid_file_of_another_program_is_removed(self) -> None:
        path = short_folder(self) / "docker.pid"
        own = Path("/proc/self/comm").read_text().strip()
        for text, name, expected in (
            (str(os.getpid()), own, os.getpid()),
            (str(os.getpid()), "dockerd", None),
            ("4194305", "dockerd", None),
            ("", "dockerd", None),
            ("x", "dockerd", None),
        ):
            path.write_text(text)
            self.assertEqual(setup.running(path, name), expected, text)
            self.assertEqual(path.exists(), expected is not None)
        self.assertIsNone(setup.running(path, "dockerd"))

    def test_stop_ends_only_what_was_started(self) -> None:
        child = subprocess.Popen(["sleep", "300"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        clock = Clock()
        self.successResultOf(stop_engine(clock, EngineHandle("unix:///x", False, child.pid)))
        self.successResultOf(stop_engine(clock, EngineHandle("unix:///x", True, None)))
        self.assertIsNone(child.poll())
        stopping = Deferred.fromCoroutine(stop_engine(clock, EngineHandle("unix:///x", True, child.pid)))
        for _ in range(100):
            if stopping.called:
                break
            subprocess.run(["sleep", "0.01"], check=True)
            clock.advance(setup.POLL)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertFalse(alive(child.pid))

    def test_one_that_ignores_term_is_told_not_killed(self) -> None:
        child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; exec sleep 300"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        self.addCleanup(child.wait)
        self.addCleanup(os.kill, child.pid, signal.SIGKILL)
        self.addCleanup(child.stdout.close)
        child.stdout.readline()
        clock = Clock()
        stopping = Deferred.fromCoroutine(stop_engine(clock, EngineHandle("unix:///x", True, child.pid)))
        clock.pump([setup.POLL] * (round(setup.STOP_LIMIT / setup.POLL) + 1))
        error = self.failureResultOf(stopping, HostError).value
        self.assertEqual(error.code, ErrorCode.TIMEOUT)
        self.assertTrue(alive(child.pid))

    def test_mounts_below_a_folder_the_deepest_first(self) -> None:
        table = (
            "proc /proc proc rw 0 0\n/dev/x /e/data ext4 rw 0 0\noverlay /e/data/a\\040b overlay rw 0 0\n"
            "x /e x rw 0 0\nx /ee/data x rw 0 0\n\n"
        )
        self.assertEqual(setup.mounts(Path("/e"), table), ["/e/data/a b", "/e/data"])

    def test_the_tail_of_a_log(self) -> None:
        path = short_folder(self) / "log"
        self.assertEqual(tail(path), "")
        path.write_text("".join(f"{n}\n" for n in range(20)))
        self.assertEqual(tail(path, 2), "18\n19")

    def test_programs_get_the_way_to_the_network_and_nothing_else(self) -> None:
        env = apt.environment(
            {"PATH": "/bin", "HTTPS_PROXY": "p", "no_proxy": "n", "UAI_HOST_TOKEN": "x", "LD_PRELOAD": "y"}
        )
        self.assertEqual(env, {"PATH": "/bin:/usr/sbin:/sbin", "HTTPS_PROXY": "p", "no_proxy": "n"})


class ErrorTests(TestCase):
    def test_what_the_sdk_raises_becomes_a_code_and_a_sentence(self) -> None:
        def api(status: int, kind: type = docker.errors.APIError) -> Exception:
            response = requests.Response()
            response.status_code = status
            error: Exception = kind("x", response=response, explanation="because")
            return error

        for raised, code, part in (
            (api(404, docker.errors.NotFound), ErrorCode.NOT_FOUND, "because"),
            (api(404, docker.errors.ImageNotFound), ErrorCode.NOT_FOUND, "because"),
            (api(409), ErrorCode.CONFLICT, "because"),
            (api(400), ErrorCode.INVALID_ARGS, "refused it: because"),
            (api(500), ErrorCode.UNAVAILABLE, "because"),
            (requests.exceptions.ReadTimeout(), ErrorCode.UNAVAILABLE, "in time"),
            (requests.exceptions.ConnectionError(), ErrorCode.UNAVAILABLE, "start Docker"),
            (docker.errors.DockerException("x"), ErrorCode.UNAVAILABLE, "start Docker"),
            (PermissionError(), ErrorCode.UNAVAILABLE, "start Docker"),
        ):
            found = explained(raised, "do it")
            self.assertEqual(found.code, code)
            self.assertTrue(found.message.startswith("cannot do it: "), found.message)
            self.assertIn(part, found.message)
        mine = HostError(ErrorCode.TIMEOUT, "as it is")
        self.assertIs(explained(mine, "do it"), mine)
        self.assertRaises(KeyError, explained, KeyError("a defect"), "do it")

    def test_an_address_that_is_none(self) -> None:
        for address in ("", "box", "ssh://box", "unix://"):
            error = self.assertRaises(HostError, connect, address)
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        gone = Path(short_folder(self)) / "no.sock"
        error = self.assertRaises(HostError, connect, f"unix://{gone}")
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
