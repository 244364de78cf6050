"""Freeing disk: what goes, in which order, until when, and what never does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.commands.disk import Space
from uaihost.commands.gc import AGAIN, FIRST, FREE_BYTES, LOOK, ORDER, PERIOD, Level
from uaihost.commands.stock import DAY
from uaihost.errors import HostError
from uaihost.state import saved
from uaihost.test.commands.bench import trouble
from uaihost.test.commands.stocked import GB, NOW, TOTAL, StockedCase
from uaihost.wire.reasons import Reason

DOCS = Path(__file__).parents[3] / "docs"
CLASSES = [rule.name for rule in ORDER]


class LevelTests(StockedCase):
    def test_the_budget_and_what_is_free_both_count(self) -> None:
        roomy = Space(500 * GB, 1000 * GB)
        self.assertFalse(Level(50, 50, roomy).over)
        self.assertTrue(Level(50, 51, roomy).over)
        self.assertFalse(Level(50, None, roomy).over)
        self.assertTrue(Level(50, 0, Space(99 * GB, 1000 * GB)).over)
        self.assertTrue(Level(50, 0, Space(FREE_BYTES - 1, 20 * GB)).over)
        self.assertFalse(Level(50, 0, Space(FREE_BYTES, 20 * GB)).over)


class DocumentTests(StockedCase):
    def test_the_published_order_is_the_one_in_force(self) -> None:
        text = (DOCS / "recovery.md").read_text(encoding="utf-8")
        section = text.partition("\n## What is cleaned up, and in which order\n")[2].partition("\n## ")[0]
        table = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", section, re.M)
        self.assertEqual(table, [(rule.name, rule.meaning, rule.back) for rule in ORDER])


class GcCase(StockedCase):
    def one_of_each(self) -> None:
        leftover = self.put_leftover("old")
        # Files of now are old by a clock that is ahead.
        self.assertGreater(NOW - leftover.stat().st_ctime, DAY)
        self.put_task("t1")
        self.put_image("old")
        self.put_image("new", current=True)
        self.put_tool("node")
        self.put_mirror("shop")

    EACH = [
        ("trash", "tasks/.trash/old"),
        ("scratch", "task t1"),
        ("images", "old"),
        ("tools", "node@1"),
        ("mirrors", "shop"),
        ("homes", "task t1"),
        ("work", "task t1"),
    ]


class OrderTests(GcCase):
    def test_within_the_budget_nothing_goes(self) -> None:
        self.one_of_each()
        self.assertEqual(self.gone(), [])

    def test_all_that_can_go_goes_in_order_when_it_must(self) -> None:
        self.one_of_each()
        self.make(0)
        self.assertEqual(self.gone(), self.EACH)
        self.assertEqual([name for name, _ in self.EACH], CLASSES)
        self.assertEqual(list(self.built.there), ["new"])

    def test_it_stops_when_there_is_enough(self) -> None:
        self.one_of_each()
        for count in range(len(self.EACH), 0, -1):
            self.make(self.disk.used() - count * GB + 1)
            self.assertEqual(self.gone(dry_run=True), self.EACH[:count])
        self.assertEqual(self.gone(), self.EACH[:1])
        self.assertEqual(self.gone(), [])

    def test_little_that_is_free_counts_as_over_the_budget(self) -> None:
        self.one_of_each()
        self.disk.other = TOTAL * 9 // 10 - self.disk.used() + 2 * GB
        self.assertEqual(self.gone(), self.EACH[:2])

    def test_a_dry_run_changes_nothing_and_tells_the_same(self) -> None:
        self.one_of_each()
        self.make(0)
        before = sorted(self.folders.root.rglob("*")), self.disk.used()
        told = self.gone(dry_run=True)
        self.assertEqual((sorted(self.folders.root.rglob("*")), self.disk.used()), before)
        self.assertEqual(told, self.gone())

    def test_the_oldest_goes_first(self) -> None:
        for number, days in enumerate((50, 70, 60)):
            self.put_task(f"t{number}", days=days)
            self.put_mirror(f"m{number}", days)
        self.make(0)
        gone = self.gone()
        for kind, what in (("mirrors", "m"), ("homes", "task t"), ("work", "task t")):
            self.assertEqual(
                [one for one in gone if one[0] == kind], [(kind, f"{what}{number}") for number in (1, 2, 0)]
            )

    def test_it_says_what_there_is_and_how_to_get_things_back(self) -> None:
        self.one_of_each()
        self.make(7 * GB)
        answer = self.run_gc()
        self.assertEqual(answer["budgetBytes"], 7 * GB)
        self.assertEqual(answer["usedBytes"], 7 * GB)
        self.assertEqual(answer["freeBytes"], TOTAL - 7 * GB)
        self.assertEqual(answer["classes"]["images"], 2 * GB)
        self.assertEqual(answer["removed"][0]["how"], ORDER[0].back)
        assert self.gc is not None
        self.assertEqual(self.gc.disk()["images"], 2 * GB)

    def test_what_went_is_remembered(self) -> None:
        self.one_of_each()
        self.make(0)
        self.run_gc()
        assert self.db is not None
        found = self.done(self.db.run(saved.removals))
        self.assertEqual([(one.kind, one.what) for one in reversed(found)], self.EACH)
        self.assertEqual((found[0].bytes, found[0].at), (GB, NOW * 1000))
        self.assertIn("uaihost restore", found[0].recovery)


class NeverTests(GcCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(0)

    def test_tasks_that_are_not_at_rest(self) -> None:
        for status in ("pending", "preparing", "starting", "running", "stopping"):
            self.put_task(status, status)
        self.put_task("parked", "stopped", waits=Reason.PARKED)
        self.put_task("waits", "failed", waits=Reason.ENGINE)
        self.put_task("runs", "failed", container=True)
        self.put_task("busy", "failed", busy=True)
        (self.folders.scratch("unknown")).mkdir(parents=True)
        self.disk.sizes[self.folders.scratch("unknown")] = GB
        reasons = self.reasons()
        self.assertEqual(self.gone(), [])
        self.assertIn("parked", reasons["task parked"])
        self.assertIn("engine", reasons["task waits"])
        self.assertIn("container", reasons["task runs"])
        self.assertIn("command", reasons["task busy"])
        self.assertIn("nobody knows", reasons["task unknown"])
        self.assertEqual(reasons["task starting"], "it is starting")

    def test_what_lies_below_a_task_that_is_down(self) -> None:
        self.put_task("t1", "stopped", saved=True)
        self.assertEqual(self.gone(), [("scratch", "task t1")])
        self.assertIn("not saved", self.reasons()["task t1"])

    def test_young_things(self) -> None:
        self.put_task("t1", days=29)
        self.put_tool("node", 29)
        self.put_mirror("shop", 29)
        self.put_image("current", current=True)
        self.put_image("young", days=0.01)
        self.assertEqual(self.gone(), [("scratch", "task t1")])

    def test_what_something_needs(self) -> None:
        self.put_tool("node", tasks=("t9",))
        self.put_mirror("shop", needed=True)
        self.put_image("current", current=True)
        self.put_image("used", in_use=True)
        self.assertEqual(self.gone(), [])

    def test_images_while_nobody_knows_which_is_current(self) -> None:
        self.put_image("a")
        self.put_image("b")
        self.assertEqual(self.gone(), [])

    def test_what_was_attached(self) -> None:
        self.put_task("t1")
        self.assertEqual(len(self.gone()), 3)
        self.assertTrue((self.folders.attachments("t1") / "note.txt").exists())
        self.assertFalse(self.folders.work("t1").exists())

    def test_anything_but_leftovers_while_the_engine_is_away(self) -> None:
        self.one_of_each()
        self.engine.fail = trouble("no engine")
        self.assertEqual(self.gone(), self.EACH[:1])

    def test_work_while_the_disk_cannot_be_measured(self) -> None:
        self.one_of_each()
        self.disk.broken = True
        self.assertEqual(self.gone(), [])
        self.disk.other = TOTAL
        self.assertEqual(self.gone(), self.EACH[:4])

    def test_work_that_cannot_be_saved(self) -> None:
        self.put_task("t1")
        self.workspaces.broken["save"] = trouble("the disk is full")
        self.assertEqual(self.gone(), [("scratch", "task t1")])
        self.assertTrue(self.folders.home("t1").exists())
        self.assertTrue(self.folders.work_copy("t1", "shop-t1").exists())
        self.assertEqual(self.record().status, "stopped")
        self.assertIn("the disk is full", self.reasons()["task t1"] + str(self.record().message))

    def test_a_task_that_is_used_between_the_look_and_its_turn(self) -> None:
        self.put_task("t1")
        self.put_task("t2", days=50)
        lane: Deferred[None] = Deferred()
        self.workspaces.slow["save"] = lane
        find = self.engine.find
        looked: list[str] = []

        async def find_and_be_overtaken(task_id: str) -> Any:
            if task_id == "t2" and not looked:
                looked.append(task_id)
                self.work_on("t1")
            return await find(task_id)

        self.patch(self.engine, "find", find_and_be_overtaken)
        gone = self.gone()
        self.assertNotIn("task t1", [what for _, what in gone])
        self.assertIn(("work", "task t2"), gone)


class WorkTests(GcCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(0)

    def test_it_is_saved_as_by_task_down_before_it_goes(self) -> None:
        self.put_task("t1")
        self.run_gc()
        self.assertEqual(self.record().status, "stopped")
        self.assertIn("30 days", str(self.record().message))
        assert self.db is not None
        rows = self.done(self.db.run(saved.every))
        self.assertEqual([(row.task_id, row.slug) for row in rows], [("t1", "shop-t1")])
        self.assertIn("teardown t1", self.channels.calls)
        self.assertIn("`uaihost restore t1`", self.channels.notes[-1])

    def test_a_home_goes_after_its_conversations_were_kept(self) -> None:
        self.put_task("t1")
        self.make(self.disk.used() - 2 * GB)
        self.assertEqual(self.gone(), [("scratch", "task t1"), ("homes", "task t1")])
        self.assertEqual(self.workspaces.calls, ["save shop-t1"])
        self.assertEqual((self.record().status, self.record().saved), ("failed", None))
        self.assertTrue(self.folders.work_copy("t1", "shop-t1").exists())
        assert self.db is not None
        self.assertEqual(len(self.done(self.db.run(saved.every))), 1)

    def test_what_a_cut_off_task_down_had_saved_is_not_saved_again(self) -> None:
        self.put_task("t1", saved=True)
        self.assertEqual(len(self.gone()), 3)
        self.assertEqual([call for call in self.workspaces.calls if call.startswith("save")], [])


class ByItselfTests(GcCase):
    def test_it_runs_soon_after_the_start_and_every_hour(self) -> None:
        self.make(0)
        self.put_leftover("old")
        self.clock.pump([LOOK] * round(FIRST / LOOK))
        self.assertFalse(self.folders.tasks.joinpath(".trash", "old").exists())
        self.put_leftover("next")
        self.clock.pump([LOOK] * (round(PERIOD / LOOK) - 1))
        self.assertTrue(self.folders.tasks.joinpath(".trash", "next").exists())
        self.clock.pump([LOOK])
        self.assertFalse(self.folders.tasks.joinpath(".trash", "next").exists())

    def test_it_runs_at_once_when_little_is_free(self) -> None:
        self.clock.pump([LOOK] * round((FIRST + AGAIN) / LOOK))
        self.put_leftover("old")
        self.clock.pump([LOOK] * 5)
        self.assertTrue(self.folders.tasks.joinpath(".trash", "old").exists())
        self.disk.other = TOTAL
        self.clock.pump([LOOK])
        self.assertFalse(self.folders.tasks.joinpath(".trash", "old").exists())

    def test_stopped_it_removes_nothing(self) -> None:
        self.make(0)
        self.put_leftover("old")
        assert self.gc is not None
        self.gc.stop()
        self.clock.pump([LOOK] * 100)
        self.assertEqual(self.gone(), [])
        self.assertTrue(self.folders.tasks.joinpath(".trash", "old").exists())

    def test_a_trouble_does_not_end_it(self) -> None:
        self.make(0)
        self.put_leftover("old")

        async def broken() -> Space:
            raise trouble("no disk")

        with_space, self.disk.space = self.disk.space, broken  # type: ignore[method-assign]
        self.clock.pump([LOOK] * 3)
        self.assertEqual(len(self.flushLoggedErrors(HostError)), 3)
        self.disk.space = with_space  # type: ignore[method-assign]
        self.clock.pump([LOOK] * round(PERIOD / LOOK))
        self.assertFalse(self.folders.tasks.joinpath(".trash", "old").exists())
