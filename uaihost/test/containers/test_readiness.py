"""Waiting for a container's first process, in memory: real files, no real connection, no real time."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from uaihost.containers import readiness
from uaihost.containers.readiness import Forwarded, Readiness, forwarded
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Step
from uaihost.test.sockets import SocketReactor, listening
from uaihost.test.support import given, short_folder, strategies

READY = {"state": "ready", "failed": []}


class ForwardedTests(TestCase):
    def test_what_is_a_port_with_a_name(self) -> None:
        named = [{"port": 3000, "name": "web"}, {"port": 80, "name": "a-1"}]
        self.assertEqual(forwarded(named), [Forwarded(3000, "web"), Forwarded(80, "a-1")])
        twice = [*named, {"port": 3000, "name": "other"}, {"port": 81, "name": "web"}]
        self.assertEqual(forwarded(twice), forwarded(named))

    def test_what_is_none(self) -> None:
        for port, name in (
            (0, "a"), (65536, "a"), (True, "a"), ("80", "a"), (80, ""), (80, "-a"), (80, "A"), (80, "a.b"),
            (80, "a" * 33), (80, 5), (80, "a\n"), (80.0, "a"),
        ):  # fmt: skip
            self.assertEqual(forwarded([{"port": port, "name": name}, 5, None, []]), [], (port, name))
        nothing: tuple[Any, ...] = (None, {}, "x", 5)
        for value in nothing:
            self.assertEqual(forwarded(value), [])
        many = [{"port": port, "name": f"p{port}"} for port in range(1, 1000)]
        self.assertEqual(len(forwarded(many)), readiness.FORWARD_LIMIT)


class ReadinessTests(TestCase):
    def setUp(self) -> None:
        self.reactor = SocketReactor()
        self.folder = short_folder(self)
        self.steps: list[Step] = []
        self.runs = True
        self.asked = 0

    def wait(self, folder: Path | None = None, timeout: float = 60) -> Deferred[list[Forwarded]]:
        async def running(task_id: str) -> bool:
            self.asked += 1
            return self.runs

        made = Readiness(self.reactor, lambda _: folder or self.folder, running)
        return Deferred.fromCoroutine(made.ready("one", self.steps.append, timeout))

    def listen(self) -> None:
        """A socket where the first process makes one."""
        self.server = listening(self, self.folder / "init.sock")

    def accept(self) -> socket.socket:
        """The host's connection, as the first process has it."""
        self.reactor.turn()
        peer, _ = self.server.accept()
        self.addCleanup(peer.close)
        return peer

    def feed(self, peer: socket.socket, *entries: dict[str, Any]) -> None:
        self.send(peer, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))

    def send(self, peer: socket.socket, data: bytes) -> None:
        """More than fits at once, while the host takes it."""
        peer.setblocking(False)
        while data:
            try:
                data = data[peer.send(data) :]
            except BrokenPipeError:
                break
            self.reactor.turn()

    def gone(self, peer: socket.socket) -> bool:
        """The host has closed the connection, and said nothing on it."""
        self.reactor.turn()
        try:
            return peer.recv(100) == b""
        except ConnectionResetError:
            return True
        except BlockingIOError:
            return False

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / readiness.POLL)):
            self.reactor.advance(readiness.POLL)
            self.reactor.turn()

    def refused(self, waiting: Deferred[list[Forwarded]]) -> HostError:
        error = self.failureResultOf(waiting, HostError).value
        assert isinstance(error, HostError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return error

    def test_steps_and_ready(self) -> None:
        waiting = self.wait()
        self.pass_time(1)
        self.listen()
        self.pass_time(0.2)
        peer = self.accept()
        self.feed(
            peer,
            {"step": "setup web", "state": "started"},
            {"step": "setup web", "state": "failed", "message": "no", "elapsedMs": 12},
            {"step": "start web", "state": "done", "other": [1]},
        )
        self.assertNoResult(waiting)
        self.feed(peer, READY)
        self.assertEqual(self.successResultOf(waiting), [])
        self.assertEqual(
            self.steps,
            [
                Step("setup web", "started"),
                Step("setup web", "failed", "no", 12),
                Step("start web", "done"),
            ],
        )
        self.assertTrue(self.gone(peer))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_failed_set_up(self) -> None:
        self.listen()
        waiting = self.wait()
        peer = self.accept()
        self.feed(peer, {"state": "failed", "message": "no workspace"})
        error = self.refused(waiting)
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("no workspace", error.message)

    def test_a_socket_that_nobody_serves_is_tried_again(self) -> None:
        self.listen()
        self.server.close()
        waiting = self.wait()
        self.pass_time(0.2)
        self.assertNoResult(waiting)
        (self.folder / "init.sock").unlink()
        self.listen()
        self.pass_time(0.1)
        self.accept().close()
        self.pass_time(0.2)
        self.assertNoResult(waiting)
        self.feed(self.accept(), READY)
        self.successResultOf(waiting)

    def test_the_time_out_names_the_last_step(self) -> None:
        waiting = self.wait(timeout=5)
        self.pass_time(5.1)
        error = self.refused(waiting)
        self.assertEqual(error.code, ErrorCode.TIMEOUT)
        self.assertIn("the start of the container", error.message)
        self.listen()
        waiting = self.wait(timeout=5)
        peer = self.accept()
        self.feed(peer, {"step": "setup web", "state": "started"})
        self.pass_time(5.1)
        self.assertIn("after 5 s; the last step was: setup web", self.refused(waiting).message)
        self.assertTrue(self.gone(peer))

    def test_a_container_that_ended_is_not_waited_for(self) -> None:
        waiting = self.wait()
        self.pass_time(readiness.CHECK - 0.5)
        self.assertEqual(self.asked, 0)
        self.pass_time(1)
        self.assertEqual(self.asked, 1)
        self.assertNoResult(waiting)
        self.runs = False
        self.pass_time(readiness.CHECK + 0.5)
        self.assertIn("the container ended", self.refused(waiting).message)

    def test_something_else_in_its_place_is_refused(self) -> None:
        target = short_folder(self) / "engine.sock"
        engine = listening(self, target)
        path = self.folder / "init.sock"
        for make in (path.touch, path.mkdir, lambda: path.symlink_to(target), lambda: os.mkfifo(path)):
            make()
            self.assertIn("is not a socket", self.refused(self.wait()).message)
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        self.assertRaises(BlockingIOError, engine.accept)

    def test_a_path_longer_than_a_sockets_name(self) -> None:
        deep = self.folder / ("x" * 120)
        deep.mkdir()
        self.listen()
        (self.folder / "init.sock").rename(deep / "init.sock")
        waiting = self.wait(deep)
        self.feed(self.accept(), READY)
        self.successResultOf(waiting)

    def test_what_does_not_speak_as_it_should(self) -> None:
        self.listen()
        for data in (
            b"hello\n",
            b"[]\n",
            b"\xff\n",
            b"[" * 50000 + b"\n",
            b"x" * (readiness.LINE_LIMIT + 1),
            b'{"step": "a", "state": "done"}\n' * (readiness.STEP_LIMIT + 1),
        ):
            waiting = self.wait()
            peer = self.accept()
            self.send(peer, data)
            self.assertEqual(self.refused(waiting).code, ErrorCode.UNAVAILABLE)
            self.assertTrue(self.gone(peer))
        self.assertEqual(len(self.steps), readiness.STEP_LIMIT)

    def test_a_flood_over_many_connections_is_one(self) -> None:
        self.listen()
        waiting = self.wait()
        share = readiness.STEP_LIMIT // 4
        for _ in range(4):
            peer = self.accept()
            self.send(peer, b'{"step": "a", "state": "failed"}\n' * share)
            peer.close()
            self.pass_time(0.2)
        self.assertNoResult(waiting)
        self.send(self.accept(), b'{"step": "a", "state": "failed"}\n')
        self.assertEqual(self.refused(waiting).code, ErrorCode.UNAVAILABLE)
        self.assertEqual(len(self.steps), readiness.STEP_LIMIT)

    def test_what_cannot_be_stored_is_not_told(self) -> None:
        self.listen()
        waiting = self.wait()
        peer = self.accept()
        for elapsed in (b"9" * 30, b"-1"):
            self.send(
                peer,
                b'{"step": "a\\ud800", "state": "done", "message": "\\udfff!", "elapsedMs": %s}\n' % elapsed,
            )
        self.assertEqual(self.steps, [Step("a?", "done", "?!", None)] * 2)
        self.send(peer, b'{"state": "failed", "message": "\\ud800"}\n')
        self.assertTrue(self.refused(waiting).message.endswith(": ?"))

    @given(
        strategies.dictionaries(
            strategies.sampled_from(["step", "state", "message", "elapsedMs"]),
            strategies.none()
            | strategies.booleans()
            | strategies.integers()
            | strategies.text()
            | strategies.sampled_from(["started", "done", "failed"])
            | strategies.lists(strategies.text()),
        )
    )
    def test_a_step_is_what_it_says_or_none(self, entry: dict[str, Any]) -> None:
        step = readiness.parse(entry)
        if step is None:
            known = entry.get("state") in ("started", "done", "failed") and isinstance(entry["state"], str)
            self.assertFalse(known and isinstance(entry.get("step"), str))
        else:
            self.assertEqual((step.step, step.state), (entry["step"][:200], entry["state"]))
            self.assertIsInstance(step.message, str | None)
            self.assertIsInstance(step.elapsedMs, int | None)
