"""The host's figures for Prometheus, made anew from what the daemon says of itself at each request. Pure.

Text exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). Labels hold ids of tasks,
codes of reasons and names of states: nothing that a person wrote, and no secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from uaihost.wire.inputs import TASK_STATUSES
from uaihost.wire.reasons import Reason

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Figures(Collector):
    def __init__(self, status: Mapping[str, Any], now: float) -> None:
        self._status = status
        self._now = now

    def collect(self) -> Iterable[Metric]:
        status = self._status
        yield _one("uaihost_info", "The running version.", 1, {"version": status["version"]})
        yield _one(
            "uaihost_link_up", "Whether a bridge is connected.", status["bridge"]["state"] == "connected"
        )
        yield _one("uaihost_outbox_rows", "Rows that the bridge has not confirmed.", status["outbox"])
        yield _one("uaihost_commands_running", "Commands without a result.", status["commands"])
        yield _one("uaihost_tunnels_open", "Tunnels in use.", status["tunnels"])
        yield _one(
            "uaihost_reactor_lag_seconds",
            "How late a timer of the reactor fired, the worst of the last minute.",
            status.get("reactorLag", 0.0),
        )
        yield from self._tasks()
        yield from self._waits()
        yield from self._egress()
        yield from self._disk()

    def _tasks(self) -> Iterable[Metric]:
        tasks = self._status["tasks"]
        states = GaugeMetricFamily("uaihost_tasks", "Tasks by status.", labels=["status"])
        counts = Counter(task["status"] for task in tasks)
        for name in (*TASK_STATUSES, "exposed"):
            states.add_metric([name], counts[name])
        yield states
        memory = GaugeMetricFamily("uaihost_task_memory_bytes", "Memory without cache.", labels=["task"])
        cpu = GaugeMetricFamily("uaihost_task_cpu_cores", "Processor time in cores.", labels=["task"])
        steps = GaugeMetricFamily(
            "uaihost_task_step_seconds", "How long a step of the last attempt took.", labels=["task", "step"]
        )
        for task in tasks:
            usage = task.get("usage")
            if usage:
                memory.add_metric([task["id"]], usage["memoryBytes"])
                cpu.add_metric([task["id"]], usage["cpuPercent"] / 100)
            for step in task.get("steps") or []:
                if step.get("elapsedMs") is not None:
                    steps.add_metric([task["id"], step["step"]], step["elapsedMs"] / 1000)
        yield from (memory, cpu, steps)

    def _waits(self) -> Iterable[Metric]:
        waiting = [task for task in self._status["tasks"] if task.get("waiting")]
        counts = Counter(task["waiting"]["reason"] for task in waiting)
        by_reason = GaugeMetricFamily(
            "uaihost_tasks_waiting", "Tasks by what they wait for.", labels=["reason"]
        )
        for reason in Reason:
            by_reason.add_metric([reason.value], counts[reason.value])
        yield by_reason
        since = GaugeMetricFamily(
            "uaihost_task_waiting_seconds", "How long a task has waited.", labels=["task", "reason"]
        )
        for task in waiting:
            passed = self._now - task["waiting"]["since"] / 1000
            since.add_metric([task["id"], task["waiting"]["reason"]], max(0.0, passed))
        yield since

    def _egress(self) -> Iterable[Metric]:
        found = self._status.get("egress") or {}
        made = CounterMetricFamily(
            "uaihost_egress_connections", "What tasks asked the proxy for.", labels=["verdict"]
        )
        for verdict in ("allowed", "blocked"):
            made.add_metric([verdict], found.get(verdict, 0))
        yield made

    def _disk(self) -> Iterable[Metric]:
        disk = GaugeMetricFamily("uaihost_disk_bytes", "Disk by what it holds.", labels=["class"])
        for name, size in sorted((self._status.get("disk") or {}).items()):
            disk.add_metric([name], size)
        yield disk


def exposition(status: Mapping[str, Any], now: float) -> bytes:
    """The text.

    status: web.site.Daemon.status; its parts `egress` (`{allowed, blocked}`), `disk` (class to bytes),
    `reactorLag` (seconds) and a task's `waiting`, `steps` and `usage` may be missing. now: seconds since the
    epoch.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(status, now))
    return generate_latest(registry)


def _one(name: str, help: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    metric = GaugeMetricFamily(name, help, labels=list(labels or {}))
    metric.add_metric(list((labels or {}).values()), value)
    return metric
