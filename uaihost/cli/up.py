"""`uaihost up`: the whole product on one machine: engine, images, bridge and host in one process."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import attrs
import click
from rich.console import Console

from uaihost.app import Host
from uaihost.bridge.service import bridge_settings, make_bridge
from uaihost.cli.local import settings
from uaihost.cli.loop import run_until_signalled
from uaihost.cli.progress import Steps
from uaihost.cli.terminals import terminal
from uaihost.config import Settings
from uaihost.containers.client import answers
from uaihost.containers.setup import EngineHandle, find_or_start_engine, stop_engine
from uaihost.errors import ErrorCode, HostError
from uaihost.exits import Exits
from uaihost.logs.observers import ProcessLog
from uaihost.paths import Folders


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="The bridge's port (default: 8789).")
def up(port: int | None) -> None:
    """Run bridge and host in one process and print the link of the page."""
    console = terminal()
    wanted = settings()
    if port is not None:
        wanted = attrs.evolve(wanted, bridge_port=port)
    if wanted.docker_host and not answers(wanted.docker_host):
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"no container engine answers at {wanted.docker_host}; start it, or leave DOCKER_HOST out and "
            "one is found or started",
        )
    folders = Folders(wanted.data_dir)
    folders.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    process_log = ProcessLog(wanted.log_level)
    product = Product(wanted, folders, Steps(console), console, process_log)
    run_until_signalled(product.start, product.stop, process_log)


class Product:
    """What `up` starts, in order, and stops in the opposite one."""

    def __init__(
        self, wanted: Settings, folders: Folders, steps: Steps, console: Console, process_log: ProcessLog
    ) -> None:
        self._settings = wanted
        self._folders = folders
        self._steps = steps
        self._console = console
        self._log = process_log
        self._reactor: Any = None
        self._engine: EngineHandle | None = None
        self._services: list[Any] = []
        # Until then what goes wrong is this command's own failure, told once.
        self._up = False

    async def start(self, reactor: Any, exits: Exits) -> None:
        """Bring everything up, showing each step."""
        self._reactor = reactor
        with self._steps.step("container engine") as step:
            self._engine = await find_or_start_engine(
                reactor, self._folders.engine, step.say, self._environment()
            )
            step.result = self._engine.docker_host
        token = local_token(self._folders.host_token)
        home = Path.home()
        roots = {*self._settings.local_repositories, home, Path.cwd(), self._folders.samples}
        mine = attrs.evolve(
            self._settings,
            token=token,
            docker_host=self._engine.docker_host,
            cloud_url=f"ws://127.0.0.1:{self._settings.bridge_port}/host",
            local_repositories=tuple(sorted(roots)),
        )
        with self._steps.step("bridge") as step:
            wanted = bridge_settings(mine.data_dir, mine.bridge_port, token)
            bridge = make_bridge(reactor, wanted)
            self._log.redactor.learn(wanted.key)
            await self._begin(bridge)
            step.result = f"port {mine.bridge_port}"
        with self._steps.step("host"):
            host = Host(
                reactor,
                mine,
                on_fatal=lambda why: exits.refuse(why) if self._up else None,
                process_log=self._log,
            )
            await self._begin(host)
            await host.connected()
            self._up = True
        self._console.print(
            f"\nOpen [bold]http://localhost:{mine.bridge_port}/?key={wanted.key}[/]",
            highlight=False,
            soft_wrap=True,
        )
        if host.page is not None:
            self._console.print(f"[dim]This host: {host.page}[/]", highlight=False, soft_wrap=True)
        self._console.print("[dim]Ctrl-C stops; tasks and their work stay.[/]\n")
        # The page is there meanwhile, and a task that needs the image says that it waits for it.
        await self._prepare(host)

    async def _prepare(self, host: Host) -> None:
        try:
            with self._steps.step("task image") as step:
                step.result = await host.prepare(step.say)
        except HostError:
            # It was told, and a task tries again.
            self._console.print("[dim]Tasks cannot start before that is put right; each tries again.[/]")

    async def stop(self) -> None:
        """Stop what was started; an engine that was running before goes on."""
        self._console.print("stopping")
        for service in reversed(self._services):
            await service.stopService()
        if self._engine is not None:
            await stop_engine(self._reactor, self._engine)

    def _environment(self) -> dict[str, str]:
        """The environment with the engine's address, wherever that was set."""
        given = self._settings.docker_host
        return {**os.environ, "DOCKER_HOST": given} if given else dict(os.environ)

    async def _begin(self, service: Any) -> None:
        self._services.append(service)
        service.startService()
        await service.started()


def local_token(path: Path) -> str:
    """The token between the bridge and the host of one machine, made on first use."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = ""
    if not token:
        token = secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
    return token
