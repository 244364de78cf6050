"""Measures the tunnel: uaihost, and beside it in the same run the reference host.

    python benchmarks/tunnel.py [--reference DIR] [--rounds N] [--out FILE]

Every round takes each measure of every lane in turn (A B A B), so that a noisy machine disturbs all alike.
What counts are the ratios of the medians. benchmarks/README.md says what each measure is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lanes import Lane, Servers, packages, settle

Samples = dict[str, float]

# Seconds that one sample takes at least.
LONG = 3.0
SHORT = 2.0


def bulk(url: str) -> Callable[[Lane], Samples]:
    def measure(lane: Lane) -> Samples:
        before = lane.cpu()
        found = lane.call("download", name="web", url=url, seconds=LONG)
        used = lane.cpu() - before
        size = found["bytes"] / 1e9
        rate = found["bytes"] / 1e6 / found["seconds"]
        return {"MB/s": rate, "CPU s/GB": used / size, "wire bytes/byte": found["wire"] / found["bytes"]}

    return measure


def upload(lane: Lane) -> Samples:
    before = lane.cpu()
    found = lane.call("upload", name="node", url="/sink", bytes=64 << 20, seconds=LONG)
    used = lane.cpu() - before
    return {"MB/s": found["bytes"] / 1e6 / found["seconds"], "CPU s/GB": used / (found["bytes"] / 1e9)}


def requests(lane: Lane) -> Samples:
    before = lane.cpu()
    found = lane.call("requests", name="web", url="/small.txt", parallel=32, seconds=SHORT)
    used = lane.cpu() - before
    return {"per s": found["count"] / found["seconds"], "CPU ms each": used * 1000 / found["count"]}


def echo(loads: int) -> Callable[[Lane], Samples]:
    def measure(lane: Lane) -> Samples:
        found = lane.call(
            "echo",
            name="node",
            url="/echo",
            size=64,
            interval=5,
            seconds=2 * LONG,
            loads=loads,
            loadName="web",
            loadUrl="/noise.bin",
        )
        times = sorted(found["times"])
        taken = {"p50 ms": quantile(times, 0.5), "p99 ms": quantile(times, 0.99), "max ms": times[-1]}
        return taken | ({"bulk MB/s": found["loaded"] / 1e6 / found["seconds"]} if loads else {})

    return measure


def memory(lane: Lane) -> Samples:
    return {"now MiB": lane.memory("VmRSS"), "peak MiB": lane.memory("VmHWM")}


MEASURES: dict[str, Callable[[Lane], Samples]] = {
    "echo, idle": echo(0),
    "bulk download, incompressible": bulk("/noise.bin"),
    "bulk download, JavaScript": bulk("/text.js"),
    "upload, incompressible": upload,
    "small requests, 32 in parallel": requests,
    "echo under two bulk downloads": echo(2),
    "memory": memory,
}


def quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def run(rounds: int, reference: Path | None, only: list[str]) -> dict[str, Any]:
    """All samples: `{"lanes": {lane: {measure: {unit: [sample, ...]}}}, ...}`."""
    subjects = ["uaihost"] if reference is None else ["uaihost", "reference"]
    lanes: list[Lane] = []
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="uaihost-benchmark-") as name:
        folder = Path(name)
        installed = packages()
        servers = Servers(folder, installed)
        try:
            for deflate in (True, False):
                for subject in subjects:
                    lanes.append(Lane(subject, deflate, folder, installed, servers, reference))
            for number in range(rounds):
                for title, measure in MEASURES.items():
                    if only and not any(word in title for word in only):
                        continue
                    for lane in lanes:
                        settle()
                        samples = measure(lane)
                        shown = ", ".join(f"{value:.4g} {unit}" for unit, value in samples.items())
                        print(f"round {number + 1}  {title:32} {lane.name:32} {shown}", flush=True)
                        for unit, value in samples.items():
                            units = results.setdefault(lane.name, {}).setdefault(title, {})
                            units.setdefault(unit, []).append(round(value, 4))
        finally:
            for lane in lanes:
                lane.stop()
            servers.stop()
        static = servers.static
    return {"machine": machine(), "static server": static, "rounds": rounds, "lanes": results}


def machine() -> dict[str, Any]:
    """What it ran on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown"
    )
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "revision": revision.stdout.strip(),
    }


def table(found: dict[str, Any]) -> str:
    """Medians and ratios as a Markdown table; a ratio is uaihost's number through the reference's."""
    lanes = found["lanes"]
    lines = ["| measure | unit | deflate | uaihost | reference | ratio |", "|---|---|---|---:|---:|---:|"]
    for title in MEASURES:
        for mode in ("negotiated", "off"):
            ours = lanes.get(f"uaihost, deflate {mode}", {}).get(title, {})
            theirs = lanes.get(f"reference, deflate {mode}", {}).get(title, {})
            for unit, samples in ours.items():
                mine = statistics.median(samples)
                other = statistics.median(theirs[unit]) if unit in theirs else None
                ratio = "" if not other else f"{mine / other:.2g}"
                beside = "" if other is None else f"{other:.4g}"
                lines.append(f"| {title} | {unit} | {mode} | {mine:.4g} | {beside} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the tunnel of uaihost beside the reference host.")
    parser.add_argument("--reference", type=Path, help="a checkout of the reference host that runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="a word of the measures to take")
    parser.add_argument("--out", type=Path, help="write all samples there as JSON")
    options = parser.parse_args()
    found = run(options.rounds, options.reference and options.reference.resolve(), options.only)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n" + json.dumps(found["machine"]) + "\n\n" + table(found))


if __name__ == "__main__":
    main()
