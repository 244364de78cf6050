"""The log of an agent's output: every byte under its offset, whatever is acknowledged, whoever is killed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.shim.outlog import OutLog
from uaihost.test.support import given, settings, short_folder, strategies

SEGMENT = 10


class OutLogTests(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def log(self, limit: int = 1000) -> OutLog:
        return OutLog(self.folder, SEGMENT, limit)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def whole(self, log: OutLog, offset: int) -> bytes:
        found = b""
        while offset + len(found) < log.end:
            found += log.read(offset + len(found), 7)
        return found

    @given(
        strategies.lists(
            strategies.one_of(
                strategies.binary(min_size=1, max_size=35),
                strategies.floats(0, 1),
                strategies.just("killed"),
            ),
            max_size=25,
        )
    )
    @settings(max_examples=60)
    def test_every_byte_that_is_not_acknowledged_is_there(self, steps: list[bytes | float | str]) -> None:
        folder = short_folder(self)
        log, written, acknowledged = OutLog(folder, SEGMENT), b"", 0
        for step in steps:
            if isinstance(step, bytes):
                log.append(step + b"\n")
                written += step + b"\n"
            elif isinstance(step, float):
                acknowledged = max(acknowledged, int(step * len(written)))
                log.acknowledge(acknowledged)
            else:
                log = OutLog(folder, SEGMENT)
            self.assertEqual(log.end, len(written))
            self.assertLessEqual(log.base, acknowledged)
            self.assertEqual(self.whole(log, log.base), written[log.base :])
            # What is kept beyond need is one file, which a write may make longer than it should be.
            self.assertLessEqual(acknowledged - log.base, SEGMENT + 36)

    def test_what_is_acknowledged_leaves_the_disk(self) -> None:
        log = self.log()
        for _ in range(100):
            log.append(b"123456789\n")
            log.acknowledge(log.end)
        self.assertEqual(self.files(), ["out.00000000000000000990"])

    def test_a_gap_hides_what_lies_before_it(self) -> None:
        log = self.log()
        for _ in range(3):
            log.append(b"123456789\n")
        (self.folder / "out.00000000000000000010").unlink()
        self.assertEqual(self.log().base, 20)

    def test_the_log_of_an_older_keeper_is_gone_on_with(self) -> None:
        (self.folder / "out.log").write_bytes(b"before\n")
        log = self.log()
        log.append(b"after\n")
        self.assertEqual(log.read(0, 100), b"before\nafter\n")

    def test_it_is_full_until_enough_is_acknowledged(self) -> None:
        log = self.log(limit=20)
        log.append(b"x" * 19)
        self.assertFalse(log.full)
        log.append(b"xx\n")
        self.assertTrue(log.full)
        log.acknowledge(5)
        self.assertFalse(log.full)

    def test_a_last_line_without_an_end_gets_one(self) -> None:
        self.log().append(b"half")
        self.assertEqual(self.log().end, 5)

    def test_what_somebody_cut_off_is_gone_and_offsets_go_on(self) -> None:
        log = self.log()
        log.append(b"123456789\n")
        log.append(b"123456789\n")
        Path(self.folder / "out.00000000000000000000").write_bytes(b"12")
        self.assertEqual(log.read(2, 5), b"")
        log.cut(2)
        self.assertEqual((log.end, self.files()), (2, ["out.00000000000000000000"]))
        log.append(b"new\n")
        self.assertEqual(log.read(0, 100), b"12new\n")
