"""Where the host's time goes: samples of its stack while it carries bulk, and while it carries requests.

    python -m benchmarks.profiling [--seconds N] [--out DIR] [--document FILE]

py-spy looks at the process from outside; C functions count too. For each path DIR gets the collapsed stacks
(`caller;...;function samples`, which flame graph programs read), and the document a table of functions.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks import report
from benchmarks.lanes import BIN, MUX, Bench, Bridged
from benchmarks.measures import Effort
from benchmarks.processes import Process
from benchmarks.run import HERE
from benchmarks.servers import Servers, write_files
from uaihost.test.integration.node import installed

# Samples per second.
_RATE = 250

# Functions that a table names.
_SHOWN = 15

# Whose files are named by their path.
_PACKAGES = ("uaihost", "twisted", "autobahn")

# The frame below which the reactor works.
_LOOP = "ReactorBase.mainLoop ("

# Stacks seen more rarely are left out of what is kept: this part of all samples.
_RARE = 0.001

BEGIN = "<!-- made by `make profile`: begin -->"
END = "<!-- made by `make profile`: end -->"


@attrs.frozen
class HotPath:
    """A hot path: what the clients do while the host is looked at."""

    name: str
    title: str
    measure: str
    order: dict[str, Any]


PATHS = (
    HotPath("bulk", "Bulk download", "download", {"name": "web", "url": "/noise.bin"}),
    HotPath(
        "requests",
        "Small requests, 32 in parallel",
        "requests",
        {"name": "web", "url": "/small.txt", "parallel": 32},
    ),
)


def stacks(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The stacks of py-spy's raw format, what the reactor calls first, with their samples.

    Other threads, which only wait here, are left out.
    """
    for line in text.splitlines():
        words, _, count = line.rpartition(" ")
        frames = words.split(";")
        inside = [number for number, frame in enumerate(frames) if frame.startswith(_LOOP)]
        if inside and frames[inside[0] + 1 :]:
            yield tuple(short(frame) for frame in frames[inside[0] + 1 :]), int(count)


def short(frame: str) -> str:
    """`name (link/outbound.py)` of a frame with its whole path and line."""
    name, _, place = frame.partition(" (")
    if name.startswith("0x"):
        name = "unnamed"
    place = re.sub(r":\d+\)?$", "", place).rstrip(")")
    parts = place.split("/")
    # The last of these names: a checkout's folder may have one too.
    starts = [number for number, part in enumerate(parts) if part in _PACKAGES]
    parts = parts[starts[-1] if starts else -1 :]
    return f"{name} ({'/'.join(parts)})" if place else name


def tables(text: str) -> tuple[Counter[str], Counter[str], int]:
    """Samples of each function itself, samples with the functions it calls, and all."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for frames, count in stacks(text):
        own[frames[-1]] += count
        for frame in set(frames):
            within[frame] += count
        total += count
    return own, within, total


def collapsed(text: str) -> str:
    """The stacks that are not rare, the most frequent first."""
    merged: Counter[str] = Counter()
    for frames, count in stacks(text):
        merged[";".join(frames)] += count
    least = sum(merged.values()) * _RARE
    return "".join(f"{stack} {count}\n" for stack, count in merged.most_common() if count >= least)


def markdown(title: str, text: str) -> str:
    """Two columns of functions: their own time, and the time of ours with what they call."""
    own, within, total = tables(text)
    ours = [(name, count) for name, count in within.most_common() if "(uaihost/" in name]
    lines = [
        f"### {title}",
        f"{total:,} samples of a host that works.\n",
        "| time in itself | function | time with what it calls | function of ours |",
        "|---:|---|---:|---|",
    ]
    rows = zip(own.most_common(_SHOWN), ours[:_SHOWN], strict=False)
    for (name, count), (inner, more) in rows:
        lines.append(f"| {count / total:.1%} | `{name}` | {more / total:.1%} | `{inner}` |")
    return "\n".join(lines)


def record(lane: Bridged, path: HotPath, seconds: float, folder: Path) -> str:
    """py-spy's raw format of the host, while `path` is busy."""
    target = folder / f"{path.name}.raw"
    words = [str(BIN / "py-spy"), "record", "--pid", str(lane.pid), "--rate", str(_RATE), "--native"]
    words += ["--duration", str(round(seconds)), "--format", "raw", "--function", "--output", str(target)]
    spy = Process(words, folder / "py-spy.log")
    try:
        lane.call(path.measure, seconds=seconds + 2, **path.order)
        spy.child.wait(60)
    finally:
        spy.stop()
    if spy.child.returncode or not target.exists():
        raise spy.broken("recorded nothing")
    return target.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--document", type=Path, help="put the tables there, between its two marks")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts = []
    with tempfile.TemporaryDirectory(prefix="uaihost-profile-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_files(folder / "files", Effort().file)
        bench = Bench(folder, installed(HERE))
        servers = Servers(folder, folder / "files", bench.packages)
        try:
            lane = Bridged(MUX, bench, servers)
            try:
                for path in PATHS:
                    # The first seconds import, connect and fill caches.
                    lane.call(path.measure, seconds=1, **path.order)
                    time.sleep(0.5)
                    text = record(lane, path, given.seconds, folder)
                    (given.out / f"profile-{path.name}.txt").write_text(collapsed(text))
                    parts.append(markdown(path.title, text))
            finally:
                lane.stop()
        finally:
            servers.stop()
    print("\n\n".join(parts))
    if given.document is not None:
        report.write(given.document, "\n\n".join(parts), BEGIN, END)


if __name__ == "__main__":
    main()
