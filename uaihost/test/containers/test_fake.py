"""The fake engine keeps the contract that the real one keeps."""

from __future__ import annotations

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Engine, Launch, Ran
from uaihost.test import fakes_containers as fakes


class FakeEngineTests(fakes.Contract):
    async def engine(self) -> Engine:
        return fakes.FakeEngine()

    async def launch_of(self, task_id: str) -> Launch:
        return Launch(task_id=task_id, image="small", uid=1000, gid=1000, mounts=(), ports=(8000,))

    async def broken(self, engine: Engine, task_id: str) -> Launch:
        assert isinstance(engine, fakes.FakeEngine)
        engine.broken.add(task_id)
        return await self.launch_of(task_id)

    async def halt(self, engine: Engine, task_id: str) -> None:
        assert isinstance(engine, fakes.FakeEngine)
        engine.stop(task_id)

    async def test_a_stopped_engine_refuses_everything(self) -> None:
        engine = fakes.FakeEngine()
        engine.fail = HostError(ErrorCode.UNAVAILABLE, "stopped")
        for call in (engine.ping(), engine.all(), engine.find("one"), engine.remove("one")):
            self.assertEqual((await self.refused(call)).code, ErrorCode.UNAVAILABLE)

    async def test_commands_are_kept_and_answered(self) -> None:
        engine = fakes.FakeEngine(lambda call: Ran(7, " ".join(call.argv).encode(), b""))
        await engine.launch(await self.launch_of("one"))
        ran = await engine.execute("one", ["echo", "hi"], env={"A": "b"}, cwd="/x")
        self.assertEqual((ran.status, ran.out), (7, b"echo hi"))
        self.assertEqual(engine.calls, [fakes.Call("one", ("echo", "hi"), {"A": "b"}, "/x")])
