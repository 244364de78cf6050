"""The host's figures for Prometheus, made anew from what the daemon says of itself at each request. Pure.

Text exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). Labels hold ids of tasks,
codes of reasons and names of states: nothing that a person wrote, and no secret. Every value of every label
that does not name a task is there from the start. docs/observability.md has the table of FIGURES.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from uaihost.commands.disk import CLASSES
from uaihost.commands.lifecycle import Input
from uaihost.counts import Counts, Lifecycle, Tally
from uaihost.wire.inputs import TASK_STATUSES
from uaihost.wire.reasons import Reason

TYPE = "text/plain; version=0.0.4; charset=utf-8"

_KINDS = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
_LINK = ("connected", "connecting", "waiting", "stopped", "fatal")
# Close codes of the link, uses of credentials, ends of tunnels; a test holds them against those rooms.
CODES = ("1000", "1001", "1002", "1006", "1009", "1011", "4001")
USES, USED = ("api", "git", "sign"), ("ok", "refused")
ENDINGS = ("completed", "failed", "given_up", "closed", "link_lost")
# What begins and ends, by the names of its figures and of its part of the counts.
_LIVES = {
    "commands": "commands",
    "turns": "turns",
    "image_builds": "builds",
    "github_renewals": "renewals",
}
# Pools of threads that a host has (app, rooms), whether they were used or not.
_POOLS = ("database", "disk", "engine", "exports", "files", "images", "proofs", "requests", "status")


@attrs.frozen
class Figure:
    """One metric. name: as it is scraped, without `_bucket` and the like."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    def family(self) -> Any:
        """A family of it without samples."""
        return _KINDS[self.kind](self.name.removesuffix("_total"), self.meaning, labels=list(self.labels))


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("uaihost_info", "gauge", ("version",), "The running version; always 1."),
        Figure("uaihost_link_up", "gauge", (), "Whether a bridge is connected."),
        Figure("uaihost_link_state", "gauge", ("state",), "1 for the state that the link is in."),
        Figure("uaihost_link_connects_total", "counter", (), "Connections to the bridge that opened."),
        Figure("uaihost_link_failures_total", "counter", (), "Attempts to reach the bridge that failed."),
        Figure("uaihost_link_losses_total", "counter", ("code",),
               "Connections that ended, by WebSocket close code; `other` without one."),
        Figure("uaihost_link_connected_timestamp_seconds", "gauge", (),
               "When the bridge was reached last, in seconds since the epoch; 0 if never."),
        Figure("uaihost_link_round_trip_seconds", "gauge", (),
               "Round trip of the heartbeat, smoothed; NaN while it is not known."),
        Figure("uaihost_outbox_rows", "gauge", (), "Rows that the bridge has not confirmed."),
        Figure("uaihost_outbox_oldest_seconds", "gauge", (), "How long the oldest of them has waited."),
        Figure("uaihost_commands_started_total", "counter", (), "Commands that began, again or anew."),
        Figure("uaihost_commands_ended_total", "counter", ("outcome",),
               "Commands that ended. One that the host's end cut off is `interrupted` and begins again."),
        Figure("uaihost_commands_running", "gauge", (), "Commands under way."),
        Figure("uaihost_turns_started_total", "counter", (), "Turns of agents that began."),
        Figure("uaihost_turns_ended_total", "counter", ("outcome",), "Turns of agents that ended."),
        Figure("uaihost_turns_running", "gauge", (), "Turns of agents under way."),
        Figure("uaihost_channel_queued", "gauge", (), "Messages in channels that wait for an agent's turn."),
        Figure("uaihost_image_builds_started_total", "counter", (), "Builds of the task image that began."),
        Figure("uaihost_image_builds_ended_total", "counter", ("outcome",),
               "Builds of the task image that ended."),
        Figure("uaihost_image_builds_running", "gauge", (), "Builds of the task image under way."),
        Figure("uaihost_github_renewals_started_total", "counter", (),
               "Exchanges of a token for GitHub that began."),
        Figure("uaihost_github_renewals_ended_total", "counter", ("outcome",),
               "Exchanges of a token for GitHub that ended."),
        Figure("uaihost_github_renewals_running", "gauge", (), "Exchanges of a token for GitHub under way."),
        Figure("uaihost_credential_uses_total", "counter", ("kind", "outcome"),
               "What credentials were asked for: `git`, GitHub's `api`, or to `sign` for ssh."),
        Figure("uaihost_tunnels_open", "gauge", (), "Tunnels in use."),
        Figure("uaihost_tunnels_opened_total", "counter", (), "Tunnels that had a server to lead to."),
        Figure("uaihost_tunnels_refused_total", "counter", (), "Tunnels that had none."),
        Figure("uaihost_tunnels_ended_total", "counter", ("how",),
               "Tunnels that were opened and ended. `given_up`: a side stalled or broke the protocol."),
        Figure("uaihost_tunnel_bytes_total", "counter", ("direction",),
               "Bytes in tunnels: `received` from the bridge, `sent` to it."),
        Figure("uaihost_blocking_calls_started_total", "counter", ("pool",),
               "Calls outside the reactor that began."),
        Figure("uaihost_blocking_calls_total", "counter", ("pool", "outcome"),
               "Calls outside the reactor that ended, by pool of threads; the engine's are `engine`."),
        Figure("uaihost_blocking_calls_running", "gauge", ("pool",),
               "Calls under way or waiting for a thread."),
        Figure("uaihost_blocking_seconds", "histogram", ("pool",), "How long a call took, waiting included."),
        Figure("uaihost_reactor_lag_seconds", "gauge", (),
               "How late a timer of the reactor fired, the worst of the last minute."),
        Figure("uaihost_reactor_lateness_seconds", "histogram", (),
               "How late the reactor's timers fired, four looks a second."),
        Figure("uaihost_tasks", "gauge", ("status",), "Tasks by status."),
        Figure("uaihost_task_changes_total", "counter", ("change",),
               "What happened to tasks; `ended`: a container that nobody stopped, which is started again."),
        Figure("uaihost_tasks_waiting", "gauge", ("reason",), "Tasks by what they wait for."),
        Figure("uaihost_task_waiting_seconds", "gauge", ("task", "reason"), "How long a task has waited."),
        Figure("uaihost_task_memory_bytes", "gauge", ("task",), "Memory without cache."),
        Figure("uaihost_task_cpu_cores", "gauge", ("task",), "Processor time in cores."),
        Figure("uaihost_task_step_seconds", "gauge", ("task", "step"),
               "How long a step of the last attempt took."),
        Figure("uaihost_egress_connections_total", "counter", ("verdict",),
               "What tasks asked the proxy for."),
        Figure("uaihost_disk_bytes", "gauge", ("class",), "Disk by what it holds; 0 until it was measured."),
        Figure("uaihost_disk_budget_bytes", "gauge", (), "Disk for what can be made again."),
        Figure("uaihost_disk_free_bytes", "gauge", (), "Free disk where the data folder is."),
        Figure("uaihost_engine_up", "gauge", (), "Whether the container engine answers."),
    )
}  # fmt: skip


def exposition(status: Mapping[str, Any], now: float) -> bytes:
    """The text.

    status: web.site.Daemon.status, of which most parts may be missing; its part `counts` is
    uaihost.counts.Counts.view and what the daemon puts beside it. now: seconds since the epoch.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(status, now))
    # Memory, open files and processor time of the process, as all exporters name them.
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, status: Mapping[str, Any], now: float) -> None:
        self._status = status
        self._now = now
        self._counts = {**Counts().view(), **(status.get("counts") or {})}

    def collect(self) -> Iterable[Metric]:
        status = self._status
        state = status["bridge"]["state"]
        yield _single("uaihost_info", 1, status["version"])
        yield _single("uaihost_link_up", state == "connected")
        yield _labelled("uaihost_link_state", {(name,): name == state for name in _LINK})
        yield _single("uaihost_outbox_rows", status["outbox"])
        oldest = status.get("outboxOldest")
        yield _single("uaihost_outbox_oldest_seconds", max(0.0, self._now - oldest / 1000) if oldest else 0.0)
        yield _single("uaihost_channel_queued", self._counts.get("queued", 0))
        yield _single("uaihost_tunnels_open", status["tunnels"])
        yield _single("uaihost_reactor_lag_seconds", status.get("reactorLag", 0.0))
        yield from self._lives()
        yield from self._link()
        yield from self._tunnels()
        yield from self._calls()
        yield from self._tasks()
        yield from self._waits()
        yield from self._machine()

    def _lives(self) -> Iterable[Metric]:
        fresh = Lifecycle().view()
        for name, part in _LIVES.items():
            held = self._counts.get(part) or fresh
            yield _single(f"uaihost_{name}_started_total", held["begun"])
            ended = {(outcome,): count for outcome, count in held["ended"].items()}
            yield _labelled(f"uaihost_{name}_ended_total", ended)
            # From the same count as those: one that is being accepted, refused or repeated has not begun.
            yield _single(f"uaihost_{name}_running", held["running"])

    def _link(self) -> Iterable[Metric]:
        link = self._counts.get("link") or {}
        yield _single("uaihost_link_connects_total", link.get("connects", 0))
        yield _single("uaihost_link_failures_total", link.get("failures", 0))
        losses = {(code,): count for code, count in (link.get("losses") or Tally(CODES).values).items()}
        yield _labelled("uaihost_link_losses_total", losses)
        yield _single("uaihost_link_connected_timestamp_seconds", link.get("connectedAt") or 0)
        yield _single("uaihost_link_round_trip_seconds", _known(self._counts.get("roundTrip")))

    def _tunnels(self) -> Iterable[Metric]:
        tunnels = self._counts.get("tunnels") or {}
        yield _single("uaihost_tunnels_opened_total", tunnels.get("opened", 0))
        yield _single("uaihost_tunnels_refused_total", tunnels.get("refused", 0))
        ways = {(way,): tunnels.get(way, 0) for way in ("received", "sent")}
        yield _labelled("uaihost_tunnel_bytes_total", ways)
        ended = {(how,): (tunnels.get("ended") or {}).get(how, 0) for how in ENDINGS}
        yield _labelled("uaihost_tunnels_ended_total", ended)

    def _calls(self) -> Iterable[Metric]:
        fresh = Counts()
        for name in _POOLS:
            fresh.pool(name)
        pools = {**fresh.view()["pools"], **self._counts["pools"]}
        begun: dict[tuple[str], int] = {}
        ended: dict[tuple[str, str], int] = {}
        running: dict[tuple[str], int] = {}
        seconds = FIGURES["uaihost_blocking_seconds"].family()
        for pool, held in sorted(pools.items()):
            ended |= {(pool, outcome): count for outcome, count in held["ended"].items()}
            begun[(pool,)] = held["begun"]
            running[(pool,)] = held["running"]
            seconds.add_metric([pool], held["seconds"]["upTo"], held["seconds"]["sum"])
        yield _labelled("uaihost_blocking_calls_started_total", begun)
        yield _labelled("uaihost_blocking_calls_total", ended)
        yield _labelled("uaihost_blocking_calls_running", running)
        yield seconds
        late = FIGURES["uaihost_reactor_lateness_seconds"].family()
        late.add_metric([], self._counts["lateness"]["upTo"], self._counts["lateness"]["sum"])
        yield late

    def _tasks(self) -> Iterable[Metric]:
        tasks = self._status["tasks"]
        counts = Counter(task["status"] for task in tasks)
        yield _labelled("uaihost_tasks", {(name,): counts[name] for name in (*TASK_STATUSES, "exposed")})
        happened = self._counts.get("happened") or {}
        changes = {(change.name.lower(),): happened.get(change.name.lower(), 0) for change in Input}
        yield _labelled("uaihost_task_changes_total", changes)
        memory, cpu, steps = {}, {}, {}
        for task in tasks:
            usage = task.get("usage")
            if usage:
                memory[(task["id"],)] = usage["memoryBytes"]
                cpu[(task["id"],)] = usage["cpuPercent"] / 100
            for step in task.get("steps") or []:
                if step.get("elapsedMs") is not None:
                    steps[(task["id"], step["step"])] = step["elapsedMs"] / 1000
        yield _labelled("uaihost_task_memory_bytes", memory)
        yield _labelled("uaihost_task_cpu_cores", cpu)
        yield _labelled("uaihost_task_step_seconds", steps)

    def _waits(self) -> Iterable[Metric]:
        waiting = [task for task in self._status["tasks"] if task.get("waiting")]
        counts = Counter(task["waiting"]["reason"] for task in waiting)
        yield _labelled("uaihost_tasks_waiting", {(reason.value,): counts[reason.value] for reason in Reason})
        since = {
            (task["id"], task["waiting"]["reason"]): max(0.0, self._now - task["waiting"]["since"] / 1000)
            for task in waiting
        }
        yield _labelled("uaihost_task_waiting_seconds", since)

    def _machine(self) -> Iterable[Metric]:
        egress = self._status.get("egress") or {}
        verdicts = {(verdict,): egress.get(verdict, 0) for verdict in ("allowed", "blocked")}
        yield _labelled("uaihost_egress_connections_total", verdicts)
        uses = {(kind, outcome): 0 for kind in USES for outcome in USED}
        uses |= {(kind, outcome): count for kind, outcome, count in self._counts.get("uses") or ()}
        yield _labelled("uaihost_credential_uses_total", uses)
        disk = {**dict.fromkeys(CLASSES, 0), **(self._status.get("disk") or {})}
        yield _labelled("uaihost_disk_bytes", {(name,): size for name, size in sorted(disk.items())})
        space = self._status.get("space") or {}
        for name in ("budget", "free"):
            yield _single(f"uaihost_disk_{name}_bytes", _known(space.get(name)))
        yield _single("uaihost_engine_up", bool((self._status.get("engine") or {}).get("answers")))


def _known(value: float | None) -> float:
    """NaN, as Prometheus has it, for what is not known: its line is there all the same."""
    return float("nan") if value is None else value


def _single(name: str, value: float, *labels: str) -> Metric:
    return _labelled(name, {labels: value})


def _labelled(name: str, values: Mapping[Any, float]) -> Metric:
    """values: the values of the labels, a tuple in their order, to the figure."""
    family: Metric = FIGURES[name].family()
    for labels, value in values.items():
        family.add_metric(list(labels), value)  # type: ignore[attr-defined]
    return family
