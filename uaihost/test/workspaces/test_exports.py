"""Archives to take away: what is in them, whose it is, and that none stays."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.workspaces.exports import LIMIT, PATIENCE, Exports
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.restore import Kept

SHOP = Kept(
    "t1", "shop", "shop", "https://x/shop", "fix", "1" * 40, None, "/v", None, None, 0, 1.0, ({},)
)  # fmt: skip
BESIDE = attrs.evolve(SHOP, name=".task", slug="", parts=())


class FakeRestoring:
    """Makes a folder with a file, a link out of it, and a name that is no Unicode."""

    def __init__(self) -> None:
        self.broken: Exception | None = None

    async def restore(self, saved: Kept, target: Path) -> list[str]:
        target.mkdir(parents=True)
        (target / "a.txt").write_text(saved.name)
        (target / "secret.sh").write_text("#!/bin/sh\n")
        (target / "secret.sh").chmod(0o4755)
        (target / "out").symlink_to("/etc/passwd")
        (Path(str(target)) / b"\xff.bin".decode("utf-8", "surrogateescape")).write_bytes(b"x")
        if self.broken is not None:
            raise self.broken
        return [f"note of {saved.name}"]


class ExportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = short_folder(self)
        self.clock = Clock()
        self.restoring: Any = FakeRestoring()
        self.folder = self.root / "exports"
        self.exports = Exports(self.clock, Inline(), self.restoring, self.folder, Trash(self.root / ".trash"))

    def make(self, *kept: Kept) -> Any:
        return self.run_now(self.exports.make("t1", kept or (SHOP,)))

    def run_now(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def content(self, archive: Any) -> bytes:
        pieces = []
        while piece := self.run_now(archive.read()):
            pieces.append(piece)
        self.run_now(archive.close())
        return b"".join(pieces)

    def test_a_folder_for_each_and_a_word_on_them(self) -> None:
        made = self.make(SHOP, BESIDE)
        self.assertEqual(made.notes, {"shop": ["note of shop"], "beside": ["note of .task"]})
        data = self.content(self.exports.take(made.ticket))
        self.assertEqual((made.name, made.size), ("t1.tar.gz", len(data)))
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz", errors="surrogateescape") as tar:
            found = {entry.name: entry for entry in tar}
            read_me = tar.extractfile("t1/READ-ME.txt")
            assert read_me is not None
            self.assertIn(b"note of shop", read_me.read())
        self.assertLessEqual({"t1/shop/a.txt", "t1/beside/a.txt", "t1/shop/\udcff.bin"}, set(found))
        self.assertEqual(
            (found["t1/shop/out"].type, found["t1/shop/out"].linkname), (tarfile.SYMTYPE, "/etc/passwd")
        )
        self.assertEqual({(one.uid, one.gid, one.uname) for one in found.values()}, {(0, 0, "")})
        self.assertEqual(found["t1/shop/secret.sh"].mode, 0o755, "no program of somebody else's rights")
        self.assertEqual(list(self.folder.iterdir()), [], "nothing of it stays")

    def test_it_is_taken_once_and_nobody_else_can_read_it(self) -> None:
        made = self.make()
        (file,) = self.folder.iterdir()
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        self.exports.take(made.ticket)
        for ticket in (made.ticket, "", "x"):
            self.assertEqual(
                self.assertRaises(HostError, self.exports.take, ticket).code, ErrorCode.NOT_FOUND
            )

    def test_one_that_nobody_fetches_goes(self) -> None:
        made = self.make()
        self.clock.advance(PATIENCE)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertRaises(HostError, self.exports.take, made.ticket)

    def test_so_many_wait_and_no_more(self) -> None:
        made = [self.make() for _ in range(LIMIT)]
        failure = self.failureResultOf(self.later(), HostError)
        self.assertEqual(failure.value.code, ErrorCode.UNAVAILABLE)
        self.run_now(self.exports.take(made[0].ticket).close())
        self.make()

    def test_what_cannot_be_restored_leaves_nothing(self) -> None:
        self.restoring.broken = HostError(ErrorCode.UNAVAILABLE, "the disk is full")
        self.failureResultOf(self.later(), HostError)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(list((self.root / ".trash").iterdir()), [])

    def test_a_start_removes_what_was_left(self) -> None:
        self.make()
        self.exports.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.run_now(self.exports.sweep())
        self.assertFalse(self.folder.exists())

    def test_what_cannot_be_removed_does_not_keep_the_host_from_starting(self) -> None:
        self.make()
        self.exports.stop()
        (self.root / ".trash").rmdir()
        (self.root / ".trash").write_text("in the way")
        self.run_now(self.exports.sweep())
        self.assertTrue(self.folder.exists())

    def later(self) -> Any:
        return Deferred.fromCoroutine(self.exports.make("t1", (SHOP,)))
