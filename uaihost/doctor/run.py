"""Runs checks: side by side where they do not need one another, each within its time, all within theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost import __version__
from uaihost.config import SETTINGS
from uaihost.doctor.model import Check, Finding, Report, Result, Verdict, fail, skipped
from uaihost.doctor.patient import Patient, readable
from uaihost.errors import HostError

log = Logger()

# Settings by their variables; where the data lies and which token is shown, a service says by other means.
NAMES = {setting.env: setting.name for setting in SETTINGS if setting.name not in ("data_dir", "token")}

# Seconds for everything.
WHOLE = 55.0
# Seconds that a check which was stopped has to clear up behind itself: the engine removes a container in one
# or two.
CLEARING = 8.0


def chosen(checks: Sequence[Check], only: Sequence[str], quick: bool) -> list[Check]:
    """Those to run, in their order: the named ones and what they need; quick: none with a container.

    Raises:
        KeyError: there is no check of a name.
    """
    known = {check.name: check for check in checks}
    wanted: set[str] = set()

    def want(name: str) -> None:
        if name not in wanted:
            wanted.add(name)
            for need in known[name].needs:
                want(need)

    for name in only or known:
        want(name)
    return [check for check in checks if check.name in wanted and not (quick and check.container)]


class Examination:
    """One run of checks over one patient.

    began, done: told of each check, for a person who waits. sudo: whether lines to type may begin with it.
    """

    def __init__(
        self,
        patient: Patient,
        checks: Sequence[Check],
        *,
        began: Callable[[Check], object] = lambda check: None,
        done: Callable[[Result], object] = lambda result: None,
        whole: float = WHOLE,
        sudo: bool = True,
    ) -> None:
        self._sudo = sudo
        self._patient = patient
        self._clock: Any = patient.reactor
        self._checks = checks
        self._began = began
        self._done = done
        self._end = self._clock.seconds() + whole
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._results: dict[str, Result] = {}

    async def run(self) -> Report:
        """Every check once; nothing that goes wrong in one hinders another."""
        began = self._clock.seconds()
        every = [Deferred.fromCoroutine(self._one(check)) for check in self._checks]
        # Cancelled, it cancels each of them and waits until what was begun is cleared up.
        outcomes: list[tuple[bool, Any]] = await DeferredList(every, consumeErrors=True)
        for _, outcome in outcomes:
            if isinstance(outcome, Failure):
                outcome.raiseException()
        return Report(
            __version__,
            int(began * 1000),
            self._clock.seconds() - began,
            tuple(self._results[check.name] for check in self._checks if check.name in self._results),
        )

    async def _one(self, check: Check) -> None:
        for need in check.needs:
            await self._over(need)
        started = self._clock.seconds()
        finding = self._hindered(check)
        if finding is None:
            self._began(check)
            finding = await self._within(check)
        finding = attrs.evolve(finding, fix=tuple(map(self._typed, finding.fix)))
        result = Result(check.name, check.title, finding, self._clock.seconds() - started)
        self._results[check.name] = result
        self._done(result)
        for waiting in self._waiting.pop(check.name, []):
            waiting.callback(None)

    def _typed(self, line: str) -> str:
        """A line for whoever asks, and for where the settings of what is examined stand."""
        named = self._patient.environ.get("UAI_CONFIG")
        line = in_the_file(line, Path(named)) if named else line
        return line if self._sudo else without_sudo(line)

    async def _over(self, name: str) -> None:
        """Until the check of this name has its result; at once when it is not among those that run."""
        if name not in self._results and any(check.name == name for check in self._checks):
            waiting: Deferred[None] = Deferred()
            self._waiting.setdefault(name, []).append(waiting)
            await waiting

    def _hindered(self, check: Check) -> Finding | None:
        for need in check.needs:
            result = self._results.get(need)
            if result is not None and result.finding.verdict in (Verdict.FAIL, Verdict.SKIPPED):
                return skipped(f"it needs `{need}`, which {_word(result.finding.verdict)}")
        return None

    async def _within(self, check: Check) -> Finding:
        """Its finding, or that it did not come in time."""
        limit = min(check.limit, self._end - self._clock.seconds())
        if limit <= 0:
            return skipped("there was no time left for it")
        gate: Deferred[Finding] = Deferred()
        over: Deferred[None] = Deferred()
        work = Deferred.fromCoroutine(_guarded(check, self._patient))
        late = fail(
            f"no answer within {limit:.0f} s: something on its way hangs",
            f"uaihost doctor --only {check.name}",
        )

        def arrived(result: Finding | Failure) -> None:
            if gate.called:
                return
            gate.callback(late if isinstance(result, Failure) else result)

        def ended(_: object = None) -> None:
            if not over.called:
                over.callback(None)

        work.addBoth(arrived).addBoth(ended)
        # Cancelled, a check clears up; one that does not even do that is left behind.
        timers = [
            self._clock.callLater(limit, work.cancel),
            self._clock.callLater(limit + CLEARING, arrived, late),
        ]
        try:
            return await gate
        except CancelledError:
            work.cancel()
            timers.append(self._clock.callLater(CLEARING, ended))
            await over
            raise
        finally:
            for timer in timers:
                if timer.active():
                    timer.cancel()


async def _guarded(check: Check, patient: Patient) -> Finding:
    """A check's finding; whatever it raises is one too."""
    try:
        return await check.run(patient)
    except CancelledError:
        raise
    except HostError as error:
        return fail(error.message)
    except Exception as error:
        log.debug("the check {name} failed: {error!r}", name=check.name, error=error)
        return fail(
            f"the check itself could not be made: {type(error).__name__}: {error}",
            f"uaihost doctor --only {check.name}",
        )


def in_the_file(line: str, settings: Path) -> str:
    """A line that sets a variable, as what to write into the settings: a service never sees this shell's."""

    def written(found: re.Match[str]) -> str:
        name, value = NAMES.get(found[1]), found[2]
        if name is None:
            return found[0]
        sudo = "" if os.access(settings, os.W_OK) else "sudo "
        return f'{sudo}${{EDITOR:-nano}} {readable(settings)}   # {name} = "{value}"; then: uaihost restart'

    return re.sub(r"export (UAI_\w+)=(\S+)", written, line)


def without_sudo(line: str) -> str:
    """A line as root types it on a machine that has no sudo. Pure."""
    return re.sub(r"\bsudo ", "", re.sub(r"\bsudo -u (\S+) ", r"runuser -u \1 -- ", line))


def _word(verdict: Verdict) -> str:
    return "failed" if verdict is Verdict.FAIL else "was skipped"
