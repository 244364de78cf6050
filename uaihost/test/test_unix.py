"""The way to a socket in a folder that a container can write: real sockets, a reactor without real time."""

from __future__ import annotations

import array
import gc
import os
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from uaihost.errors import ErrorCode, HostError
from uaihost.test.sockets import SocketReactor, listening
from uaihost.test.support import short_folder
from uaihost.unix import hostile_socket_endpoint, open_socket


@implementer(IHalfCloseableProtocol)
class Heard(Protocol):
    """What came, and which halves have ended."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.ended: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.ended.append("read")

    def writeConnectionLost(self) -> None:
        self.ended.append("write")

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.append("all")


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = SocketReactor()
        self.folder = short_folder(self)
        self.path = self.folder / "relay.sock"
        self.before = descriptors()
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def connect(self, path: Path | None = None, trusted: Path | None = None) -> Deferred[Any]:
        endpoint = hostile_socket_endpoint(self.reactor, path or self.path, trusted)
        connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Heard))
        self.reactor.turn()
        return connecting

    def joined(self, path: Path | None = None, trusted: Path | None = None) -> Heard:
        heard: Heard = self.successResultOf(self.connect(path, trusted))
        return heard

    def refused(self, trusted: Path | None = None) -> HostError:
        error = self.failureResultOf(self.connect(trusted=trusted), HostError).value
        assert isinstance(error, HostError)
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("something in the container replaced it", error.message)
        self.assertEqual(descriptors(), self.before)
        return error

    def test_bytes_both_ways_and_each_way_ended_by_itself(self) -> None:
        server = listening(self, self.path)
        heard = self.joined()
        peer, _ = server.accept()
        with peer:
            heard.transport.write(b"to it")
            heard.transport.loseWriteConnection()
            self.reactor.turn()
            self.assertEqual((peer.recv(100), peer.recv(100)), (b"to it", b""))
            peer.sendall(b"from it")
            self.reactor.turn()
            self.assertEqual((heard.data, heard.ended), (b"from it", ["write"]))
            peer.shutdown(socket.SHUT_WR)
            self.reactor.turn()
        self.assertEqual(heard.ended, ["write", "read"])
        heard.transport.loseConnection()
        self.reactor.turn()
        server.close()
        self.assertEqual(descriptors(), self.before)

    def test_nothing_there_and_nobody_who_listens(self) -> None:
        error = self.failureResultOf(self.connect(), ConnectError).value
        self.assertIn(f"{self.path}: No such file", str(error))
        listening(self, self.path).close()
        self.failureResultOf(self.connect(), ConnectError)
        self.assertEqual(descriptors(), self.before)

    def test_what_is_no_socket_is_not_opened(self) -> None:
        target = short_folder(self) / "engine.sock"
        engine = listening(self, target)
        self.before = descriptors()
        for make in (
            self.path.touch,
            self.path.mkdir,
            lambda: self.path.symlink_to(target),
            lambda: os.mkfifo(self.path),
        ):
            make()
            self.assertIn("it is not a socket", self.refused().message)
            self.path.rmdir() if self.path.is_dir() and not self.path.is_symlink() else self.path.unlink()
        self.assertRaises(BlockingIOError, engine.accept)

    def test_a_link_that_is_planted_between_check_and_connect_leads_nowhere(self) -> None:
        elsewhere = short_folder(self) / "engine.sock"
        engine = listening(self, elsewhere)
        server = listening(self, self.path)
        endpoint = hostile_socket_endpoint(self.reactor, self.path)
        connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Heard))
        # Opened and looked at; the connection itself is the next turn's.
        self.path.unlink()
        self.path.symlink_to(elsewhere)
        self.reactor.turn()
        self.successResultOf(connecting).transport.abortConnection()
        self.reactor.turn()
        server.accept()[0].close()
        self.assertRaises(BlockingIOError, engine.accept)

    def test_however_often_the_name_is_exchanged_only_the_socket_is_reached(self) -> None:
        elsewhere = short_folder(self) / "engine.sock"
        engine = listening(self, elsewhere)
        server = listening(self, self.folder / "own", backlog=4096)
        link = self.folder / "link"
        link.symlink_to(elsewhere)
        over = threading.Event()

        def exchange() -> None:
            while not over.is_set():
                for name in ("own", "link"):
                    os.link(self.folder / name, self.folder / "next", follow_symlinks=False)
                    (self.folder / "next").replace(self.path)

        racer = threading.Thread(target=exchange)
        racer.start()
        self.addCleanup(racer.join)
        self.addCleanup(over.set)
        reached = refused = 0
        while reached < 200 or refused < 200:
            connecting = self.connect()
            connecting.addErrback(lambda failure: failure.trap(HostError, ConnectError) and None)
            heard = self.successResultOf(connecting)
            if heard is None:
                refused += 1
                continue
            reached += 1
            heard.transport.abortConnection()
            self.reactor.turn()
            server.accept()[0].close()
        self.assertRaises(BlockingIOError, engine.accept)

    def test_a_path_longer_than_a_sockets_name(self) -> None:
        deep = self.folder / ("d" * 120) / ("e" * 120)
        deep.mkdir(parents=True)
        server = listening(self, self.path)
        self.path.rename(deep / "relay.sock")
        self.joined(deep / "relay.sock").transport.abortConnection()
        self.reactor.turn()
        self.assertEqual(server.accept()[0].recv(10), b"")

    def test_folders_below_the_trusted_one_are_not_followed_either(self) -> None:
        run = self.folder / "run"
        inside = run / "agents" / "a"
        inside.mkdir(parents=True)
        self.path = inside / "ctl.sock"
        listening(self, self.path)
        self.joined(trusted=run).transport.abortConnection()
        self.reactor.turn()
        elsewhere = short_folder(self)
        (elsewhere / "a").mkdir()
        engine = listening(self, elsewhere / "a" / "ctl.sock")
        self.before = descriptors()
        self.path.unlink()
        inside.rmdir()
        inside.symlink_to(elsewhere / "a")
        self.assertIn("a on the way to it is not a folder", self.refused(run).message)
        inside.unlink()
        inside.parent.rmdir()
        inside.parent.symlink_to(elsewhere)
        self.assertIn("agents on the way to it", self.refused(run).message)
        self.assertRaises(BlockingIOError, engine.accept)
        self.assertRaises(ValueError, open_socket, elsewhere / "a" / "ctl.sock", run)

    def test_a_full_queue_is_an_error_and_not_a_wait(self) -> None:
        listening(self, self.path, backlog=0)
        first = self.joined()
        error = self.failureResultOf(self.connect(), ConnectError).value
        self.assertIn("too many connections wait", str(error))
        first.transport.abortConnection()
        self.reactor.turn()

    def test_descriptors_that_are_sent_are_not_taken(self) -> None:
        server = listening(self, self.path)
        heard = self.joined()
        peer, _ = server.accept()
        opened = descriptors()
        with peer:
            for _ in range(20):
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [peer.fileno()] * 100))
                peer.sendmsg([b"x"], [rights])
                self.reactor.turn()
            self.assertEqual(heard.data, b"x" * 20)
            self.assertEqual(descriptors(), opened)
            self.assertEqual(self.flushLoggedErrors(), [])
        self.reactor.turn()


def descriptors() -> int:
    # What earlier tests let go of is closed now and not at some moment in between.
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))
