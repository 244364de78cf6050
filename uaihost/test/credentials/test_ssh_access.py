"""A task's agent and known servers: there from the start, following the owner's files, gone with the task."""

from __future__ import annotations

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials import ssh_access
from uaihost.credentials.ssh_access import LOOK, SshAccess, owners_files
from uaihost.proofs import Grant
from uaihost.test.credentials.ssh_model import ServerKey
from uaihost.test.credentials.test_ssh_agent import OneKey
from uaihost.test.support import short_folder

GRANT = Grant("ada", "t1", ("git@forge.example:x/y.git",))


class AccessTests(TestCase):
    def setUp(self) -> None:
        self.root = short_folder(self)
        self.folder = self.root / "broker"
        self.folder.mkdir()
        self.owners = self.root / "known_hosts"
        self.clock = Clock()
        files = owners_files(self.root / "home", self.root)
        self.access = SshAccess(self.clock, Inline(), OneKey(), files, lambda **line: None)
        self.addCleanup(self.access.stop)

    def known(self) -> str:
        return (self.folder / "known_hosts").read_text()

    def open(self, grant: Grant = GRANT) -> object:
        return self.successResultOf(self.access.open(grant, self.folder))

    def test_from_the_start(self) -> None:
        server = ServerKey()
        self.owners.write_text(f"forge.example,other.example {server.line}\n")
        self.open()
        self.assertIn(f"forge.example {server.line}", self.known().splitlines())
        self.assertNotIn("other.example", self.known())
        self.assertIn("github.com", self.known())
        self.assertEqual((self.folder / "known_hosts").stat().st_mode & 0o777, 0o644)

    def test_what_the_owner_learns_later(self) -> None:
        self.open()
        self.assertNotIn("forge.example", self.known())
        server = ServerKey()
        self.owners.write_text(f"forge.example {server.line}\n")
        self.clock.advance(LOOK)
        self.assertIn(f"forge.example {server.line}", self.known())

    def test_nothing_is_written_while_nothing_changes(self) -> None:
        self.open()
        self.clock.advance(LOOK)
        before = (self.folder / "known_hosts").stat().st_ino
        for _ in range(5):
            self.clock.advance(LOOK)
        self.assertEqual((self.folder / "known_hosts").stat().st_ino, before)

    def test_a_new_grant(self) -> None:
        factory = self.open()
        grant = attrs.evolve(GRANT, repositories=("git@new.example:x",))
        server = ServerKey()
        self.owners.write_text(f"new.example {server.line}\n")
        self.assertIs(self.open(grant), factory)
        self.assertEqual(getattr(factory, "grant", None), grant)
        self.assertIn("new.example", self.known())

    def test_closed(self) -> None:
        first = self.open()
        self.access.close("t1")
        self.access.close("t1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNot(self.open(), first)

    def test_a_folder_that_is_gone_or_full(self) -> None:
        self.open()
        (self.folder / "known_hosts").unlink()
        self.folder.rmdir()
        self.owners.write_text("x")
        self.clock.advance(LOOK)
        self.assertEqual(self.flushLoggedErrors(), [])

        def full(*_: object) -> None:
            raise OSError("no space left")

        self.patch(ssh_access, "write", full)
        self.owners.write_text("longer")
        self.clock.advance(LOOK)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
