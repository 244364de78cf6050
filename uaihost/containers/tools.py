"""Tool versions that tasks share: installed by the host before a task's set-up, each once, never by a task.

A version is installed in a container of its own: the task image and its limits, no repository, no secret, and
of the shared folder only an empty one that nobody else sees, at the path where tasks will see the result. So
a repository decides names and versions from a closed list and nothing else, and neither a task nor a tool's
own installer can change what other tasks get. It must not know tasks' states.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.blocking import Blocking
from uaihost.containers.tool_store import INSTALLS, STAGED, Project, ToolStore, ToolVersion
from uaihost.containers.tool_versions import Request, Wanted, read
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Engine, Launch, Limits, Mount, Ran, Say
from uaihost.paths import Folders
from uaihost.wire.reasons import Reason

__all__ = ["Installed", "ToolVersion", "Tools"]

log = Logger()

MISE = "/usr/local/bin/mise"
# Installers at one time, all tasks together: each is a container.
INSTALLERS = 2
# Seconds for which a version that could not be installed is not tried again: a task's start is not slowed by
# it each time, and a mirror that was down is asked again soon.
REFUSED_LIMIT = 600.0
# No task can have such an id (paths.checked_task), so that the engine's names never meet.
PREFIX = "_tools-"
# Characters of what mise said.
REASON_LIMIT = 300
# For mise in an installer: the image's own settings keep it from the network, and a home that is empty.
ENVIRONMENT = {"MISE_OFFLINE": "0", "MISE_SAFE": "1", "MISE_YES": "1", "MISE_JOBS": "2"}


@attrs.frozen
class Installed:
    """By project slug: tools with whole versions, and sentences about what could not be had."""

    projects: Mapping[str, Project]


class _Run:
    """One installation that is under way, and who waits for it."""

    def __init__(self) -> None:
        self.listeners: list[Say] = []
        self.waiting: list[Deferred[str]] = []

    def say(self, text: str | Doing) -> None:
        for listener in self.listeners:
            listener(text)


class Tools:
    """image: gives the task image's reference, which has mise. env: for mise in installers, a mirror for
    example. closed: why nothing can be installed on this host, as a sentence; empty when it can. uid, gid,
    limits: as tasks' containers have them. clock: seconds since the epoch.
    """

    def __init__(
        self,
        blocking: Blocking,
        engine: Engine,
        folders: Folders,
        image: Callable[[Say], Awaitable[str]],
        *,
        uid: int,
        gid: int,
        limits: Limits | None = None,
        closed: str = "",
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        token: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        self._blocking = blocking
        self._engine = engine
        self._image = image
        self._uid = uid
        self._gid = gid
        self._limits = limits or Limits()
        self._closed = closed
        self._env = {**ENVIRONMENT, **(env or {})}
        self._clock = clock
        self._token = token
        self._store = ToolStore(folders, uid, gid, clock)
        self._turns = DeferredSemaphore(INSTALLERS)
        self._runs: dict[Request, _Run] = {}
        self._refused: dict[Request, tuple[str, float]] = {}
        self.busy: set[str] = set()

    async def ensure(self, task_id: str, projects: Sequence[Path], say: Say) -> Installed:
        """Install what the work copies at `projects` name and is missing; tell the task's first process.

        What cannot be had is a note for the people of that project, never an error.

        Args:
            projects: folders, each named as its project's slug.
        """
        wanted = await self._blocking.call(_read_all, projects)
        requests = dict.fromkeys(request for one in wanted.values() for request in one.requests)
        found = await self._blocking.call(self._store.answers, requests)
        why: dict[Request, str] = {}

        async def get(request: Request) -> None:
            try:
                found[request] = await self._shared(request, say)
            except HostError as error:
                why[request] = error.message
                old = await self._blocking.call(self._store.old_answer, request)
                if old is not None:
                    found[request] = old

        missing = [request for request in requests if request not in found]
        every = [Deferred.fromCoroutine(get(request)) for request in missing]
        try:
            await gatherResults(every, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        installed = Installed({slug: _project(one, found, why) for slug, one in wanted.items()})
        await self._blocking.call(self._store.settle, task_id, installed.projects)
        return installed

    async def list(self) -> list[ToolVersion]:
        """Every version that is there, the one that was not used for longest first."""
        return await self._blocking.call(self._store.list)

    async def remove(self, name: str, version: str) -> None:
        """Delete a version; HostError `conflict` when a task has it."""
        await self._blocking.call(self._store.remove, name, version)

    async def sweep(self) -> None:
        """Delete what a daemon that was killed left behind on disk."""
        await self._blocking.call(self._store.sweep, frozenset(self.busy))

    async def stop(self) -> None:
        """End what is being installed; it is installed anew when it is next asked for."""
        for name in sorted(self.busy):
            await self._engine.remove(name)

    def _shared(self, request: Request, say: Say) -> Deferred[str]:
        """The version that is installed for the request; all who ask meanwhile wait for the same."""
        run = self._runs.get(request)
        waiter: Deferred[str] = Deferred()
        if run is not None:
            run.listeners.append(say)
            run.waiting.append(waiter)
            return waiter
        run = self._runs[request] = _Run()
        run.listeners.append(say)
        run.waiting.append(waiter)

        def over(result: str | Failure) -> None:
            del self._runs[request]
            for one in run.waiting:
                # One that was cancelled hears nothing any more.
                if not one.called:
                    one.callback(result)

        # Not the caller's: when its command is cancelled the others still wait.
        Deferred.fromCoroutine(self._install(request, run.say)).addBoth(over)
        return waiter

    async def _install(self, request: Request, say: Say) -> str:
        if self._closed:
            raise HostError(ErrorCode.UNAVAILABLE, self._closed)
        said, at = self._refused.get(request, ("", 0.0))
        if said and self._clock() - at < REFUSED_LIMIT:
            raise HostError(ErrorCode.UNAVAILABLE, said)
        await self._turns.acquire()
        try:
            say(Doing(Reason.TOOLS, f"installing {request}"))
            version = await self._in_container(request, say)
            say(f"installed {request.name} {version}")
            return version
        except OSError as error:
            raise HostError(ErrorCode.UNAVAILABLE, f"the host's disk: {error.strerror}") from error
        finally:
            self._turns.release()

    async def _in_container(self, request: Request, say: Say) -> str:
        image = await self._image(say)
        name = PREFIX + self._token()
        self.busy.add(name)
        stage = await self._blocking.call(self._store.stage, name)
        try:
            await self._engine.launch(self._launch(name, image, stage))
            words = [MISE, "install", "--shared", f"{STAGED['tools']}/{INSTALLS}", str(request)]
            ran = await self._engine.execute(name, words, env=self._env, cwd="/tmp")
            # Nothing may write there while it is taken over.
            await self._engine.remove(name)
            if ran.status != 0:
                said = _reason(ran)
                self._refused[request] = (said, self._clock())
                raise HostError(ErrorCode.UNAVAILABLE, said)
            return await self._blocking.call(self._store.adopt, stage, request)
        finally:
            try:
                await self._engine.remove(name)
                await self._blocking.call(self._store.discard, stage)
            except HostError as error:
                # The sweep at the next start finds both.
                log.warn("cannot clear up after {name}: {why}", name=name, why=error.message)
            self.busy.discard(name)

    def _launch(self, name: str, image: str, stage: Path) -> Launch:
        return Launch(
            task_id=name,
            image=image,
            uid=self._uid,
            gid=self._gid,
            mounts=tuple(Mount(str(stage / part), target) for part, target in STAGED.items()),
            ports=(),
            env={"UAI_EDITOR": "0"},
            limits=self._limits,
            read_only=True,
        )


def _read_all(projects: Sequence[Path]) -> dict[str, Wanted]:
    return {folder.name: read(folder) for folder in projects}


def _project(wanted: Wanted, found: Mapping[Request, str], why: Mapping[Request, str]) -> Project:
    """What a project gets, and what is said of it."""
    tools = {request: found[request] for request in wanted.requests if request in found}
    notes = list(wanted.notes)
    for request in wanted.requests:
        if request in why:
            instead = f"{tools[request]} stays" if request in tools else "the image's own is used"
            notes.append(
                f"{request.name} {request.version} could not be installed, {instead}: {why[request]}"
            )
    every = dict.fromkeys((request.name, version) for request, version in tools.items())
    return Project(tuple(every), tuple(notes))


def _reason(ran: Ran) -> str:
    """mise's own sentence, without its name and what it says of itself."""
    lines = (ran.err + ran.out).decode("utf-8", "replace").splitlines()
    errors = [line.partition("mise ERROR ")[2] for line in lines if "mise ERROR " in line]
    said = next(iter(errors), lines[-1] if lines else "it said nothing")
    plain = "".join(sign if sign.isprintable() else "?" for sign in said.strip())[:REASON_LIMIT]
    return f"mise ended with status {ran.status}: {plain}"
