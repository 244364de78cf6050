"""What the owner should look at, from what the daemon says of itself. Pure.

Nothing to say means that all is well. Each warning says what is wrong and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

# Seconds for which the bridge may be away, and the engine silent after a start, before it is worth a word:
# a bridge that is updated, a laptop that wakes up.
BRIDGE_PATIENCE = 30.0
ENGINE_PATIENCE = 20.0
# Seconds for which a task may wait for the same thing: an image is built in less.
WAIT_PATIENCE = 900.0
# Seconds that a timer of the reactor may be late: from then on, typing in an editor is felt to be slow.
LAG = 1.0
# Rows that the bridge has not confirmed, while it is connected.
OUTBOX = 1000

Warned = dict[str, str]


def warnings(status: Mapping[str, Any], now: float) -> list[Warned]:
    """The worst first: `{level, about, text, fix}` each; level: `bad`, or `note` for what may pass by itself.

    status: daemon.Daemon.status, without `warnings`; now: seconds since the epoch.
    """
    found = [
        *_link(status["bridge"], now),
        *_engine(status, now),
        *_image(status["image"]),
        *_disk(status["space"]),
        *_accounts(status["agents"]),
        *_github(status["github"]),
        *_tasks(status["tasks"], now),
        *_itself(status),
    ]
    return sorted(found, key=lambda one: one["level"] != "bad")


def _link(bridge: Mapping[str, Any], now: float) -> Iterable[Warned]:
    reason = f": {bridge['reason']}" if bridge["reason"] else ""
    if bridge["state"] == "fatal":
        yield _warning(
            "bad",
            "bridge",
            f"the bridge refuses this host{reason}",
            "check UAI_HOST_TOKEN and UAI_CLOUD_URL, then restart the host",
        )
    elif bridge["state"] != "connected" and now - bridge["since"] > BRIDGE_PATIENCE:
        yield _warning(
            "bad",
            "bridge",
            f"the bridge is not reached{reason}",
            "`uaihost doctor` finds where the way ends; tasks go on meanwhile",
        )


def _engine(status: Mapping[str, Any], now: float) -> Iterable[Warned]:
    answers = status["engine"]["answers"]
    if answers is False or (answers is None and now - status["startedAt"] / 1000 > ENGINE_PATIENCE):
        yield _warning(
            "bad",
            "engine",
            f"no container engine answers at {status['engine']['address']}",
            "start Docker, or see `uaihost doctor`; running tasks are taken up when it is back",
        )


def _image(image: Mapping[str, Any]) -> Iterable[Warned]:
    if image["state"] == "failed":
        yield _warning(
            "bad",
            "image",
            f"the task image could not be built: {image['message']}",
            "`uaihost image build` tries again and shows every line",
        )


def _disk(space: Mapping[str, Any]) -> Iterable[Warned]:
    if space["low"]:
        yield _warning(
            "bad",
            "disk",
            "the disk is nearly full",
            "free some of it; `uaihost gc --dry-run` shows what the host would remove",
        )
    elif space["used"] is not None and space["used"] > space["budget"]:
        yield _warning(
            "note",
            "disk",
            "what can be removed takes more than the disk budget",
            "it is freed within the hour, or by `uaihost gc`; or raise UAI_DISK_BUDGET",
        )


def _accounts(agents: Mapping[str, Any]) -> Iterable[Warned]:
    for account in agents["accounts"]:
        if account["problem"]:
            provider = account["provider"]
            yield _warning(
                "bad",
                "agents",
                f"the account at {provider}: {account['problem']}",
                f"`uaihost login {provider}` signs in again",
            )
    if agents["kinds"] and all(kind["problem"] for kind in agents["kinds"]):
        yield _warning(
            "bad",
            "agents",
            "no kind of agent works here",
            "sign in to one, for example with `uaihost login claude`",
        )


def _github(connections: Iterable[Mapping[str, Any]]) -> Iterable[Warned]:
    for one in connections:
        if one["problem"]:
            yield _warning(
                "bad",
                "github",
                f"GitHub of {one['userId']}: {one['problem']}",
                "connect it again in the app, or with `uaihost github login`",
            )


def _tasks(tasks: Iterable[Mapping[str, Any]], now: float) -> Iterable[Warned]:
    for task in tasks:
        waiting = task.get("waiting")
        if task["status"] == "failed":
            yield _warning(
                "note",
                "tasks",
                f"the task {task['id']} failed: {task.get('message') or 'see its steps'}",
                "bring it up again, or stop it here: its work is saved first",
            )
        elif waiting and waiting["reason"] != "parked" and now - waiting["since"] / 1000 > WAIT_PATIENCE:
            minutes = int((now - waiting["since"] / 1000) / 60)
            yield _warning(
                "note",
                "tasks",
                f"the task {task['id']} has waited for {minutes} minutes: {waiting['text']}",
                "put that right, or stop the task here",
            )


def _itself(status: Mapping[str, Any]) -> Iterable[Warned]:
    if status["draining"]:
        yield _warning(
            "note",
            "host",
            "the host is draining: no task and no turn begins, and words wait",
            "`uaihost drain --off` goes on, as a restart does",
        )
    if status["reactorLag"] > LAG:
        yield _warning(
            "note",
            "host",
            f"the host was held up for {status['reactorLag']:.1f} s in the last minute",
            "the machine may be too busy: stop a task, or lower UAI_TASK_CPUS",
        )
    if status["bridge"]["state"] == "connected" and status["outbox"] > OUTBOX:
        yield _warning(
            "note",
            "bridge",
            f"{status['outbox']} messages wait for the bridge to confirm them",
            "the way to the bridge is slow; nothing is lost",
        )


def _warning(level: Literal["bad", "note"], about: str, text: str, fix: str) -> Warned:
    return {"level": level, "about": about, "text": text, "fix": fix}
