"""Verbs about this machine's host: what it does, and ports of this machine as previews.

They speak to the running daemon over its Unix socket; `expose` and `unexpose` also work without one, on the
database itself, under the lock that keeps two daemons apart.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Coroutine
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import attrs
import click

from uaihost import config
from uaihost.cli.absence import nobody
from uaihost.cli.lines import line
from uaihost.cli.said import Said, echo, echo_json, says
from uaihost.errors import ErrorCode, HostError
from uaihost.offline import OfflineExposures
from uaihost.paths import Folders

T = TypeVar("T")

# Bytes that a file with a key may have: it holds one line.
KEY_LIMIT = 64 << 10


def settings() -> config.Settings:
    """The settings as the environment and the TOML file have them."""
    return config.load({}, os.environ, home=Path.home(), root=os.geteuid() == 0)


def at_work() -> config.Settings:
    """The settings, with the engine that the running host uses where none is named."""
    wanted = settings()
    try:
        status = ask(Folders(wanted.data_dir).control_socket, "GET", "/api/status")
    except HostError:
        status = None
    return with_engine(wanted, status)


def with_engine(wanted: config.Settings, status: Any) -> config.Settings:
    """The settings, with the engine of a host that says so. status: None where none runs."""
    if wanted.docker_host or not status:
        return wanted
    return attrs.evolve(wanted, docker_host=status["engine"]["address"])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def status(as_json: bool) -> None:
    """Show what the host on this machine is doing."""
    answer = ask(Folders(settings().data_dir).control_socket, "GET", "/api/status")
    if answer is None:
        raise nobody()
    page = daemon("GET", "/api/page")["url"]
    if as_json:
        echo_json({**answer, "page": page}, indent=2)
        return
    bridge = answer["bridge"]
    echo(f"host    {answer['hostId']}  (uaihost {answer['version']})")
    echo(
        f"bridge  {bridge['url']}  {bridge['state']}" + (f": {bridge['reason']}" if bridge["reason"] else "")
    )
    echo(f"outbox  {answer['outbox']} waiting     tunnels {answer['tunnels']} open")
    echo(f"page    {page or 'none: no free port for it'}")
    for task in answer["tasks"]:
        echo(f"task    {line(task, time.time())}")
    for warned in answer["warnings"]:
        echo(f"{'warning' if warned['level'] == 'bad' else 'note':<8}{warned['text']}; {warned['fix']}")
    if not answer["warnings"] and bridge["state"] == "connected":
        echo("all is well")


@click.command()
@click.option("--task", "task_id", required=True, help="The name of the task: letters, digits, - and _.")
@click.argument("ports", nargs=-1, required=True, metavar="NAME=PORT...")
@says
def expose(task_id: str, ports: tuple[str, ...]) -> Said:
    """Make ports served on this machine previews of a task without a container.

    The name `editor` is reached as the task's editor, every other name as a preview.
    """
    wanted = dict(_port(text) for text in ports)
    if len(wanted) != len(ports):
        raise click.UsageError("a name stands twice")
    folders = Folders(settings().data_dir)
    path = f"/api/exposed/{quote(task_id, safe='')}"
    if ask(folders.control_socket, "PUT", path, {"ports": wanted}) is None:
        run_now(OfflineExposures(folders, _WallClock()).expose(task_id, wanted))
    lines = [f"{task_id}: {name} -> 127.0.0.1:{port}" for name, port in wanted.items()]
    return {"task": task_id, "ports": wanted}, "\n".join(lines)


@click.command()
@click.argument("task_id", metavar="ID")
@says
def unexpose(task_id: str) -> Said:
    """Take back what `expose` made of a task."""
    folders = Folders(settings().data_dir)
    if ask(folders.control_socket, "DELETE", f"/api/exposed/{quote(task_id, safe='')}") is None:
        run_now(OfflineExposures(folders, _WallClock()).unexpose(task_id))
    return {"task": task_id}, f"{task_id}: not exposed any more"


def ask(control: Path, method: str, path: str, body: Any = None, patience: float = 30.0) -> Any:
    """The daemon's answer, or None when no daemon runs. patience: seconds without a word of it.

    Raises:
        HostError: the daemon refused, with its own sentence.
    """
    connection = _UnixConnection(control, patience)
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body))
        answer = json.loads(connection.getresponse().read())
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"{control} belongs to another user; run this as the user that runs the host",
        ) from None
    finally:
        connection.close()
    if "error" in answer:
        raise HostError(ErrorCode(answer["error"]["code"]), answer["error"]["message"])
    return answer


def daemon(method: str, path: str, body: Any = None, patience: float = 30.0) -> Any:
    """The daemon's answer; HostError when none runs, or with its refusal."""
    answer = ask(Folders(settings().data_dir).control_socket, method, path, body, patience)
    if answer is None:
        raise nobody()
    return answer


def verb(name: str, words: dict[str, Any], patience: float = 30.0) -> Any:
    """Ask the running daemon for one of its verbs by name; errors as those of `daemon`."""
    return daemon("POST", f"/api/verbs/{quote(name, safe='')}", words, patience)


def fetch(path: str, target: Path) -> None:
    """Save what the daemon has at this path as a new file, readable by its owner alone; nothing half stays.

    Raises:
        HostError: the daemon has it not, or is gone. FileExistsError.
    """
    partial = target.with_name(f"{target.name}.partial")
    connection = _UnixConnection(Folders(settings().data_dir).control_socket, 300.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            error = json.loads(answer.read())["error"]
            raise HostError(ErrorCode(error["code"]), error["message"])
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            while piece := answer.read(1 << 20):
                file.write(piece)
            if file.tell() != int(answer.getheader("content-length") or -1):
                raise IncompleteRead(b"")
        # Not replaced: what is there may be somebody's only copy.
        os.link(partial, target)
    except (ConnectionError, IncompleteRead) as error:
        raise HostError(ErrorCode.UNAVAILABLE, f"the host went away meanwhile: {error}; try again") from None
    finally:
        partial.unlink(missing_ok=True)
        connection.close()


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing, because its blocking calls are made inline."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited")


def one_line(file: BinaryIO) -> str:
    """The one line of a file with a secret, without the ends that editors add.

    Raises:
        HostError: `invalid_args`, it holds something else.
    """
    data = file.read(KEY_LIMIT + 1)
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > KEY_LIMIT or len(text.splitlines()) != 1:
        raise HostError(
            ErrorCode.INVALID_ARGS, "the file must hold the key alone, on one line; nothing was changed"
        )
    return text


class _WallClock:
    """The one thing of a reactor that rows need: the time."""

    def seconds(self) -> float:
        return time.time()


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 65535:
        raise click.UsageError(f"{text!r} is not NAME=PORT with a port from 1 to 65535")
    return name, int(number)


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
