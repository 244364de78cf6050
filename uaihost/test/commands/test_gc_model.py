"""Freeing disk on random hosts: what may go is said here once more, in other words than in the code."""

from __future__ import annotations

from typing import Any

from uaihost.commands.gc import ORDER
from uaihost.state import saved
from uaihost.test.commands.bench import trouble
from uaihost.test.commands.stocked import GB, StockedCase
from uaihost.test.support import given, settings, strategies
from uaihost.wire.reasons import Reason

CLASSES = [rule.name for rule in ORDER]

STATUS = strategies.sampled_from(
    ["failed", "failed", "stopped", "stopped", "running", "starting", "stopping"]
)
DAYS = strategies.integers(1, 60)
SIZE = strategies.integers(1, 9)
TASKS = strategies.lists(
    strategies.tuples(
        STATUS, DAYS, SIZE,
        strategies.sampled_from([None, None, None, Reason.PARKED, Reason.ENGINE]),
        strategies.sampled_from(["", "", "", "container", "busy", "saved", "unsaveable"]),
    ),
    max_size=5,
)  # fmt: skip
THINGS = strategies.lists(strategies.tuples(DAYS, SIZE, strategies.booleans()), max_size=3)


class ModelTests(StockedCase):
    @settings(max_examples=60)
    @given(TASKS, THINGS, THINGS, THINGS, THINGS, strategies.integers(0, 80), strategies.booleans())
    def test_nothing_goes_that_must_not(
        self, tasks: Any, images: Any, tools: Any, mirrors: Any, left: Any, budget: int, current: bool
    ) -> None:
        # Each case has a host of its own.
        StockedCase.setUp(self)
        may: dict[tuple[str, str], float] = {}
        for number, (status, days, size, waits, what) in enumerate(tasks):
            name = f"t{number}"
            self.put_task(
                name, status, days, size=size * GB, waits=waits,
                container=what == "container", busy=what == "busy", saved=what == "saved",
            )  # fmt: skip
            if what == "unsaveable":
                self.workspaces.broken[f"save shop-{name}"] = trouble("full")
            if status in ("failed", "stopped") and waits is None and what not in ("container", "busy"):
                may["scratch", f"task {name}"] = days
                # Below one that is down there is nothing that was saved.
                if days >= 30 and what != "unsaveable" and (what, status) != ("saved", "stopped"):
                    may["homes", f"task {name}"] = may["work", f"task {name}"] = days
        for number, (days, size, used) in enumerate(images):
            self.put_image(f"i{number}", days, in_use=used, size=size * GB)
            if current and not used:
                may["images", f"i{number}"] = days
        if current:
            self.put_image("current", 1, current=True)
        for number, (days, size, used) in enumerate(tools):
            self.put_tool(f"n{number}", days, ("t",) if used else (), size * GB)
            if days >= 30 and not used:
                may["tools", f"n{number}@1"] = days
        for number, (days, size, used) in enumerate(mirrors):
            self.put_mirror(f"m{number}", days, used, size * GB)
            if days >= 30 and not used:
                may["mirrors", f"m{number}"] = days
        for number, (_, size, _) in enumerate(left):
            self.put_leftover(str(number), size * GB)
            may["trash", f"tasks/.trash/{number}"] = 0
        self.make(budget * GB)
        self.judge(may, budget * GB, certain=not any(what == "unsaveable" for *_, what in tasks))

    def judge(self, may: dict[tuple[str, str], float], budget: int, certain: bool) -> None:
        before = self.disk.used()
        files = sorted(self.folders.tasks.rglob("*"))
        told = self.gone(dry_run=True)
        self.assertEqual((self.disk.used(), sorted(self.folders.tasks.rglob("*"))), (before, files))
        answer = self.run_gc()
        gone = [(one["class"], one["what"]) for one in answer["removed"]]
        if certain:
            self.assertEqual(told, gone)
        self.assertEqual(set(gone) - set(may), set())
        self.assertEqual(len(gone), len(set(gone)))
        # In order: by class, then by age.
        places = [(CLASSES.index(kind), -may[kind, what]) for kind, what in gone]
        self.assertEqual(places, sorted(places))
        # Not one too many, and all that may go where that is not enough.
        used = before
        for one in answer["removed"]:
            self.assertGreater(used, budget)
            used -= one["bytes"]
        self.assertEqual((self.disk.used(), answer["usedBytes"]), (used, used))
        if used > budget:
            self.assertEqual(set(gone), set(may))
        # What went is saved, and what was attached is there.
        assert self.db is not None
        kept = {row.task_id for row in self.done(self.db.run(saved.every))}
        for record in self.done(self.tasks.records.every()):
            self.assertTrue((self.folders.attachments(record.id) / "note.txt").exists())
            if not self.folders.work(record.id).exists() or not self.folders.home(record.id).exists():
                self.assertTrue(record.id in kept or record.saved == b"[]")
