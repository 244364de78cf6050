"""What a run's samples become: outcomes, tables, their place in a document; profiles from stacks."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import profiling, report
from benchmarks.lanes import MUX, OPENSSH, REFERENCE
from benchmarks.measures import MEASURES, quantile
from benchmarks.targets import TARGETS, Lanes, median, outcomes

BULK = "bulk download, incompressible"
ECHO = "echo under 2 bulk downloads"


def samples(**lanes: dict[str, dict[str, list[float]]]) -> Lanes:
    kinds = {"mux": MUX, "reference": REFERENCE, "openssh": OPENSSH}
    return {kinds[name].name: measures for name, measures in lanes.items()}


FOUND = samples(
    mux={BULK: {"MB/s": [500.0, 600.0, 550.0], "CPU s/GB": [2.5]}, ECHO: {"p99 ms": [4.0]}},
    reference={BULK: {"MB/s": [50.0]}, ECHO: {"p99 ms": [500.0]}},
    openssh={BULK: {"MB/s": [400.0]}},
)


class OutcomeTests(SynchronousTestCase):
    def outcome(self, measure: str, unit: str, bound: float) -> tuple[float, bool]:
        found = [
            (one.value, one.met)
            for one in outcomes(FOUND)
            if (one.target.measure, one.target.unit, one.target.bound) == (measure, unit, bound)
        ]
        self.assertEqual(len(found), 1)
        return found[0]

    def test_a_ratio_is_of_medians(self) -> None:
        self.assertEqual(self.outcome(BULK, "MB/s", 15), (11.0, False))
        self.assertEqual(self.outcome(BULK, "MB/s", 1), (1.375, True))

    def test_a_bound_of_its_own_needs_no_other_lane(self) -> None:
        self.assertEqual(self.outcome(BULK, "CPU s/GB", 2), (2.5, False))
        self.assertEqual(self.outcome(ECHO, "p99 ms", 5), (4.0, True))

    def test_better_when_smaller_is_the_others_through_ours(self) -> None:
        self.assertEqual(self.outcome(ECHO, "p99 ms", 100), (125.0, True))

    def test_what_was_not_measured_has_no_outcome(self) -> None:
        self.assertEqual(outcomes({MUX.name: {BULK: {"MB/s": [500.0]}}}), [])
        self.assertIsNone(median(FOUND, OPENSSH, ECHO, "p99 ms"))

    def test_every_target_is_of_a_measure_that_there_is(self) -> None:
        self.assertLessEqual({target.measure for target in TARGETS}, {measure.title for measure in MEASURES})

    def test_a_quantile_is_a_value_that_was_seen(self) -> None:
        values = [float(number) for number in range(1, 101)]
        self.assertEqual(quantile(values, 0.5), 51)
        self.assertEqual(quantile(values, 0.99), 100)
        self.assertEqual(quantile([7.0], 0.99), 7)
        self.assertEqual(quantile([], 0.5), float("inf"))


class ReportTests(SynchronousTestCase):
    def report(self) -> str:
        machine = {
            "cpu": "C",
            "cores": 2,
            "load": 0.1,
            "kernel": "6",
            "python": "3",
            "date": "d",
            "revision": "r",
        }
        return report.report(
            {
                "machine": machine | {"date": "d", "revision": "r", "congestion control": "bbr"},
                "static server": "nginx",
                "rounds": 3,
                "left out": ["the slow link (a reason)"],
                "links": {"slow link": {"Mbit/s": 1.93, "ms": 103.0}},
                "lanes": FOUND,
            }
        )

    def test_the_tables(self) -> None:
        text = self.report()
        self.assertIn(f"| {BULK} | MB/s | ≥ 15 times reference | 550 | 50 | 11 | **no** |", text)
        self.assertIn(f"| {ECHO} | p99 ms | ≥ 100 times better than reference | 4 | 500 | 125 | yes |", text)
        self.assertIn(f"| {BULK} | MB/s | 550 | 50 | 400 | 11 |", text)
        self.assertIn(f"| {BULK} | CPU s/GB | 2.5 |  |  |  |", text)
        self.assertIn("slow link: 1.93 Mbit/s, round trip 103 ms", text)
        self.assertIn("Not measured: the slow link (a reason)", text)
        self.assertNotIn("Without permessage-deflate", text)

    def test_it_takes_its_place_in_a_document_again_and_again(self) -> None:
        document = Path(self.mktemp())
        document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
        report.write(document, "new")
        report.write(document, "newer")
        self.assertEqual(document.read_text(), f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n")

    def test_a_document_without_the_marks_is_refused_and_stays(self) -> None:
        document = Path(self.mktemp())
        for text in ("nothing", report.BEGIN, f"{report.END}{report.BEGIN}", report.BEGIN + report.END * 2):
            document.write_text(text)
            self.assertRaises(ValueError, report.write, document, "new")
            self.assertEqual(document.read_text(), text)


class ProfileTests(SynchronousTestCase):
    RAW = (
        "main (/usr/bin/twistd:3);ReactorBase.mainLoop (/x/uaihost/site-packages/twisted/internet/base.py:9);"
        "doPoll (/x/uaihost/site-packages/twisted/internet/epollreactor.py:8);"
        "feed (/x/uaihost/link/outbound.py:8);0x7f00 (libc.so.6) 30\n"
        "ReactorBase.mainLoop (base.py:9);feed (/x/uaihost/link/outbound.py:8) 10\n"
        "thread_run (libpython3.11.so.1.0);wait (threading.py:3) 1000\n"
    )

    def test_samples_of_functions(self) -> None:
        own, within, total = profiling.tables(self.RAW)
        self.assertEqual(total, 40)
        self.assertEqual(own, {"unnamed (libc.so.6)": 30, "feed (uaihost/link/outbound.py)": 10})
        self.assertEqual(within["feed (uaihost/link/outbound.py)"], 40)
        self.assertEqual(within["doPoll (twisted/internet/epollreactor.py)"], 30)

    def test_the_table_and_the_stacks(self) -> None:
        table = profiling.markdown("Bulk", self.RAW)
        self.assertIn("| 75.0% | `unnamed (libc.so.6)` | 100.0% | `feed (uaihost/link/outbound.py)` |", table)
        self.assertTrue(profiling.collapsed(self.RAW).endswith("\nfeed (uaihost/link/outbound.py) 10\n"))
