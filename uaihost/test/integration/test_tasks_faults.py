"""The daemon ends at every boundary of a task's ways, and starts again: nothing is lost, nothing is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from uaihost.commands.dispatch import MAX_ATTEMPTS
from uaihost.interfaces import Launch
from uaihost.test.commands.fakes import files_below, project, task_down, task_up
from uaihost.test.fakes_containers import Contract
from uaihost.test.integration.tasks_rig import Boundaries, FileEngine, World, die, done
from uaihost.test.support import given, settings, short_folder, strategies

UP = msgspec.to_builtins([task_up(project("a"), project("b"))])
DOWN = msgspec.to_builtins([task_down(project("a"), project("b"))])


def up(world: World) -> None:
    world.begin()
    world.send("up", "taskUp", UP)


def down(world: World) -> None:
    world.begin()
    world.send("down", "taskDown", DOWN)


def end(world: World) -> None:
    """The container ends by itself, and is started again."""
    world.begin()
    world.engine.stop("t1")
    world.adoption._settle_later("t1")
    world.settle()


def use(world: World) -> None:
    """A parked task is used."""
    world.begin()
    world.waking.on_missing("t1")
    world.settle()


class FaultTests(SynchronousTestCase):
    def setUp(self) -> None:
        # A process that ends loses nothing that the kernel has: memory does, and needs no flushes.
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="uai-", dir=memory if memory.is_dir() else None))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def fresh(self, name: str) -> Path:
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        return root

    def running(self, name: str) -> Path:
        """A task that runs, with work that nobody has put away."""
        root = self.fresh(name)
        self.assertFalse(die(root, up, 0))
        (root / "tasks" / "t1" / "work" / "a" / "work").write_text("of days")
        return root

    def boundaries(self, root: Path, play: Callable[[World], object], boot: str = "boot") -> int:
        """How many there are on a way that nothing disturbs."""
        world = World(root, boot=boot)
        play(world)
        world.close()
        self.assertGreater(len(world.boundaries.passed), 20)
        return len(world.boundaries.passed)

    def again(self, root: Path, boot: str = "boot") -> World:
        """The next life of the daemon."""
        world = World(root, boot=boot)
        self.addCleanup(world.close)
        world.begin()
        return world

    def check_runs(self, world: World, at: object) -> None:
        """Records, engine and folders agree that the task runs."""
        record = world.record()
        assert record is not None
        self.assertEqual((record.status, record.ran), ("running", True), at)
        self.assertEqual({one.state for one in world.engine.containers.values()}, {"running"}, at)
        self.assertEqual((list(world.engine.containers), world.engine.networks), (["t1"], {"t1"}), at)
        folders = world.folders
        for slug in ("a", "b"):
            self.assertTrue((folders.work_copy("t1", slug) / "origin").exists(), at)
        self.assertTrue((folders.control("t1") / "go").exists(), at)
        self.assertIsNone(world.tasks.waiting("t1"), at)

    def check_nothing(self, world: World, at: object) -> None:
        self.assertEqual((world.engine.containers, world.engine.networks), ({}, set()), at)
        self.assertEqual(files_below(world.folders.tasks), [], at)

    def test_the_way_up(self) -> None:
        for boundary in range(1, self.boundaries(self.fresh("count"), up) + 1):
            root = self.fresh("up")
            self.assertTrue(die(root, up, boundary))
            world = self.again(root)
            # What the bridge does with a command that it has no result of.
            world.send("up", "taskUp", UP)
            self.check_runs(world, boundary)
            command = world.command("up")
            assert command is not None
            self.assertIn(b'"ok"', command.result or b"")

    def test_a_way_up_that_is_given_up(self) -> None:
        for boundary in range(1, self.boundaries(self.fresh("count"), up) + 1):
            root = self.fresh("up")
            self.assertTrue(die(root, up, boundary))
            self.give_up(root)
            world = self.again(root)
            record = world.record()
            if record is None or record.status == "failed":
                self.check_nothing(world, boundary)
            else:
                # It had arrived, and only its answer was missing.
                self.check_runs(world, boundary)

    def test_the_way_down(self) -> None:
        for boundary in range(1, self.boundaries(self.running("count"), down) + 1):
            root = self.running("down")
            self.assertTrue(die(root, down, boundary))
            world = self.again(root)
            world.send("down", "taskDown", DOWN)
            record = world.record()
            assert record is not None
            self.assertEqual(record.status, "stopped", boundary)
            self.assertEqual([one["slug"] for one in msgspec.json.decode(record.saved or b"[]")], ["a", "b"])
            self.assertEqual((world.folders.saved / "a" / "work").read_text(), "of days", boundary)
            self.check_nothing(world, boundary)

    def test_a_way_down_that_is_given_up_loses_nothing(self) -> None:
        for boundary in range(1, self.boundaries(self.running("count"), down) + 1):
            root = self.running("down")
            self.assertTrue(die(root, down, boundary))
            self.give_up(root)
            world = self.again(root)
            record = world.record()
            assert record is not None
            if record.status == "running":
                self.check_runs(world, boundary)
            else:
                self.assertEqual((world.engine.containers, world.engine.networks), ({}, set()), boundary)
            copy = world.folders.work_copy("t1", "a") / "work"
            kept = copy if record.saved is None else world.folders.saved / "a" / "work"
            self.assertEqual(kept.read_text(), "of days", boundary)

    def test_the_start_of_a_container_that_ended(self) -> None:
        for boundary in range(1, self.boundaries(self.running("count"), end) + 1):
            root = self.running("end")
            self.assertTrue(die(root, end, boundary))
            self.check_runs(self.again(root), boundary)

    def test_the_start_of_the_machine_and_of_a_parked_task(self) -> None:
        root = self.running("count")
        FileEngine(root / "engine.json").stop("t1")
        for boundary in range(1, self.boundaries(root, use, "second") + 1):
            root = self.running("park")
            FileEngine(root / "engine.json").stop("t1")
            self.assertTrue(die(root, use, boundary, "second"))
            world = self.again(root, "second")
            record = world.record()
            assert record is not None
            if record.status == "stopped":
                waiting = world.tasks.waiting("t1")
                assert waiting is not None
                self.assertEqual(waiting.reason, "parked", boundary)
                world.waking.on_missing("t1")
                world.settle()
            self.check_runs(world, boundary)

    @settings(max_examples=25)
    @given(strategies.integers(1, 120), strategies.integers(1, 120))
    def test_two_ends_one_after_another(self, first: int, second: int) -> None:
        root = self.fresh("twice")
        die(root, up, first)
        die(root, up, second)
        world = self.again(root)
        world.send("up", "taskUp", UP)
        self.check_runs(world, (first, second))
        (world.folders.work_copy("t1", "a") / "work").write_text("of days")
        die(root, down, first)
        die(root, down, second)
        last = self.again(root)
        last.send("down", "taskDown", DOWN)
        self.assertEqual((last.folders.saved / "a" / "work").read_text(), "of days")
        self.check_nothing(last, (first, second))

    def test_what_belongs_to_no_task_is_removed(self) -> None:
        root = self.running("orphans")
        engine = FileEngine(root / "engine.json")
        done(engine.launch(Launch("orphan", "i", 1, 1, (), ())))
        engine.networks.add("lone")
        engine._keep("a lone network")
        self.check_runs(self.again(root), "orphans")

    def give_up(self, root: Path) -> None:
        """As if the daemon had died over its command as often as it may."""
        world = World(root)
        attempts = f"UPDATE commands SET attempts = {MAX_ATTEMPTS}"
        done(world.database.run(lambda db: db.execute(attempts).rowcount))
        world.close()


class FileEngineTests(Contract):
    """The engine of these tests is what the others' is, also for who reads its file."""

    async def engine(self) -> FileEngine:
        return FileEngine(short_folder(self) / "engine.json", Boundaries())

    async def launch_of(self, task_id: str) -> Launch:
        return Launch(task_id, "image", 1000, 1000, (), (8000,))

    async def broken(self, engine: FileEngine, task_id: str) -> Launch:  # type: ignore[override]
        engine.broken.add(task_id)
        return await self.launch_of(task_id)

    async def halt(self, engine: FileEngine, task_id: str) -> None:  # type: ignore[override]
        engine.stop(task_id)

    async def test_another_life_finds_the_same(self) -> None:
        engine = await self.engine()
        made = await engine.launch(await self.launch_of("one"))
        other = FileEngine(engine._path)
        self.assertEqual((await other.all(), other.networks), ([made], {"one"}))


del Contract  # Or trial would run it by itself.
