"""What each task waits for now, and for how long it may: the reasons, their limits, and who is told.

It knows clocks and reasons; what the work is, and where a change is written, is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.wire.reasons import Reason, Waiting

# Seconds that a task may wait for one thing before the wait fails; None: people or the owner's engine are
# waited for, however long they take. Published in docs/tasks.md.
LIMITS: Mapping[Reason, float | None] = {
    Reason.QUEUED: 10800.0,  # what it waits for has limits of its own, which add up to less
    Reason.ENGINE: 60.0,
    Reason.MEMORY: 600.0,
    Reason.DISK: 600.0,
    Reason.CLONING: 1800.0,
    Reason.COPYING: 600.0,
    Reason.IMAGE_PULLING: 1800.0,
    Reason.IMAGE_BUILDING: 1800.0,
    Reason.TOOLS: 900.0,
    Reason.CONTAINER: 120.0,
    Reason.ISOLATION: 60.0,
    Reason.SETUP: 600.0,
    Reason.EDITOR: 60.0,
    Reason.APPROVAL: None,
    Reason.AGENTS: 60.0,
    Reason.SAVING: 1800.0,
    Reason.REMOVING: 300.0,
    Reason.RESTART: 60.0,
    Reason.PARKED: None,
}

# What to do when a limit is reached.
ADVICE: Mapping[Reason, str] = {
    Reason.QUEUED: "look at what the task does now (taskStatus) and send the command again",
    Reason.ENGINE: "start the container engine or check DOCKER_HOST, then send taskUp again",
    Reason.MEMORY: "end programs or take a task down, then send taskUp again",
    Reason.DISK: "free some disk, for example with `uaihost gc`, then send taskUp again",
    Reason.CLONING: "check the network and the repository's address, then send taskUp again",
    Reason.COPYING: "look for what keeps this machine's disk busy, then send taskUp again",
    Reason.IMAGE_PULLING: "check the network or set UAI_BASE_IMAGE, then send taskUp again",
    Reason.IMAGE_BUILDING: "run `uaihost image build` to see what takes so long, then send taskUp again",
    Reason.TOOLS: "check the network and the repository's tool versions, then send taskUp again",
    Reason.CONTAINER: "look at the engine's log, restart it perhaps, then send taskUp again",
    Reason.ISOLATION: "look at the engine's log, then send taskUp again",
    Reason.SETUP: "make the repository's set-up commands faster, then send taskUp again",
    Reason.EDITOR: "look at editor.log in the task's run folder, then send taskUp again",
    Reason.AGENTS: "send taskDown again",
    Reason.SAVING: "nothing was removed; free the disk of other work and send taskDown again",
    Reason.REMOVING: "the work is put away; look at the engine's log and send taskDown again",
    Reason.RESTART: "send taskUp",
}

# Seconds between two reports of one reason, whose text or percent changed; a report is a row on the disk.
PAUSE = 1.0
# Seconds that a reason must last to be reported: what passes at once is no wait.
LINGER = 0.05

_NOTHING: tuple[Reason | None, float] = (None, 0.0)


@attrs.define(eq=False)
class Wait:
    """One thing that is waited for, from `Waits.begin` to `end`.

    expired: the reason whose limit was reached. standing: shown only while no work is under way.
    """

    _waits: Waits
    task_id: str
    reason: Reason
    text: str
    since: float
    standing: bool
    _expire: Callable[[], object] | None
    percent: int | None = None
    deadline: float | None = None
    expired: Reason | None = None
    over: bool = False
    _spent: dict[Reason, float] = attrs.field(factory=dict)
    _timer: IDelayedCall | None = None

    def say(self, doing: Doing) -> None:
        """What it is at now; a new reason has a deadline of its own. Said too late, it changes nothing."""
        if self.over or self.expired is not None:
            return
        changed = doing.reason is not self.reason
        if changed:
            self._waits.switch(self, doing.reason)
        percent = None if doing.percent is None else max(0, min(100, doing.percent))
        text = doing.text or (doing.reason.value if changed else self.text)
        if changed or (text, percent) != (self.text, self.percent):
            self.text, self.percent = text, percent
            self._waits.told(self.task_id)

    def end(self) -> None:
        """It is waited for no more. Ending it again is no error."""
        self._waits.end(self)

    def failure(self) -> HostError:
        """Why it failed at its deadline."""
        reason = self.expired or self.reason
        return HostError(
            # What is away is not slow: callers tell the two apart by the code.
            ErrorCode.UNAVAILABLE if reason is Reason.ENGINE else ErrorCode.TIMEOUT,
            f"gave up after {LIMITS[reason] or 0:.0f} s of {reason} ({self.text}); {ADVICE[reason]}",
        )


class Waits:
    """changed: told of a task whose `now` is different and worth a row; it must not raise."""

    def __init__(self, clock: IReactorTime, changed: Callable[[str], object]) -> None:
        self._clock = clock
        self._changed = changed
        self._waits: dict[str, list[Wait]] = {}
        # What was reported last, and when; and the report that is to come.
        self._reported: dict[str, tuple[Reason, float]] = {}
        self._due: dict[str, IDelayedCall] = {}

    def now(self, task_id: str) -> Waiting | None:
        """What the task waits for: of work under way the first begun, else what was begun last."""
        shown = self._shown(task_id)
        if shown is None:
            return None
        return Waiting(
            shown.reason,
            shown.text,
            int(shown.since * 1000),
            shown.percent,
            None if shown.deadline is None else int(shown.deadline * 1000),
        )

    def all(self) -> dict[str, Waiting]:
        """Every task that waits."""
        found = {task_id: self.now(task_id) for task_id in self._waits}
        return {task_id: waiting for task_id, waiting in found.items() if waiting is not None}

    def begin(
        self, task_id: str, reason: Reason, text: str, expire: Callable[[], object] | None = None
    ) -> Wait:
        """Work begins. expire: called once at the deadline; it ends the work, and with it the wait."""
        wait = Wait(self, task_id, reason, text, self._clock.seconds(), False, expire)
        self._waits.setdefault(task_id, []).append(wait)
        self._arm(wait)
        self.told(task_id)
        return wait

    def stand(self, task_id: str, reason: Reason, text: str, since: int | None = None) -> None:
        """Wait for something that nobody here works at. since: milliseconds since the epoch, else now.

        One per reason: a second one replaces the text.
        """
        for wait in self._waits.get(task_id, []):
            if wait.standing and wait.reason is reason:
                wait.say(Doing(reason, text))
                return
        began = self._clock.seconds() if since is None else since / 1000
        self._waits.setdefault(task_id, []).append(Wait(self, task_id, reason, text, began, True, None))
        self.told(task_id)

    def lift(self, task_id: str, *reasons: Reason) -> None:
        """What stood for these reasons, if anything, stands no more."""
        for wait in list(self._waits.get(task_id, [])):
            if wait.standing and wait.reason in reasons:
                wait.end()

    def quiet(self, task_id: str) -> None:
        """What is waited for now is told by other means: no report of it is due."""
        self._remember(task_id, self._reason(task_id))
        due = self._due.pop(task_id, None)
        if due is not None:
            due.cancel()

    # ---- of one wait ---------------------------------------------------------------------------------------

    def switch(self, wait: Wait, reason: Reason) -> None:
        """The wait is for something else now; what it has spent on each reason counts together."""
        now = self._clock.seconds()
        wait._spent[wait.reason] = wait._spent.get(wait.reason, 0.0) + now - wait.since
        wait.reason, wait.since = reason, now
        self._arm(wait)

    def end(self, wait: Wait) -> None:
        _stop(wait)
        wait.over = True
        waits = self._waits.get(wait.task_id, [])
        if wait in waits:
            waits.remove(wait)
            if not waits:
                del self._waits[wait.task_id]
            self.told(wait.task_id)

    def told(self, task_id: str) -> None:
        """Something changed: report it, at once or when it may be."""
        before, at = self._reported.get(task_id, _NOTHING)
        reason = self._reason(task_id)
        now = self._clock.seconds()
        delay = LINGER if reason is not before else max(LINGER, at + PAUSE - now)
        due = self._due.get(task_id)
        if due is not None:
            if due.getTime() - now > delay:
                due.reset(delay)
        elif reason is not None or before is not None:
            self._due[task_id] = self._clock.callLater(delay, self._report, task_id)

    def _report(self, task_id: str) -> None:
        del self._due[task_id]
        before, _ = self._reported.get(task_id, _NOTHING)
        reason = self._reason(task_id)
        self._remember(task_id, reason)
        if reason is not None or before is not None:
            self._changed(task_id)

    def _remember(self, task_id: str, reason: Reason | None) -> None:
        if reason is None:
            self._reported.pop(task_id, None)
        else:
            self._reported[task_id] = (reason, self._clock.seconds())

    def _reason(self, task_id: str) -> Reason | None:
        shown = self._shown(task_id)
        return None if shown is None else shown.reason

    def _shown(self, task_id: str) -> Wait | None:
        waits = self._waits.get(task_id, [])
        working = [wait for wait in waits if not wait.standing]
        if working:
            return working[0]
        return waits[-1] if waits else None

    def _arm(self, wait: Wait) -> None:
        """Set the deadline of the wait's reason."""
        _stop(wait)
        limit = LIMITS[wait.reason]
        if wait.standing or limit is None:
            wait.deadline = None
            return
        left = max(0.0, limit - wait._spent.get(wait.reason, 0.0))
        wait.deadline = self._clock.seconds() + left
        wait._timer = self._clock.callLater(left, self._expired, wait)

    def _expired(self, wait: Wait) -> None:
        wait._timer = None
        wait.expired = wait.reason
        if wait._expire is not None:
            wait._expire()


def _stop(wait: Wait) -> None:
    if wait._timer is not None and wait._timer.active():
        wait._timer.cancel()
    wait._timer = None
