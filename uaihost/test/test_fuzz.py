"""A short run of the fuzzer, and that it finds what it should."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.fuzz.run import Finding, run
from uaihost.test.fuzz.subjects import SUBJECTS, Subject

INPUTS = 20_000


class FuzzTests(SynchronousTestCase):
    def test_nothing_breaks(self) -> None:
        for subject in SUBJECTS:
            ways = run(subject, INPUTS // len(SUBJECTS), seed=2)
            self.assertGreaterEqual(len(ways), 2, subject.name)
            self.assertEqual(sum(ways.values()), INPUTS // len(SUBJECTS))

    def test_the_same_seed_gives_the_same_inputs(self) -> None:
        self.assertEqual(run(SUBJECTS[0], 200, seed=3), run(SUBJECTS[0], 200, seed=3))
        self.assertNotEqual(run(SUBJECTS[0], 200, seed=3), run(SUBJECTS[0], 200, seed=4))

    def test_a_mistake_is_found_and_shown(self) -> None:
        def broken(data: bytes, pieces: list[bytes]) -> str:
            assert b"".join(pieces) == data
            if b"\r\n " in data:
                raise IndexError("folded")
            return "taken"

        with self.assertRaises(Finding) as raised:
            run(Subject("broken", SUBJECTS[0].seeds, broken), 5000, seed=1)
        self.assertIn("folded", str(raised.exception))
