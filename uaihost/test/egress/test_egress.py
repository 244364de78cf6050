"""The way out of each task: its socket, and what programs are told."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.egress import SOCKET_NAME, Egress
from uaihost.egress.policy import Policy
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders
from uaihost.test.support import short_folder


class EgressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.folders = Folders(short_folder(self))

    def egress(self, mode: str = "deny", folders: Folders | None = None) -> Egress:
        egress = Egress(self.reactor, folders or self.folders, Policy(mode), lambda *_: None)
        self.addCleanup(egress.stop)
        return egress

    def open(self, egress: Egress, task_id: str = "t1") -> Path:
        self.successResultOf(Deferred.fromCoroutine(egress.open(task_id)))
        return self.folders.control(task_id) / SOCKET_NAME

    def test_open_needs_nothing(self) -> None:
        egress = self.egress("open")
        self.assertEqual(egress.environment(), {})
        self.assertEqual((egress.mode, egress.network), ("open", "own"))
        self.assertFalse(self.open(egress).exists())

    def test_everything_that_reads_a_variable_is_told(self) -> None:
        egress = self.egress("registries+git")
        self.assertEqual((egress.mode, egress.network), ("registries+git", "none"))
        url = "http://127.0.0.1:3128"
        found = egress.environment()
        java = found.pop("JAVA_TOOL_OPTIONS")
        self.assertEqual(
            found,
            {
                "UAI_EGRESS": "proxy",
                "HTTP_PROXY": url,
                "HTTPS_PROXY": url,
                "ALL_PROXY": url,
                "http_proxy": url,
                "https_proxy": url,
                "all_proxy": url,
                "NO_PROXY": "localhost,127.0.0.1,::1",
                "no_proxy": "localhost,127.0.0.1,::1",
                "NODE_USE_ENV_PROXY": "1",
            },
        )
        self.assertIn("-Dhttps.proxyHost=127.0.0.1", java)
        self.assertIn("-Dhttps.proxyPort=3128", java)

    def test_the_socket_is_open_to_the_containers_user(self) -> None:
        path = self.open(self.egress())
        found = path.stat()
        self.assertTrue(stat.S_ISSOCK(found.st_mode))
        self.assertEqual(stat.S_IMODE(found.st_mode), 0o666)
        self.assert_listens(path)

    def test_opening_again_changes_nothing(self) -> None:
        egress = self.egress()
        first = self.open(egress).stat().st_ino
        self.assertEqual(self.open(egress).stat().st_ino, first)
        self.assertEqual(len(self.reactor.getReaders()), 1)

    def test_a_dead_daemons_socket_is_replaced(self) -> None:
        path = self.folders.control("t1") / SOCKET_NAME
        path.parent.mkdir(parents=True)
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        dead.close()
        self.open(self.egress())
        self.assert_listens(path)

    def test_what_cannot_be_replaced(self) -> None:
        path = self.folders.control("t1") / SOCKET_NAME
        path.mkdir(parents=True)
        failure = self.failureResultOf(Deferred.fromCoroutine(self.egress().open("t1")), HostError)
        self.assertEqual(failure.value.code, ErrorCode.UNAVAILABLE)
        self.assertIn(str(path.parent), failure.value.message)

    def test_a_lost_socket_is_made_again(self) -> None:
        egress = self.egress()
        self.open(egress).unlink()
        self.assert_listens(self.open(egress))

    def test_closed_and_opened_at_once(self) -> None:
        egress = self.egress()
        path = self.open(egress)
        egress.close("t1")
        self.assertFalse(path.exists())
        self.open(egress)
        # The old listener ends in the reactor's next turn; the new name is not its to remove.
        self.reactor.advance(0)
        self.assert_listens(path)

    def test_closing_when_the_folder_is_gone(self) -> None:
        egress = self.egress()
        path = self.open(egress)
        path.unlink()
        path.parent.rmdir()
        egress.close("t1")
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_closing_what_is_not_open(self) -> None:
        egress = self.egress()
        egress.close("t1")
        self.assertEqual(egress.connections, 0)

    def test_a_path_that_is_too_long(self) -> None:
        egress = self.egress(folders=Folders(Path("/nonexistent") / ("x" * 100)))
        failure = self.failureResultOf(Deferred.fromCoroutine(egress.open("t1")), HostError)
        self.assertEqual(failure.value.code, ErrorCode.INVALID_ARGS)
        self.assertIn("UAI_DATA_DIR", failure.value.message)

    def assert_listens(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            self.assertEqual(client.getpeername(), str(path))
