"""A plan's way to a container that is ready: who is asked in which order, and what runs side by side.

admission -> image -> (work copies, tools | container, isolation check) -> the gate -> set-up. It knows the
neighbours and the steps' names; states and what is undone after a failure are its caller's (commands.tasks).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from uaihost.commands.lanes import side_by_side, to_the_end
from uaihost.commands.neighbours import Forwarded, Report
from uaihost.commands.places import TaskPlaces
from uaihost.commands.plan import Plan
from uaihost.commands.progress import Progress
from uaihost.commands.surroundings import Surroundings
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Doing, Launch, Say
from uaihost.wire.inputs import Project
from uaihost.wire.reasons import Reason

log = Logger()

# Seconds between two questions to an engine that does not answer.
ENGINE_POLL = 1.0


class Startup:
    """on_report: stores the isolation report of a container, whatever it says."""

    def __init__(
        self,
        clock: IReactorTime,
        around: Surroundings,
        places: TaskPlaces,
        on_report: Callable[[str, Report], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._around = around
        self._places = places
        self._on_report = on_report

    async def admit(self, progress: Progress) -> None:
        """Wait until the machine can carry the task, and until the engine answers."""
        admission, limits = self._around.admission, self._around.limits
        if admission is not None:
            await progress.step("admission", Reason.MEMORY, lambda say: admission.admit(limits, say))
        try:
            await self._around.engine.ping()
        except HostError as error:
            first = error.message
            await progress.step("engine", Reason.ENGINE, lambda say: self._engine(first, say))

    async def make(self, plan: Plan, progress: Progress, *, copies: bool) -> Container:
        """A container behind a closed gate, with the work copies in it.

        copies: they are made where they are missing; else they are there. Of what an earlier container of
        the task left only the work copies, its home and what was attached stay.
        """
        image, _ = await side_by_side(
            [
                progress.step("image", Reason.IMAGE_BUILDING, lambda say: self._image(say)),
                self._clean(plan, fresh=copies),
            ]
        )
        _, container = await side_by_side(
            [self._work(plan, progress, copies=copies), self._container(plan, str(image), progress)]
        )
        assert container is not None
        return container

    async def finish(self, plan: Plan, progress: Progress) -> Sequence[Forwarded]:
        """Open the gate and wait for the set-up in the container; the ports that its repositories name."""
        await self._places.open_gate(plan.task_id)

        async def ready(say: Say) -> Sequence[Forwarded]:
            return await self._around.readiness.ready(plan.task_id, progress.inner(say))

        return await progress.step("setup", Reason.SETUP, ready)

    async def _engine(self, said: str, say: Say) -> None:
        while True:
            say(Doing(Reason.ENGINE, said))
            await deferLater(self._clock, ENGINE_POLL)
            try:
                await self._around.engine.ping()
                return
            except HostError as error:
                said = error.message

    async def _image(self, say: Say) -> str:
        return await self._around.images.ensure(say)

    async def _clean(self, plan: Plan, *, fresh: bool) -> None:
        # One that is left over was made for another plan, perhaps, or by an older daemon; the work lies
        # outside of it.
        await to_the_end(self._around.engine.remove(plan.task_id))
        await self._places.make(plan.task_id, fresh=fresh)

    async def _work(self, plan: Plan, progress: Progress, *, copies: bool) -> None:
        workspaces, tools = self._around.workspaces, self._around.tools

        async def copy(project: Project) -> None:
            async def prepare(say: Say) -> None:
                made = await workspaces.prepare(
                    plan.task_id,
                    project.slug,
                    project.repoUrl,
                    plan.branch,
                    plan.identity,
                    say,
                    plan.owner,
                )
                for note in made.notes:
                    await self._around.channels.note(plan.task_id, f"{project.slug}: {note}")

            await progress.step(f"clone {project.slug}", Reason.CLONING, prepare)

        if copies:
            await side_by_side([copy(project) for project in plan.projects])
        if tools is None:
            return
        folders = [self._around.folders.work_copy(plan.task_id, project.slug) for project in plan.projects]
        try:
            await progress.step("tools", Reason.TOOLS, lambda say: tools.ensure(plan.task_id, folders, say))
        except HostError as error:
            # The image's own tools are there: the task is of use without these.
            await self._around.channels.note(plan.task_id, f"Tool versions are missing: {error.message}")

    async def _container(self, plan: Plan, image: str, progress: Progress) -> Container:
        around, egress, broker = self._around, self._around.egress, self._around.broker
        network: Literal["own", "none"] = "own" if egress is None or egress.mode == "open" else "none"
        launch = Launch(
            task_id=plan.task_id,
            image=image,
            uid=around.uid,
            gid=around.gid,
            mounts=plan.mounts(around.folders),
            ports=tuple(sorted(plan.container_ports)),
            env={
                **({} if broker is None else broker.environment(plan.env)),
                **plan.env,
                **({} if egress is None else egress.environment()),
            },
            limits=around.limits,
            network=network,
            read_only=True,
        )

        async def start(say: Say) -> Container:
            say("; ".join(plan.hidden))
            if egress is not None:
                await egress.open(plan.task_id)
            if broker is not None:
                await broker.open(plan.grant)
            return await to_the_end(around.engine.launch(launch))

        async def check(say: Say) -> None:
            assert around.isolation is not None
            report = await around.isolation.check(
                plan.task_id, network=network, uid=around.uid, gid=around.gid, limits=around.limits
            )
            await self._on_report(plan.task_id, report)
            if not report.passed:
                raise HostError(ErrorCode.UNAVAILABLE, _open(report))

        container = await progress.step("container", Reason.CONTAINER, start)
        if around.isolation is not None:
            await progress.step("isolation", Reason.ISOLATION, check)
        return container


def _open(report: Report) -> str:
    failed = [one.name for one in report.checks if one.required and one.outcome not in ("blocked", "ok")]
    names = ", ".join(failed) or "see the report"
    return (
        f"the container is not closed as it must be, so nothing runs in it: {names}; "
        "the report in the channel says what to change on this machine"
    )
