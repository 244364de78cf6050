"""What counts keep true whatever happens in whatever order."""

from __future__ import annotations

import contextlib

from hypothesis import strategies
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.counts import LATENESS, OUTCOMES, Counts, Histogram, Lifecycle, Run, Tally
from uaihost.test.support import given
from uaihost.web.lag import PERIOD, ReactorLag


class LifecycleTests(TestCase):
    def test_every_outcome_is_there_from_the_start(self) -> None:
        self.assertEqual(Lifecycle().view(), {"begun": 0, "running": 0, "ended": dict.fromkeys(OUTCOMES, 0)})

    @given(
        strategies.lists(
            strategies.tuples(strategies.sampled_from(("begin", *OUTCOMES)), strategies.integers(0, 9))
        )
    )
    def test_what_began_has_ended_or_runs(self, steps: list[tuple[str, int]]) -> None:
        lifecycle = Lifecycle()
        runs: list[Run] = []
        over: set[int] = set()
        for what, which in steps:
            if what == "begin":
                runs.append(lifecycle.begin())
            elif runs:
                # An end that comes twice, or with another outcome, counts for nothing.
                runs[which % len(runs)].end(what)
                over.add(which % len(runs))
            self.assertEqual(lifecycle.begun, sum(lifecycle.ended.values()) + lifecycle.running)
            self.assertEqual(lifecycle.running, len(runs) - len(over))

    def test_a_block_ends_as_what_it_raises_says(self) -> None:
        for error, how in ((None, "completed"), (CancelledError(), "interrupted"), (OSError(), "failed")):
            lifecycle = Lifecycle()
            with contextlib.suppress(CancelledError, OSError), lifecycle.run():
                self.assertEqual(lifecycle.running, 1)
                if error is not None:
                    raise error
            self.assertEqual(lifecycle.ended, {**dict.fromkeys(OUTCOMES, 0), how: 1})


class TallyTests(TestCase):
    def test_what_is_not_known_is_other(self) -> None:
        tally = Tally(("1000", "4001"))
        tally.add("1000")
        tally.add("4999")
        self.assertEqual(tally.values, {"1000": 1, "4001": 0, "other": 1})


class HistogramTests(TestCase):
    def test_a_bound_holds_itself(self) -> None:
        histogram = Histogram((0.1, 1.0))
        for value in (0.1, 0.2, 5.0):
            histogram.add(value)
        self.assertEqual(histogram.cumulative(), [("0.1", 1), ("1.0", 2), ("+Inf", 3)])
        self.assertAlmostEqual(histogram.sum, 5.3)

    def test_the_lateness_of_the_reactor_is_counted(self) -> None:
        clock, counts = Clock(), Counts()
        lag = ReactorLag(clock, counts.lateness)
        lag.start()
        clock.advance(PERIOD)
        clock.advance(PERIOD + 0.3)
        lag.stop()
        self.assertEqual(dict(counts.lateness.cumulative())[str(LATENESS[0])], 1)
        self.assertEqual(dict(counts.lateness.cumulative())["0.5"], 2)
