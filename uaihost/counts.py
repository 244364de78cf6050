"""How often things happened in this process since it began: what `/metrics` shows (docs/observability.md).

Every value of every label is there from the start, as 0. It counts and knows nothing of what it counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import CancelledError

# How what was begun has ended.
OUTCOMES = ("completed", "failed", "interrupted")

# Upper bounds in seconds of times that range from a call to minutes of work.
TIMES = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)
# Of how late the reactor's timers fire: 20 ms is not felt, a second is.
LATENESS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Lifecycle:
    """Things that begin and end once. begun = completed + failed + interrupted + running, always."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = dict.fromkeys(OUTCOMES, 0)

    @property
    def running(self) -> int:
        """How many have begun and not ended."""
        return self.begun - sum(self.ended.values())

    def view(self) -> dict[str, Any]:
        """JSON-able."""
        return {"begun": self.begun, "running": self.running, "ended": dict(self.ended)}

    def begin(self) -> Run:
        """One more; whoever begins it ends it."""
        self.begun += 1
        return Run(self)

    @contextmanager
    def run(self) -> Iterator[None]:
        """One more, for as long as the block: completed, or as what it raises says."""
        counted = self.begin()
        try:
            yield
            counted.end("completed")
        except (CancelledError, GeneratorExit):
            counted.end("interrupted")
            raise
        finally:
            counted.end("failed")


class Run:
    """One that has begun. A second end counts for nothing."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle: Lifecycle | None = lifecycle

    def end(self, outcome: str) -> None:
        """It ended: one of OUTCOMES."""
        lifecycle, self._lifecycle = self._lifecycle, None
        if lifecycle is not None:
            lifecycle.ended[outcome] += 1


class Tally:
    """Events by one label, whose values are known beforehand; what is none of them counts as `other`."""

    def __init__(self, values: Iterable[str]) -> None:
        self.values = dict.fromkeys((*values, "other"), 0)

    def add(self, value: str) -> None:
        self.values[value if value in self.values else "other"] += 1


class Histogram:
    """Sizes by upper bound, as Prometheus has them. bounds: rising; above the last is one more."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, how many up to it), the last `+Inf`."""
        total, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found

    def view(self) -> dict[str, Any]:
        """JSON-able."""
        return {"upTo": self.cumulative(), "sum": self.sum}


class Calls(Lifecycle):
    """Blocking calls, and how many seconds each took."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = Histogram(TIMES)


class Counts:
    """Everything that this process counts.

    commands: accepted ones. turns: of agents. pools: blocking calls by pool of threads. lateness: of the
    reactor's timers.
    """

    def __init__(self) -> None:
        self.commands = Lifecycle()
        self.turns = Lifecycle()
        self.pools: dict[str, Calls] = {}
        self.lateness = Histogram(LATENESS)

    def pool(self, name: str) -> Calls:
        """The calls of one pool."""
        return self.pools.setdefault(name, Calls())

    def view(self) -> dict[str, Any]:
        """JSON-able, for whoever shows it."""
        return {
            "commands": self.commands.view(),
            "turns": self.turns.view(),
            "pools": {
                name: {**calls.view(), "seconds": calls.seconds.view()} for name, calls in self.pools.items()
            },
            "lateness": self.lateness.view(),
        }
