"""A container engine in memory for other rooms' tests, and the contract that it shares with the real one.

`FakeEngine` provides interfaces.Engine: containers start at once, commands end as the test says. `Contract`
runs against both: with the fake in the unit tests, with Docker in the integration tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Engine, Launch, Ran, Usage


@attrs.frozen
class Call:
    """A command that was run or started in a container."""

    task_id: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None


def _succeed(_: Call) -> Ran:
    return Ran(status=0, out=b"", err=b"")


class FakeEngine:
    """containers: what there is, by task. calls: every command, in order. answer: how commands end.

    fail: the next calls raise it until it is None again, as when the engine is stopped. broken: launches
    of these tasks fail.
    """

    def __init__(self, answer: Callable[[Call], Ran] = _succeed) -> None:
        self.containers: dict[str, Container] = {}
        self.launches: dict[str, Launch] = {}
        self.calls: list[Call] = []
        self.answer = answer
        self.fail: HostError | None = None
        self.broken: set[str] = set()
        self._ports = itertools.count(40001)
        self._ids = itertools.count(1)

    async def ping(self) -> str:
        self._check()
        return "0.0.0"

    async def launch(self, launch: Launch) -> Container:
        self._check()
        found = self.containers.get(launch.task_id)
        if found is not None and found.state == "running":
            return found
        if launch.task_id in self.broken:
            await self.remove(launch.task_id)
            raise HostError(ErrorCode.INVALID_ARGS, f"cannot start the container of task {launch.task_id}")
        made = Container(
            id=found.id if found else f"{next(self._ids):064x}",
            task_id=launch.task_id,
            state="running",
            # As the real one: a new host port at each start.
            ports={port: next(self._ports) for port in launch.ports if launch.network == "own"},
            started_at=1_700_000_000_000,
        )
        self.containers[launch.task_id] = made
        self.launches[launch.task_id] = launch
        return made

    async def find(self, task_id: str) -> Container | None:
        self._check()
        return self.containers.get(task_id)

    async def all(self) -> list[Container]:
        self._check()
        return list(self.containers.values())

    async def remove(self, task_id: str) -> None:
        self._check()
        self.containers.pop(task_id, None)
        self.launches.pop(task_id, None)

    async def sweep(self, known: set[str]) -> list[str]:
        self._check()
        swept = sorted(self.containers.keys() - known)
        for task_id in swept:
            await self.remove(task_id)
        return swept

    async def usage(self, task_id: str) -> Usage:
        found = await self.find(task_id)
        if found is None or found.state != "running":
            raise HostError(ErrorCode.NOT_FOUND, f"the container of task {task_id} does not run")
        return Usage(memory=1 << 20, cpu_percent=1.5)

    async def execute(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        return self.answer(self._called(task_id, argv, env, cwd))

    async def start_process(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        self._called(task_id, argv, env, cwd)

    async def log_tail(self, task_id: str, lines: int) -> str:
        self._exists(task_id)
        return "\n".join(["ready\n"][:lines])

    def stop(self, task_id: str, exit_code: int = 137) -> None:
        """As if its first process had ended."""
        self.containers[task_id] = attrs.evolve(
            self.containers[task_id], state="exited", ports={}, exit_code=exit_code
        )

    def _called(
        self, task_id: str, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None
    ) -> Call:
        self._running(task_id)
        call = Call(task_id, tuple(argv), dict(env or {}), cwd)
        self.calls.append(call)
        return call

    def _running(self, task_id: str) -> None:
        if self._exists(task_id).state != "running":
            raise HostError(ErrorCode.CONFLICT, f"the container of task {task_id} does not run")

    def _exists(self, task_id: str) -> Container:
        self._check()
        found = self.containers.get(task_id)
        if found is None:
            raise HostError(ErrorCode.NOT_FOUND, f"there is no container of task {task_id}")
        return found

    def _check(self) -> None:
        if self.fail is not None:
            raise self.fail


async def refused(case: TestCase, call: Awaitable[object]) -> HostError:
    """The error that `call` must raise."""
    try:
        await call
    except HostError as error:
        return error
    case.fail("it was not refused")


class Contract(TestCase):
    """What every interfaces.Engine does. A subclass says how one is had.

    `engine()` gives an empty one; `launch_of(task_id)` a launch that succeeds on it, with one port; `halt`
    ends a container's first process; `broken(task_id)` a launch that the engine refuses.
    """

    async def engine(self) -> Engine:
        raise NotImplementedError

    async def launch_of(self, task_id: str) -> Launch:
        raise NotImplementedError

    async def broken(self, engine: Engine, task_id: str) -> Launch:
        raise NotImplementedError

    async def halt(self, engine: Engine, task_id: str) -> None:
        raise NotImplementedError

    async def refused(self, call: Awaitable[object]) -> HostError:
        return await refused(self, call)

    async def test_launched_is_found_with_its_ports(self) -> None:
        engine = await self.engine()
        made = await engine.launch(await self.launch_of("one"))
        self.assertEqual((made.task_id, made.state, list(made.ports)), ("one", "running", [8000]))
        self.assertTrue(1 <= made.ports[8000] <= 65535)
        self.assertIsNone(made.exit_code)
        self.assertIsNotNone(made.started_at)
        self.assertEqual(await engine.find("one"), made)
        self.assertEqual(await engine.all(), [made])

    async def test_launching_again_returns_the_same(self) -> None:
        engine = await self.engine()
        launch = await self.launch_of("one")
        made = await engine.launch(launch)
        self.assertEqual(await engine.launch(launch), made)
        self.assertEqual(await engine.all(), [made])

    async def test_a_stopped_one_is_started_with_new_ports(self) -> None:
        engine = await self.engine()
        launch = await self.launch_of("one")
        made = await engine.launch(launch)
        await self.halt(engine, "one")
        stopped = await engine.find("one")
        assert stopped is not None
        self.assertEqual((stopped.state, stopped.ports), ("exited", {}))
        self.assertIsNotNone(stopped.exit_code)
        again = await engine.launch(launch)
        self.assertEqual((again.id, again.state), (made.id, "running"))
        self.assertEqual(list(again.ports), [8000])

    async def test_tasks_are_apart(self) -> None:
        engine = await self.engine()
        one = await engine.launch(await self.launch_of("one"))
        two = await engine.launch(await self.launch_of("two"))
        self.assertNotEqual(one.id, two.id)
        self.assertNotEqual(one.ports[8000], two.ports[8000])
        await engine.remove("one")
        self.assertEqual(await engine.all(), [two])

    async def test_removed_is_gone_and_removal_repeats(self) -> None:
        engine = await self.engine()
        await engine.launch(await self.launch_of("one"))
        await engine.remove("one")
        await engine.remove("one")
        self.assertIsNone(await engine.find("one"))
        self.assertEqual(await engine.all(), [])

    async def test_what_belongs_to_no_known_task_is_swept(self) -> None:
        engine = await self.engine()
        one = await engine.launch(await self.launch_of("one"))
        await engine.launch(await self.launch_of("two"))
        self.assertEqual(await engine.sweep({"one", "never"}), ["two"])
        self.assertEqual(await engine.sweep({"one", "never"}), [])
        self.assertEqual(await engine.all(), [one])

    async def test_without_a_network_nothing_is_published(self) -> None:
        engine = await self.engine()
        launch = attrs.evolve(await self.launch_of("one"), network="none")
        made = await engine.launch(launch)
        self.assertEqual((made.state, dict(made.ports)), ("running", {}))
        self.assertEqual(await engine.launch(launch), made)

    async def test_a_failed_launch_leaves_nothing(self) -> None:
        engine = await self.engine()
        launch = await self.broken(engine, "one")
        error = await self.refused(engine.launch(launch))
        self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        self.assertIn("one", error.message)
        self.assertEqual(await engine.all(), [])

    async def test_what_is_not_there_is_not_found(self) -> None:
        engine = await self.engine()
        self.assertIsNone(await engine.find("none"))
        for call in (
            engine.usage("none"),
            engine.execute("none", ["true"]),
            engine.start_process("none", ["true"]),
            engine.log_tail("none", 1),
        ):
            self.assertEqual((await self.refused(call)).code, ErrorCode.NOT_FOUND)

    async def test_a_running_one_is_used(self) -> None:
        engine = await self.engine()
        await engine.launch(await self.launch_of("one"))
        self.assertEqual((await engine.execute("one", ["true"])).status, 0)
        await engine.start_process("one", ["true"])
        used = await engine.usage("one")
        self.assertTrue(0 < used.memory < 1 << 30)
        self.assertTrue(used.cpu_percent >= 0)
        self.assertTrue(await engine.ping())

    async def test_a_stopped_one_runs_no_command(self) -> None:
        engine = await self.engine()
        await engine.launch(await self.launch_of("one"))
        await self.halt(engine, "one")
        self.assertEqual((await self.refused(engine.execute("one", ["true"]))).code, ErrorCode.CONFLICT)
        self.assertEqual((await self.refused(engine.usage("one"))).code, ErrorCode.NOT_FOUND)
