"""`uaihost demo`: the tour without a person, through the public API and the previews alone.

Each step looks for what a person would look for and fails the command when it is not seen.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from uaihost.cli.client import BridgeClient, wait_for
from uaihost.cli.local import settings
from uaihost.cli.progress import Steps
from uaihost.cli.terminals import terminal
from uaihost.errors import ErrorCode, HostError
from uaihost.ids import new_id
from uaihost.paths import Folders

BEFORE = "Hello from the sample shop"
AFTER = "Hello, edited by an agent"

# The first start makes the images; seconds.
_FIRST_START = 900
_TURN = 60


@click.command()
def demo() -> None:
    """Play the tour: a task on a sample repository, an agent's edit, preview, diff, task down.

    Uses the bridge that `uaihost up` runs, or runs one for as long as the tour takes.
    """
    console = terminal()
    folders = Folders(settings().data_dir)
    with running_bridge(folders, console) as bridge, sample_repository(folders) as repository:
        tour(bridge, repository, Steps(console), console)
    console.print("[green]The tour is over; every step was seen.[/]")


def tour(bridge: BridgeClient, repository: Path, steps: Steps, console: Console) -> None:
    """Task up, preview, edit with consent, preview again, diff, task down."""
    with steps.step("task up") as step:
        ports = [{"name": "web", "port": 3000}]
        new = {"name": "Tour", "repoUrl": str(repository), "previewPorts": ports, "branch": "tour"}
        task_id: str = bridge.call("POST", "/api/tasks", new)["id"]
        wait_for("the task running", lambda: running(bridge, task_id, step.say), _FIRST_START)
        step.result = task_id
    try:
        with steps.step("preview before the edit") as step:
            seen(bridge, task_id, BEFORE)
            step.result = f"http://{task_id}-web.preview.localhost:{bridge.port}/ says “{BEFORE}”"
        with steps.step("agent edits, with consent") as step:
            bridge.call(
                "POST", f"/api/tasks/{task_id}/messages", {"text": f"edit index.html {BEFORE} => {AFTER}"}
            )
            request = wait_for("the agent's question", lambda: asked(bridge, task_id), _TURN)
            step.say(request["title"])
            bridge.call(
                "POST",
                f"/api/tasks/{task_id}/permissions/{request['requestId']}",
                {"agentId": request["agentId"], "decision": "accept"},
            )
            step.result = wait_for("the agent's answer", lambda: answered(bridge, task_id), _TURN)
        with steps.step("preview after the edit"):
            seen(bridge, task_id, AFTER)
        with steps.step("diff") as step:
            diff = bridge.call("GET", f"/api/tasks/{task_id}/diff")
            text = "\n".join(file["hunks"] or "" for p in diff["projects"] for file in p["files"])
            if f"-<h1>{BEFORE}</h1>" not in text or f"+<h1>{AFTER}</h1>" not in text:
                raise HostError(ErrorCode.NOT_FOUND, f"the edit is not in the diff: {text[:500]!r}")
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    finally:
        with steps.step("task down") as step:
            step.result = down(bridge, task_id)


def running(bridge: BridgeClient, task_id: str, say: Any) -> bool | None:
    """True once the task runs and its agent is there; None before."""
    task = bridge.call("GET", f"/api/tasks/{task_id}")
    events = [event for event in task["events"] if event["type"] == "task.progress"]
    if events:
        say(f"{events[-1]['step']} {events[-1]['state']}")
    if task["status"] == "failed":
        raise HostError(ErrorCode.UNAVAILABLE, f"the task failed: {task.get('message')}")
    return True if task["status"] == "running" and task["ready"] else None


def seen(bridge: BridgeClient, task_id: str, text: str) -> None:
    """Wait until the preview shows `text`."""
    last: list[Any] = [None]

    def look() -> bool | None:
        last[0] = bridge.preview(task_id, "web")
        return True if last[0][0] == 200 and text in last[0][1] else None

    try:
        wait_for(f"“{text}” in the preview", look, _TURN)
    except HostError as error:
        raise HostError(error.code, f"{error.message}; last seen: {str(last[0])[:300]}") from None


def asked(bridge: BridgeClient, task_id: str) -> dict[str, Any] | None:
    """The permission that an agent waits for."""
    for event in bridge.call("GET", f"/api/tasks/{task_id}")["events"]:
        if event["type"] == "permission.requested":
            return dict(event)
    return None


def answered(bridge: BridgeClient, task_id: str) -> str | None:
    """What an agent said last, once it is idle again."""
    events = bridge.call("GET", f"/api/tasks/{task_id}")["events"]
    said = [e["text"] for e in events if e["type"] == "channel.message" and e["author"]["kind"] == "agent"]
    states = [e["state"] for e in events if e["type"] == "channel.activity"]
    return str(said[-1]) if said and states and states[-1] == "idle" else None


def down(bridge: BridgeClient, task_id: str) -> str:
    """Take the task down and check that its work was kept."""
    answer = bridge.call("POST", f"/api/tasks/{task_id}/down", {}, timeout=120)
    if answer["status"] != "stopped":
        raise HostError(ErrorCode.INTERNAL, f"the task is {answer['status']}, not stopped")
    for saved in answer["saved"]:
        kept = saved["wip"] or saved["branch"]
        subprocess.run(
            ["git", "-C", saved["repository"], "rev-parse", "--verify", "--quiet", f"refs/heads/{kept}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return "kept " + ", ".join(f"{s['slug']}: {s['wip'] or s['branch']}" for s in answer["saved"])


@contextlib.contextmanager
def sample_repository(folders: Folders) -> Iterator[Path]:
    """A git repository with the sample app, removed afterwards."""
    target = folders.samples / new_id()
    make_sample(target)
    try:
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


def make_sample(target: Path) -> None:
    """Make a git repository with the sample app in a folder that does not exist yet."""
    shutil.copytree(Path(__file__).parent / "sample", target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "uai").rename(target / ".uai")
    (target / ".uai" / "start").chmod(0o755)
    identity = ["-c", "user.name=Sample", "-c", "user.email=sample@localhost"]
    commit = [*identity, "commit", "-qm", "Open the shop"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], commit):
        subprocess.run(["git", "-C", str(target), *arguments], check=True)


@contextlib.contextmanager
def running_bridge(folders: Folders, console: Console) -> Iterator[BridgeClient]:
    """The bridge that `uaihost up` runs; one is started for the time of the block when there is none."""
    client = find_bridge(folders)
    if client is not None:
        yield client
        return
    console.print("no bridge runs here: starting one for the tour")
    process = subprocess.Popen([sys.executable, "-m", "uaihost.cli", "up"], start_new_session=True)

    def look() -> BridgeClient | None:
        if process.poll() is not None:
            raise HostError(ErrorCode.UNAVAILABLE, f"`uaihost up` ended with status {process.returncode}")
        return find_bridge(folders)

    try:
        yield wait_for("the bridge", look, _FIRST_START)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def find_bridge(folders: Folders) -> BridgeClient | None:
    """The bridge of this data folder, if it answers and a host is connected to it."""
    try:
        port = int(folders.bridge_port.read_text(encoding="ascii"))
        client = BridgeClient(port, folders.bridge_key.read_text(encoding="ascii").strip())
    except (FileNotFoundError, ValueError):
        return None
    if not client.alive():
        return None
    hosts = client.call("GET", "/api/state")["hosts"]
    return client if any(host["connected"] for host in hosts) else None
