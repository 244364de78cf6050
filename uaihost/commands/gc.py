"""Freeing disk: one published order, from what nobody misses to what was saved first, until there is enough.

It runs by itself every hour and when little is free, and when `uaihost gc` asks. What can go is `stock`'s to
say; it decides when enough went, and remembers what did.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.commands.disk import CLASSES, Disk, Measured, Space
from uaihost.commands.stock import Item, Stock
from uaihost.errors import HostError
from uaihost.interfaces import Json, Store
from uaihost.state import saved
from uaihost.state.saved import Removal

log = Logger()


@attrs.frozen
class Rule:
    """A class of what goes. meaning: what it is; back: how to get it back."""

    name: str
    meaning: str
    back: str


# The published order (docs/recovery.md). Whatever is not in it is never removed.
ORDER = (
    Rule("trash", "what was half made or half removed more than a day ago", "nothing of it is missed"),
    Rule("scratch", "`/tmp` of tasks that do not run", "a container's start empties it anyway"),
    Rule("images", "task images that are neither current nor in use", "`uaihost image build`"),
    Rule("tools", "shared tool versions that no task has and that were not used for 30 days",
         "the next task that names one installs it"),
    Rule("mirrors", "mirrors that no task and no saved work needs and that were not fetched for 30 days",
         "the next task of that repository fetches it"),
    Rule("homes", "home folders of tasks that have not run for 30 days, after all they hold was saved",
         "`uaihost restore` has the agents' conversations"),
    Rule("work", "work copies of tasks that have not run for 30 days, after they were saved as by `taskDown`",
         "`uaihost restore`, or bring the task up again"),
)  # fmt: skip

# Where the disk is too full whatever the budget says: the larger part counts.
FREE_BYTES = 5 << 30
FREE_SHARE = 10

# Seconds: between two runs; the first after a start; between two looks at what is free; and until it runs
# again when little is free.
PERIOD = 3600.0
FIRST = 120.0
LOOK = 60.0
AGAIN = 600.0


@attrs.frozen
class Level:
    """How full it is, in bytes. used: by what can go, None when it could not be measured."""

    budget: int
    used: int | None
    space: Space

    @property
    def low(self) -> bool:
        """Whether too little is free, whoever took it."""
        return self.space.free < max(FREE_BYTES, self.space.total // FREE_SHARE)

    @property
    def over(self) -> bool:
        """Whether something has to go."""
        return self.low or (self.used is not None and self.used > self.budget)

    def without(self, size: int, space: Space | None) -> Level:
        """After so much went. space: as it is now; None when nothing went in earnest."""
        used = None if self.used is None else max(0, self.used - size)
        guess = Space(min(self.space.free + size, self.space.total), self.space.total)
        return Level(self.budget, used, space or guess)


class Gc:
    """budget: bytes for all that is in ORDER."""

    def __init__(self, clock: IReactorTime, store: Store, disk: Disk, stock: Stock, budget: int) -> None:
        self._clock = clock
        self._store = store
        self._disk = disk
        self._stock = stock
        self._budget = budget
        self._turn = DeferredLock()
        self._images = 0
        self._next: Any = None
        self._stopped = True
        self._due = 0.0
        self._allowed = 0.0

    def start(self) -> None:
        self._stopped = False
        self._due = self._clock.seconds() + FIRST
        self._wait()

    def stop(self) -> None:
        """What is being removed is completed; nothing else goes."""
        self._stopped = True
        self._disk.stop()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def disk(self) -> dict[str, int]:
        """The last known bytes of each class."""
        known = self._disk.known()
        classes = dict.fromkeys(CLASSES, 0) if known is None else dict(known.classes)
        classes["images"] += self._images
        return classes

    def level(self, space: Space) -> Level:
        """How full it is when so much is free, by what was measured last."""
        return Level(self._budget, self._used(self._disk.known()), space)

    async def run(self, dry_run: bool) -> Json:
        """Free disk if need be: `{freeBytes, budgetBytes, usedBytes, classes, removed, kept}`.

        removed: `{what, class, bytes, why, how}` each, how: to get it back; kept: `{what, why}`. dry_run:
        only say what would go. What goes in earnest may turn out to be in use, and then stays.

        Raises:
            HostError: not even what is free is known.
        """
        return await self._turn.run(lambda: Deferred.fromCoroutine(self._run(dry_run)))

    async def _run(self, dry_run: bool) -> Json:
        measured = await self._measured()
        level = Level(self._budget, self._used(measured), await self._disk.space())
        before = self.disk()
        removed: list[Json] = []
        kept: dict[tuple[str, str], None] = {}
        for rule in ORDER:
            if not level.over or self._off(dry_run):
                break
            try:
                items, stays = await self._stock.find(rule.name, measured)
            except HostError as error:
                kept[rule.name, error.message] = None
                continue
            kept.update(dict.fromkeys((one.what, one.why) for one in stays))
            for item in items:
                if not level.over or self._off(dry_run):
                    break
                try:
                    if not dry_run:
                        await self._remove(rule, item)
                except HostError as error:
                    kept[item.what, error.message] = None
                    continue
                level = level.without(item.bytes, None if dry_run else await self._disk.space())
                removed.append(
                    {
                        "what": item.what,
                        "class": rule.name,
                        "bytes": item.bytes,
                        "why": item.why,
                        "how": rule.back,
                    }
                )
        if removed and not dry_run:
            self._disk.forget()
        return {
            "freeBytes": level.space.free,
            "budgetBytes": self._budget,
            "usedBytes": level.used,
            "classes": before,
            "removed": removed,
            "kept": [{"what": what, "why": why} for what, why in kept],
        }

    def _off(self, dry_run: bool) -> bool:
        """Whether the host is going down."""
        return self._stopped and not dry_run

    async def _remove(self, rule: Rule, item: Item) -> None:
        await item.remove()
        log.info(
            "removed {what} ({kind}, {size} bytes) to free disk: {why}",
            what=item.what, kind=rule.name, size=item.bytes, why=item.why,
        )  # fmt: skip
        at = int(self._clock.seconds() * 1000)
        removal = Removal(at, rule.name, item.what, item.bytes, item.why, rule.back)
        await self._store.run(lambda db: saved.removed(db, removal))

    async def _measured(self) -> Measured | None:
        try:
            self._images = await self._stock.image_bytes()
        except HostError as error:
            log.debug("the images cannot be measured: {why}", why=error.message)
        try:
            return await self._disk.measure()
        except HostError as error:
            log.warn("the disk cannot be measured: {why}", why=error.message)
            return None

    def _used(self, measured: Measured | None) -> int | None:
        """By what is in ORDER; what is never removed does not count against the budget."""
        if measured is None:
            return None
        return self._images + sum(measured.classes[rule.name] for rule in ORDER)

    # ---- by itself -----------------------------------------------------------------------------------------

    def _wait(self) -> None:
        self._next = self._clock.callLater(LOOK, self._tick)

    def _tick(self) -> None:
        looked = Deferred.fromCoroutine(self._look())
        looked.addErrback(lambda failure: log.failure("disk could not be freed", failure))
        looked.addBoth(lambda _: None if self._stopped else self._wait())

    async def _look(self) -> None:
        now = self._clock.seconds()
        if now < self._due:
            space = await self._disk.space()
            if now < self._allowed or not Level(self._budget, None, space).low:
                return
            # What was measured a while ago does not say what filled it.
            self._disk.forget()
        self._due, self._allowed = now + PERIOD, now + AGAIN
        await self.run(False)
