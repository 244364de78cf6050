"""Transcripts: the file follows the rows, once and in order, whatever happened to it."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.channel.deltas import MERGE, Deltas
from uaihost.channel.transcript import Transcripts
from uaihost.test.channel.rig import MemoryJournal, MemoryStore
from uaihost.test.support import given, settings, short_folder, strategies


class TranscriptTests(TestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()
        self.journal = MemoryJournal(self.store)
        self.folder = short_folder(self) / "transcripts"
        self.transcripts = self.daemon()
        self.path = self.transcripts.path("t")

    def daemon(self) -> Transcripts:
        return Transcripts(Clock(), self.store, self.journal, Inline(), self.folder)

    def append(self, text: str, message_id: str) -> int:
        seq: int = self.successResultOf(self.transcripts.append("t", "ann", text, message_id))
        return seq

    def texts(self) -> list[str]:
        return [json.loads(line)["text"] for line in self.path.read_bytes().splitlines()]

    def test_messages_are_numbered_by_task_and_appended(self) -> None:
        self.assertEqual([self.append("one", "m1"), self.append("zwölf\n", "m2")], [1, 2])
        self.assertEqual(self.successResultOf(self.transcripts.append("u", "ann", "x", "m1")), 1)
        self.assertEqual(self.texts(), ["one", "zwölf\n"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_a_repeated_message_has_the_same_number_and_is_told_once(self) -> None:
        self.append("one", "m1")
        self.append("two", "m2")
        self.assertEqual(self.append("one", "m1"), 1)
        self.assertEqual(self.journal.texts(), ["one", "two"])
        self.assertEqual(self.texts(), ["one", "two"])

    def test_a_file_that_is_gone_or_foreign_is_made_from_the_rows(self) -> None:
        self.append("one", "m1")
        for damage in (None, b"", b"junk\n", b'{"seq": 2}\n', b'{"seq": 1}'):
            self.path.unlink()
            if damage is not None:
                self.path.write_bytes(damage)
            self.transcripts = self.daemon()
            self.successResultOf(self.transcripts.follow("t"))
            self.assertEqual(self.texts(), ["one"], damage)

    @given(strategies.integers(0, 400))
    @settings(max_examples=40)
    def test_a_file_cut_anywhere_is_mended(self, size: int) -> None:
        self.setUp()
        for number in range(4):
            self.append(f"message {number}", f"m{number}")
        whole = self.path.read_bytes()
        self.path.write_bytes(whole[:size])
        self.transcripts = self.daemon()
        self.append("last", "last")
        self.assertEqual(self.texts(), [f"message {n}" for n in range(4)] + ["last"])

    def test_a_folder_that_cannot_be_written_loses_nothing(self) -> None:
        self.folder.write_text("in the way")
        self.assertEqual(self.append("one", "m1"), 1)
        self.folder.unlink()
        self.append("two", "m2")
        self.assertEqual(self.texts(), ["one", "two"])


class DeltaTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, str, str]] = []
        self.deltas = Deltas(self.clock, lambda *each: self.told.append(each))

    def test_pieces_are_merged_for_a_moment(self) -> None:
        for piece in ("a", "b", "c"):
            self.deltas.add("x", "m", piece)
            self.clock.advance(MERGE / 4)
        self.assertEqual(self.told, [])
        self.clock.advance(MERGE / 4)
        self.assertEqual(self.told, [("x", "m", "abc")])
        self.deltas.add("x", "m", "d")
        self.clock.advance(MERGE)
        self.assertEqual(self.told[1:], [("x", "m", "d")])

    def test_two_agents_do_not_mix(self) -> None:
        self.deltas.add("x", "m", "a")
        self.deltas.add("y", "n", "b")
        self.clock.advance(MERGE)
        self.assertEqual(self.told, [("x", "m", "a"), ("y", "n", "b")])

    def test_the_whole_message_makes_its_pieces_needless(self) -> None:
        self.deltas.add("x", "m", "a")
        self.deltas.drop("m")
        self.deltas.drop("unknown")
        self.deltas.add("x", "n", "b")
        self.deltas.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told, [])
