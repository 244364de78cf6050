"""The container engine: tasks' containers and networks, through the Docker SDK behind the thread boundary.

The only user of the SDK at run time. A container is known by its name and labels alone: nothing is kept in
memory, so a restarted daemon finds everything again. It must not know tasks' states, agents or ports' names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import docker
import docker.errors
from twisted.internet.task import deferLater
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.containers import spec
from uaihost.containers.client import connect, explained
from uaihost.containers.waiting import Waiting, frames
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Launch, Ran, Usage

log = Logger()
T = TypeVar("T")

# Seconds for a command in a container: the longest are a person's `git` calls on a big tree.
EXECUTE_LIMIT = 300.0
# Seconds between two questions for an exit status.
STATUS_POLL = 0.05
# Bytes that such a command may print, both streams together.
OUTPUT_LIMIT = 16 << 20
# Seconds for the engine's statistics: it measures for one, more when many containers ask at once.
USAGE_LIMIT = 20.0
# Attempts to make a network when another program takes the same addresses in between.
NETWORK_TRIES = 8
# Attempts, a tenth of a second apart, to remove what the engine is still taking down.
REMOVE_TRIES = 50


class DockerEngine:
    """The engine at `docker_host`, for the tasks of one host (provides interfaces.Engine).

    blocking: its own threads, a few; connect: makes the SDK's client, for tests.
    """

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        docker_host: str,
        host_id: str,
        *,
        pool: str = spec.POOL,
        connect: Callable[[str], docker.APIClient] = connect,
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._docker_host = docker_host
        self._host_id = host_id
        self._pool = pool
        self._connect = connect
        self._made: docker.APIClient | None = None
        self._waiting = Waiting(reactor, docker_host)

    async def ping(self) -> str:
        return await self._call("ask the engine's version", lambda client: str(client.version()["Version"]))

    async def launch(self, launch: Launch) -> Container:
        return await self._call(f"start the container of task {launch.task_id}", self._launch, launch)

    async def find(self, task_id: str) -> Container | None:
        return await self._call(f"look for the container of task {task_id}", self._find, task_id)

    async def all(self) -> list[Container]:
        return await self._call("list the containers", self._all)

    async def remove(self, task_id: str) -> None:
        await self._call(f"remove the container of task {task_id}", self._remove, task_id)

    async def sweep(self, known: set[str]) -> list[str]:
        return await self._call("remove what belongs to no task", self._sweep, frozenset(known))

    async def usage(self, task_id: str) -> Usage:
        found = await self.find(task_id)
        if found is None or found.state != "running":
            raise HostError(ErrorCode.NOT_FOUND, f"the container of task {task_id} does not run")
        stats = await self._waiting.json(
            "GET", f"/containers/{quote(found.id)}/stats?stream=false", timeout=USAGE_LIMIT
        )
        return spec.usage(stats)

    async def execute(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        doing = f"run {argv[0]} in task {task_id}"
        made = await self._call(doing, self._exec, task_id, argv, env, cwd)
        stream = await self._waiting.request(
            "POST",
            f"/exec/{quote(made)}/start",
            {"Detach": False, "Tty": False},
            timeout=EXECUTE_LIMIT,
            limit=OUTPUT_LIMIT,
        )
        out, err = frames(stream)
        return Ran(status=await self._status(doing, made), out=out, err=err)

    async def start_process(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        def start(client: docker.APIClient) -> None:
            client.exec_start(self._exec(client, task_id, argv, env, cwd), detach=True)

        await self._call(f"start {argv[0]} in task {task_id}", start)

    async def log_tail(self, task_id: str, lines: int) -> str:
        def read(client: docker.APIClient) -> str:
            data: bytes = client.logs(self._name(task_id), stdout=True, stderr=True, tail=lines)
            return data.decode("utf-8", "replace")

        return await self._call(f"read the log of task {task_id}", read)

    async def _status(self, doing: str, made: str) -> int:
        """The exit status of a command whose output has ended; the engine knows it a moment later."""
        limit = self._reactor.seconds() + EXECUTE_LIMIT
        while self._reactor.seconds() < limit:
            ended = await self._call(doing, lambda client: client.exec_inspect(made))
            if not ended["Running"]:
                return int(ended["ExitCode"] or 0)
            await deferLater(self._reactor, STATUS_POLL)
        raise HostError(ErrorCode.TIMEOUT, f"cannot {doing}: it did not end in {EXECUTE_LIMIT:.0f} s")

    # ---- in a thread ---------------------------------------------------------------------------------------

    def _launch(self, client: docker.APIClient, launch: Launch) -> Container:
        """The running container; whatever fails, nothing of it stays."""
        try:
            if not self._wake(client, launch):
                self._make(client, launch)
            # The engine chooses new host ports at every start.
            started = self._find(client, launch.task_id)
        except Exception:
            self._clear(client, launch.task_id)
            raise
        if started is None or started.state != "running":
            said = self._last_words(client, launch.task_id)
            self._clear(client, launch.task_id)
            raise HostError(
                ErrorCode.UNAVAILABLE, f"the container of task {launch.task_id} ended at once. {said}".strip()
            )
        return started

    def _wake(self, client: docker.APIClient, launch: Launch) -> bool:
        """Whether the task's container runs now. One that cannot go on is removed: the work lies outside.

        One that runs is kept as it is; one that has to be started must fit the launch.
        """
        try:
            inspected = client.inspect_container(self._name(launch.task_id))
        except docker.errors.NotFound:
            return False
        state = inspected["State"]["Status"]
        if state == "running":
            return True
        problem: object = "it was made with other settings"
        # A paused one still has its processes.
        if state == "paused" or spec.fits(inspected, launch, self._host_id):
            try:
                if state == "paused":
                    client.unpause(inspected["Id"])
                else:
                    client.start(inspected["Id"])
                return True
            except docker.errors.APIError as error:
                problem = error  # Its network is gone, or its making was cut short.
        log.info("making the container of {task} anew: {problem}", task=launch.task_id, problem=problem)
        self._remove(client, launch.task_id)
        return False

    def _make(self, client: docker.APIClient, launch: Launch) -> None:
        if launch.network == "own":
            self._network(client, launch.task_id)
        config = spec.container_config(launch, self._host_id)
        made = client.create_container_from_config(config, self._name(launch.task_id))
        client.start(made["Id"])

    def _network(self, client: docker.APIClient, task_id: str) -> None:
        name = self._name(task_id)
        refused: set[str] = set()
        for _ in range(NETWORK_TRIES):
            networks = client.networks()
            if any(network["Name"] == name for network in networks):
                # Left by a launch that was cut short. Names of networks need not be unique: never a second.
                self._remove_network(client, name)
            taken = spec.subnets(networks)
            subnet = spec.free_subnet(task_id, [*taken, *refused], self._pool)
            if subnet is None:
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"all addresses for tasks' networks ({self._pool}) are in use: take finished tasks down",
                )
            ipam: Any = spec.network_ipam(subnet)
            try:
                client.create_network(
                    name,
                    driver="bridge",
                    options=spec.network_options(self._host_id, task_id),
                    ipam=ipam,
                    labels=spec.labels(self._host_id, task_id),
                )
                return
            except docker.errors.APIError as error:
                if not _overlaps(error):
                    raise
                refused.add(subnet)
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"no network for task {task_id}: other networks overlap each try in {self._pool}; "
            "remove unused ones with `docker network prune`",
        )

    def _find(self, client: docker.APIClient, task_id: str) -> Container | None:
        try:
            inspected = client.inspect_container(self._name(task_id))
        except docker.errors.NotFound:
            return None
        return spec.container(inspected)

    def _all(self, client: docker.APIClient) -> list[Container]:
        found = []
        for entry in client.containers(all=True, filters=spec.filters(self._host_id)):
            try:
                found.append(spec.container(client.inspect_container(entry["Id"])))
            except docker.errors.NotFound:
                pass  # Removed since it was listed.
        return found

    def _sweep(self, client: docker.APIClient, known: frozenset[str]) -> list[str]:
        ours = spec.filters(self._host_id)
        found = {entry["Labels"][spec.LABEL_TASK] for entry in client.containers(all=True, filters=ours)}
        # A launch that was cut short leaves a network alone.
        found |= {entry["Labels"][spec.LABEL_TASK] for entry in client.networks(filters=ours)}
        swept = sorted(found - known)
        for task_id in swept:
            self._remove(client, task_id)
        return swept

    def _remove(self, client: docker.APIClient, task_id: str) -> None:
        name = self._name(task_id)
        for _ in range(REMOVE_TRIES):
            try:
                client.remove_container(name, force=True, v=True)
            except docker.errors.NotFound:
                break
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                time.sleep(0.1)  # Another removal of it is under way.
        self._remove_network(client, name)

    def _remove_network(self, client: docker.APIClient, name: str) -> None:
        for network in client.networks(names=[name]):
            if network["Name"] != name:
                continue  # The filter also matches parts of names.
            for attempt in range(REMOVE_TRIES):
                try:
                    client.remove_network(network["Id"])
                    break
                except docker.errors.NotFound:
                    break
                except docker.errors.APIError as error:
                    # 403: the container's end is still being taken down.
                    if error.status_code != 403 or attempt == REMOVE_TRIES - 1:
                        raise
                    time.sleep(0.1)

    def _clear(self, client: docker.APIClient, task_id: str) -> None:
        """Remove after a failure, whose own error is the one that counts."""
        try:
            self._remove(client, task_id)
        except Exception as error:
            log.warn("cannot clear up after task {task}: {error}", task=task_id, error=error)

    def _last_words(self, client: docker.APIClient, task_id: str) -> str:
        try:
            said: bytes = client.logs(self._name(task_id), tail=5)
        except docker.errors.APIError:
            return ""
        return f"It printed:\n{said.decode('utf-8', 'replace').strip()}" if said else ""

    def _exec(
        self,
        client: docker.APIClient,
        task_id: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | None,
    ) -> str:
        made = client.exec_create(
            self._name(task_id), list(argv), environment=dict(env or {}) or None, workdir=cwd
        )
        return str(made["Id"])

    # ---- the boundary --------------------------------------------------------------------------------------

    def _name(self, task_id: str) -> str:
        return spec.container_name(self._host_id, task_id)

    async def _call(self, doing: str, function: Callable[..., T], *args: Any) -> T:
        return await self._blocking.call(self._in_thread, doing, function, *args)

    def _in_thread(self, doing: str, function: Callable[..., T], *args: Any) -> T:
        try:
            # Two first calls may both make a client; one of them is then simply not kept.
            client = self._made = self._made or self._connect(self._docker_host)
            return function(client, *args)
        except Exception as error:
            raise explained(error, doing) from error


def _overlaps(error: docker.errors.APIError) -> bool:
    said = str(error.explanation or "")
    return "overlap" in said or "conflicts with network" in said
