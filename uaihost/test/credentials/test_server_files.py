"""The owner's known_hosts files: read anew, and followed."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials.known_hosts import Destination
from uaihost.credentials.server_files import LOOK, ServerFiles, owners_files
from uaihost.test.credentials.ssh_model import ServerKey
from uaihost.test.support import short_folder


class ServerFilesTests(TestCase):
    def setUp(self) -> None:
        self.root = short_folder(self)
        self.clock = Clock()
        self.ssh = self.root / "home" / ".ssh"
        self.ssh.mkdir(parents=True)
        self.files = ServerFiles(self.clock, Inline(), owners_files(self.root / "home", self.root))
        self.told = 0
        self.error: Exception | None = None

    async def changed(self) -> None:
        if self.error is not None:
            raise self.error
        self.told += 1

    def follow(self) -> None:
        self.files.start(self.changed)
        self.addCleanup(self.files.stop)
        self.clock.advance(LOOK)
        self.told = 0

    def test_all_files_count_at_once(self) -> None:
        servers = [ServerKey() for _ in range(3)]
        places = (self.root / "known_hosts", self.ssh / "known_hosts", self.ssh / "known_hosts2")
        for number, (server, path) in enumerate(zip(servers, places, strict=True)):
            to = Destination(f"host{number}.example")
            self.assertEqual(self.successResultOf(self.files.read()).keys(to), frozenset())
            path.write_text(f"{to.name} {server.line}\n")
            self.assertEqual(self.successResultOf(self.files.read()).keys(to), {server.blob})

    def test_who_has_a_key(self) -> None:
        server, to = ServerKey(), [Destination(name) for name in ("a.example", "b.example", "c.example")]
        path = self.root / "known_hosts"
        path.write_text(f"a.example,c.example {server.line}\n")
        self.assertEqual(self.successResultOf(self.files.having(server.blob, to)), (to[0], to[2]))
        path.write_text("")
        self.assertEqual(self.successResultOf(self.files.having(server.blob, to)), ())

    def test_read_once_while_nothing_changes(self) -> None:
        first = self.successResultOf(self.files.read())
        self.assertIs(self.successResultOf(self.files.read()), first)

    def test_told_of_what_changed_and_of_nothing_else(self) -> None:
        self.follow()
        for _ in range(5):
            self.clock.advance(LOOK)
        self.assertEqual(self.told, 0)
        (self.ssh / "known_hosts").write_text("a")
        self.clock.advance(LOOK)
        self.assertEqual(self.told, 1)
        (self.ssh / "known_hosts").unlink()
        self.clock.advance(LOOK)
        self.clock.advance(LOOK)
        self.assertEqual(self.told, 2)

    def test_whoever_wrote_them_need_not_wait(self) -> None:
        self.follow()
        (self.ssh / "known_hosts").write_text("a")
        self.successResultOf(ensureDeferred(self.files.look()))
        self.assertEqual(self.told, 1)
        self.clock.advance(LOOK)
        self.assertEqual(self.told, 1)

    def test_who_failed_is_told_again(self) -> None:
        self.follow()
        (self.ssh / "known_hosts").write_text("a")
        self.error = OSError("no space left")
        self.clock.advance(LOOK)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.error = None
        self.clock.advance(LOOK)
        self.assertEqual(self.told, 1)

    def test_nothing_goes_on_after_the_end(self) -> None:
        self.follow()
        self.files.stop()
        self.files.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
