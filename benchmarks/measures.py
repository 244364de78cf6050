"""The measures: what the clients of a lane do, and the figures that come of it.

A figure's name says its unit. A measure returns only what its lane can say: OpenSSH has no commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs

from benchmarks.lanes import DIRECT, MUX, NEGOTIATED, OFF, OPENSSH, REFERENCE, TUNNEL, Kind, Lane
from benchmarks.processes import cpu, forget_peak, memory

Samples = dict[str, float]

MB = 1e6


@attrs.frozen
class Effort:
    """How much is done: seconds of each kind of sample, tunnels, bytes.

    file: bytes of what is downloaded again and again; grace: seconds for which answers may still come; check:
    seconds of the stream by which the slow link is checked.
    """

    long: float = 2.0
    short: float = 1.5
    echo: float = 3.0
    idle: int = 1000
    active: int = 200
    through: float = 10e9
    through_seconds: float = 25.0
    slow: float = 40.0
    file: int = 64 << 20
    grace: float = 5.0
    check: float = 4.0


# Enough to see that every measure works, and nothing more.
QUICK = Effort(
    long=0.2,
    short=0.2,
    echo=0.5,
    idle=50,
    active=20,
    through=1e8,
    through_seconds=1,
    slow=1,
    file=4 << 20,
    grace=0.5,
    check=1,
)


@attrs.frozen
class Measure:
    """A measure and the lanes that take it.

    fresh: in a process of its own, started for it; loss: over the slow link that loses that part of the
    packets, else over loopback; once: in the first round alone, because it takes long.
    """

    title: str
    take: Callable[[Lane, Effort], Samples]
    kinds: tuple[Kind, ...] = (*NEGOTIATED, OPENSSH)
    fresh: bool = False
    loss: float | None = None
    once: bool = False


def quantile(values: list[float], part: float) -> float:
    """The value that this part of all values does not exceed; infinite when there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("inf")


def bulk(url: str) -> Callable[[Lane, Effort], Samples]:
    def take(lane: Lane, effort: Effort) -> Samples:
        before = cpu(lane.pid)
        found = lane.call("download", name="web", url=url, seconds=effort.long)
        used = cpu(lane.pid) - before
        taken = {
            "MB/s": found["bytes"] / MB / found["seconds"],
            "CPU s/GB": used / (found["bytes"] / 1e9),
        }
        return taken | ({} if lane.kind == OPENSSH else {"wire bytes/byte": found["wire"] / found["bytes"]})

    return take


def upload(lane: Lane, effort: Effort) -> Samples:
    before = cpu(lane.pid)
    found = lane.call("upload", name="node", url="/sink", bytes=effort.file, seconds=effort.long)
    used = cpu(lane.pid) - before
    return {"MB/s": found["bytes"] / MB / found["seconds"], "CPU s/GB": used / (found["bytes"] / 1e9)}


def requests(lane: Lane, effort: Effort) -> Samples:
    before = cpu(lane.pid)
    found = lane.call("requests", name="web", url="/small.txt", parallel=32, seconds=effort.short)
    used = cpu(lane.pid) - before
    return {"per s": found["count"] / found["seconds"], "CPU ms each": used * 1000 / found["count"]}


def _echo(lane: Lane, effort: Effort, seconds: float, loads: int, **more: Any) -> dict[str, Any]:
    order = {"size": 64, "interval": 5, "control": 20, "grace": effort.grace * 1000} | more
    return lane.call(
        "echo", name="node", url="/echo", seconds=seconds, loads=loads,
        loadName="web", loadUrl="/noise.bin", **order,
    )  # fmt: skip


def echo(loads: int) -> Callable[[Lane, Effort], Samples]:
    """64 bytes there and back every 5 ms, and commands and pings every 20 ms, with downloads beside."""

    def take(lane: Lane, effort: Effort) -> Samples:
        found = _echo(lane, effort, effort.echo, loads)
        times = found["times"]
        taken = {"p50 ms": quantile(times, 0.5), "p99 ms": quantile(times, 0.99), "max ms": max(times)}
        for name, word in (("commands", "command"), ("pings", "ping")):
            if found[name]:
                taken[f"{word} p50 ms"] = quantile(found[name], 0.5)
                taken[f"{word} p99 ms"] = quantile(found[name], 0.99)
        return taken | ({"bulk MB/s": found["loaded"] / MB / found["seconds"]} if loads else {})

    return take


def idle(lane: Lane, effort: Effort) -> Samples:
    """What a tunnel that has carried a byte each way and waits costs the host."""
    lane.call("hold", name="node", url="/echo", count=1)
    time.sleep(0.5)
    before = memory(lane.pid, "VmRSS")
    lane.call("hold", name="node", url="/echo", count=effort.idle)
    time.sleep(0.5)
    after = memory(lane.pid, "VmRSS")
    lane.call("release")
    return {"KiB each": max(0.0, after - before) / 1024 / effort.idle, "RSS before MB": before / MB}


def active(lane: Lane, effort: Effort) -> Samples:
    """How the bytes of a fixed time fall to downloads that all run at once."""
    found = lane.call("active", name="web", url="/noise.bin", count=effort.active, seconds=effort.long * 2)
    sizes = found["bytes"]
    mean = sum(sizes) / len(sizes)
    return {
        "mean/slowest": mean / max(1, min(sizes)),
        "fastest/mean": max(sizes) / max(1.0, mean),
        "MB/s": sum(sizes) / MB / (effort.long * 2),
    }


def through(lane: Lane, effort: Effort) -> Samples:
    """Memory after 10 GB, or after what came in the time that is given."""
    forget_peak(lane.pid)
    found = lane.call(
        "download", name="web", url="/noise.bin", seconds=effort.through_seconds, limit=effort.through
    )
    return {
        "RSS MB": memory(lane.pid, "VmRSS") / MB,
        "peak MB": memory(lane.pid, "VmHWM") / MB,
        "GB through": found["bytes"] / 1e9,
    }


def slow(loads: int) -> Callable[[Lane, Effort], Samples]:
    """Key strokes, commands and pings every 100 ms over the slow link, with downloads beside."""

    def take(lane: Lane, effort: Effort) -> Samples:
        before = memory(lane.pid, "VmRSS")
        forget_peak(lane.pid)
        found = _echo(lane, effort, effort.slow, loads, interval=100, control=100, drain=False)
        control = [*found["commands"], *found["pings"]]
        taken = {
            "key stroke p50 ms": quantile(found["times"], 0.5),
            "key stroke p95 ms": quantile(found["times"], 0.95),
            "control p50 ms": quantile(control, 0.5),
            "control p99 ms": quantile(control, 0.99),
            "resets": found["cut"],
            "RSS growth MB": (memory(lane.pid, "VmHWM") - before) / MB,
        }
        return taken | ({"bulk Mbit/s": found["loaded"] * 8 / 1e6 / found["seconds"]} if loads else {})

    return take


def workbench(lane: Lane, effort: Effort) -> Samples:
    """How long an editor takes to be there; of a tunnel, also what that cost the host."""
    before = cpu(lane.pid)
    found = lane.call("load")
    return found | ({"CPU s": cpu(lane.pid) - before} if lane.kind == TUNNEL else {})


ALL = (*NEGOTIATED, OPENSSH, *OFF)
SLOW = (MUX, REFERENCE)

MEASURES = (
    Measure("echo, idle", echo(0), ALL),
    Measure("bulk download, incompressible", bulk("/noise.bin"), ALL),
    Measure("bulk download, JavaScript", bulk("/text.js")),
    Measure("bulk download, HTML", bulk("/text.html")),
    Measure("bulk download, JSON", bulk("/text.json")),
    Measure("upload, incompressible", upload, ALL),
    Measure("small requests, 32 in parallel", requests, ALL),
    Measure("echo under 2 bulk downloads", echo(2), ALL),
    Measure("echo under 20 bulk downloads", echo(20)),
    Measure("200 active downloads", active),
    Measure("1,000 idle tunnels", idle, NEGOTIATED, fresh=True),
    Measure("memory after 10 GB", through, NEGOTIATED, fresh=True, once=True),
    Measure("slow link", slow(10), SLOW, fresh=True, loss=0.0, once=True),
    Measure("slow link, 1 % loss", slow(10), SLOW, fresh=True, loss=0.01, once=True),
    Measure("slow link, 1 % loss, no downloads", slow(0), (MUX,), fresh=True, loss=0.01, once=True),
    Measure("editor in Chromium", workbench, (DIRECT, TUNNEL), fresh=True),
)
