"""What the tunnel is to reach, and whether a run's medians do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import attrs

from benchmarks.lanes import DIRECT, MUX, OPENSSH, REFERENCE, TUNNEL, Kind

# lane: measure: unit: samples
Lanes = dict[str, dict[str, dict[str, list[float]]]]


@attrs.frozen
class Target:
    """A bound for a figure of uaihost, or for its ratio to another lane's figure.

    beside: the lane of the ratio; most: the bound is the largest that will do, else the smallest; inverse:
    the ratio is the other's figure through ours, for figures that are better small; of: the lane of ours.
    """

    measure: str
    unit: str
    bound: float
    beside: Kind | None = None
    most: bool = False
    inverse: bool = False
    of: Kind = MUX

    def says(self) -> str:
        bound = f"{'≤' if self.most else '≥'} {self.bound:g}"
        if self.beside is None:
            return bound
        what = "times better than" if self.inverse else "times"
        return f"{bound} {what} {self.beside.name}"


@attrs.frozen
class Outcome:
    """A target with its figures; value: what is held against the bound; met: whether it holds."""

    target: Target
    ours: float
    beside: float | None
    value: float

    @property
    def met(self) -> bool:
        bound = self.target.bound
        return self.value <= bound if self.target.most else self.value >= bound


def _texts() -> Iterator[Target]:
    for text in ("JavaScript", "HTML", "JSON"):
        measure = f"bulk download, {text}"
        yield Target(measure, "MB/s", 8, REFERENCE)
        yield Target(measure, "wire bytes/byte", 1.25, REFERENCE, most=True)


def _loaded() -> Iterator[Target]:
    for loads in (2, 20):
        measure = f"echo under {loads} bulk downloads"
        yield Target(measure, "p99 ms", 5, most=True)
        yield Target(measure, "p99 ms", 100, REFERENCE, inverse=True)
        yield Target(measure, "command p99 ms", 5, most=True)
        yield Target(measure, "ping p99 ms", 5, most=True)


def _slow() -> Iterator[Target]:
    for measure in ("slow link", "slow link, 1 % loss"):
        yield Target(measure, "control p99 ms", 300, most=True)
        yield Target(measure, "key stroke p95 ms", 400, most=True)
        yield Target(measure, "resets", 0, most=True)
        yield Target(measure, "RSS growth MB", 64, most=True)


TARGETS = (
    Target("bulk download, incompressible", "MB/s", 15, REFERENCE),
    Target("bulk download, incompressible", "MB/s", 1, OPENSSH),
    Target("bulk download, incompressible", "CPU s/GB", 2, most=True),
    *_texts(),
    Target("upload, incompressible", "MB/s", 10, REFERENCE),
    Target("small requests, 32 in parallel", "per s", 4, REFERENCE),
    Target("small requests, 32 in parallel", "CPU ms each", 0.15, most=True),
    *_loaded(),
    Target("1,000 idle tunnels", "KiB each", 12, most=True),
    Target("200 active downloads", "mean/slowest", 3, most=True),
    Target("memory after 10 GB", "RSS MB", 80, most=True),
    *_slow(),
    Target("editor in Chromium", "workbench s", 1.3, DIRECT, most=True, of=TUNNEL),
)


def median(lanes: Lanes, kind: Kind, measure: str, unit: str) -> float | None:
    """The median of a lane's samples; None when it has none."""
    samples = lanes.get(kind.name, {}).get(measure, {}).get(unit)
    return statistics.median(samples) if samples else None


def outcomes(lanes: Lanes) -> list[Outcome]:
    """The targets whose figures were all taken."""
    found = []
    for target in TARGETS:
        ours = median(lanes, target.of, target.measure, target.unit)
        other = target.beside
        beside = None if other is None else median(lanes, other, target.measure, target.unit)
        if ours is None or (other is not None and beside is None):
            continue
        value = ours
        if beside is not None:
            above, below = (beside, ours) if target.inverse else (ours, beside)
            value = above / below if below else float("inf")
        found.append(Outcome(target, ours, beside, value))
    return found
