"""One run: its lanes, its rounds, its samples."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import editor, openssh, slowlink
from benchmarks.lanes import DIRECT, LOOPBACK, OPENSSH, TUNNEL, Bench, Bridged, Kind, Lane, Place
from benchmarks.measures import MEASURES, Effort, Measure
from benchmarks.openssh import Forwarded
from benchmarks.servers import Servers, write_files
from benchmarks.slowlink import SlowLink
from benchmarks.targets import Lanes
from uaihost.test.integration.node import installed

HERE = Path(__file__).resolve().parent

# Seconds in which the processes finish what the last measure left.
_SETTLE = 0.3


class Run:
    """Measures once, by `measure`.

    Args:
        reference: the reference host's folder; without it and without OpenSSH their lanes are left out.
        only: words; the measures that have one of them are taken, all when there is none.
        without: words; lanes that have one of them are left out.
        congestion: TCP's congestion control on the slow link.
    """

    def __init__(
        self,
        effort: Effort,
        rounds: int,
        reference: Path | None,
        only: list[str],
        without: list[str],
        congestion: str,
    ) -> None:
        self._effort = effort
        self._rounds = rounds
        self._reference = reference
        self._without = without
        self._congestion = congestion
        self._left_out: list[str] = []
        self._measures = [
            measure for measure in MEASURES if not only or any(word in measure.title for word in only)
        ]
        self._samples: Lanes = {}
        self._links: dict[str, dict[str, float]] = {}
        self._lanes: dict[Kind, Lane] = {}

    def measure(self) -> dict[str, Any]:
        """All samples, of which lanes, on what machine, and what was left out and why.

        Raises:
            Broken: a process ended or did not answer.
        """
        began = machine() | {"congestion control": self._congestion}
        self._leave_out()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uaihost-benchmark-")))
            folder.chmod(0o755)
            self._bench = Bench(folder, installed(HERE), self._reference)
            write_files(folder / "files", self._effort.file)
            self._servers = self._serve(stack)
            for number in range(self._rounds):
                for measure in self._measures:
                    if number == 0 or not measure.once:
                        self._take(stack, number, measure)
        return {
            "machine": began,
            "static server": self._servers.static,
            "rounds": self._rounds,
            "left out": self._left_out,
            "links": self._links,
            "lanes": self._samples,
        }

    def _leave_out(self) -> None:
        """Decide what cannot be measured here, and say so."""
        why = openssh.missing()
        if why is not None:
            self._left_out.append(f"OpenSSH ({why})")
            self._without.append(OPENSSH.subject)
        if self._reference is None:
            self._left_out.append("the reference host (no --reference)")
            self._without.append("reference")
        why = slowlink.missing()
        if why is not None and any(measure.loss is not None for measure in self._measures):
            self._left_out.append(f"the slow link ({why})")
            self._measures = [measure for measure in self._measures if measure.loss is None]
        wanted = any(self._is_wanted(kind) for kind in (DIRECT, TUNNEL))
        if wanted and any(DIRECT in measure.kinds for measure in self._measures):
            why = editor.missing()
            if why is not None:
                self._left_out.append(f"the editor in Chromium ({why})")
                self._without.append("Chromium")
        for text in self._left_out:
            print(f"not measured: {text}", flush=True)

    def _is_wanted(self, kind: Kind) -> bool:
        return not any(word in kind.name for word in self._without)

    def _serve(self, stack: ExitStack, prefix: tuple[str, ...] = ()) -> Servers:
        bench = self._bench
        servers = Servers(bench.folder, bench.folder / "files", bench.packages, prefix)
        stack.callback(servers.stop)
        return servers

    def _take(self, stack: ExitStack, number: int, measure: Measure) -> None:
        """A sample of this measure of each of its lanes."""
        for kind in measure.kinds:
            if not self._is_wanted(kind):
                continue
            if measure.fresh:
                with self._fresh(number, measure, kind) as lane:
                    self._sample(number, measure, lane)
                continue
            if kind not in self._lanes:
                self._lanes[kind] = self._start(kind, self._servers)
                stack.callback(self._lanes[kind].stop)
            time.sleep(_SETTLE)
            self._sample(number, measure, self._lanes[kind])

    @contextmanager
    def _fresh(self, number: int, measure: Measure, kind: Kind) -> Iterator[Lane]:
        """A lane for one sample alone."""
        with ExitStack() as stack:
            place, servers = LOOPBACK, self._servers
            if measure.loss is not None:
                link = SlowLink(self._bench.folder, measure.loss, self._congestion)
                stack.callback(link.stop)
                place = link.place
                if measure.title not in self._links:
                    self._links[measure.title] = found = link.check(self._effort.check)
                    print(f"the link of {measure.title}: {shown(found)}", flush=True)
                servers = self._serve(stack, place.host)
            lane = self._start(kind, servers, place)
            stack.callback(lane.stop)
            time.sleep(_SETTLE)
            yield lane
            if measure.loss is not None:
                print(f"the link's packets: {shown(link.counts())}", flush=True)

    def _start(self, kind: Kind, servers: Servers, place: Place = LOOPBACK) -> Lane:
        if kind == OPENSSH:
            return Forwarded(self._bench, servers)
        if kind in (DIRECT, TUNNEL):
            return editor.Workbench(kind, self._bench)
        lane = Bridged(kind, self._bench, servers, place)
        if kind.mux and not lane.mux:
            text = "mux.1 (this host does not offer it: its lanes speak revision 1)"
            if text not in self._left_out:
                self._left_out.append(text)
                print(f"not measured: {text}", flush=True)
        return lane

    def _sample(self, number: int, measure: Measure, lane: Lane) -> None:
        samples = measure.take(lane, self._effort)
        print(f"round {number + 1}  {measure.title:33} {lane.kind.name:34} {shown(samples)}", flush=True)
        units = self._samples.setdefault(lane.kind.name, {}).setdefault(measure.title, {})
        for unit, value in samples.items():
            units.setdefault(unit, []).append(round(value, 4))


def shown(samples: dict[str, float]) -> str:
    return ", ".join(f"{value:.4g} {unit}" for unit, value in samples.items())


def machine() -> dict[str, Any]:
    """What it runs on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": next(models, "unknown"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "revision": revision.stdout.strip(),
    }
