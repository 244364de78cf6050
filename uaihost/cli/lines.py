"""What is said of a task on a terminal. Pure: from the daemon's JSON to lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_MARKS = {"done": "ok", "failed": "FAILED", "started": "..."}


def line(task: dict[str, Any], now: float) -> str:
    """One task in one line. now: seconds since the epoch."""
    parts = [task["id"], task["status"]]
    if task.get("waiting"):
        parts.append(wait(task["waiting"], now))
    elif task.get("message"):
        parts.append(str(task["message"]).splitlines()[0])
    usage = task.get("usage")
    if usage:
        parts.append(f"{size(usage['memoryBytes'])} {usage['cpuPercent']:.0f} %")
    parts += [f"{port['name']}={port['hostPort'] or 'tunnel'}" for port in task.get("previewPorts") or []]
    return "  ".join(parts)


def wait(waiting: dict[str, Any], now: float) -> str:
    """What a task waits for: the reason's code, how far, why, how long it has and may still."""
    text = str(waiting["reason"])
    if waiting.get("percent") is not None:
        text += f" {waiting['percent']} %"
    if waiting.get("text"):
        text += f": {waiting['text']}"
    text += f" (for {_seconds(now - waiting['since'] / 1000)}"
    if waiting.get("deadline") is not None:
        text += f", gives up in {_seconds(waiting['deadline'] / 1000 - now)}"
    return text + ")"


def story(task: dict[str, Any], now: float) -> str:
    """Everything about a task, for people."""
    lines = [line(task, now)]
    if task.get("waiting") and task.get("message"):
        lines.append(f"  {task['message']}")
    for step in task.get("steps") or []:
        took = "" if step.get("elapsedMs") is None else f"{step['elapsedMs'] / 1000:.2f} s"
        lines.append(f"  {_MARKS.get(step['state'], step['state']):<7}{took:>9}  {step['step']}")
        if step["state"] == "failed" and step.get("message"):
            lines += [f"{'':20}{said}" for said in str(step["message"]).splitlines()]
    ended = task.get("ended")
    if ended:
        lines.append(f"  last end of its container: {ended['text']}")
    report = task.get("report")
    if report:
        lines.append(f"  isolation: {'all that must be closed is' if report['passed'] else 'NOT CLOSED'}")
        lines += [f"    {one['outcome']:<8} {one['name']}: {one['detail']}" for one in report["checks"]]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / (1 << 20):.0f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GiB"


def _seconds(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min"


def day(at: int) -> str:
    """A time in milliseconds since the epoch, to the minute."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
