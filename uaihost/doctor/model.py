"""What a check is and what it finds. Pure; it knows no check and nothing of how they are run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs

from uaihost.doctor.patient import Patient

# Raised when programs that read the JSON must know of a change.
SCHEMA = 1


class Verdict(StrEnum):
    """In the order of how bad it is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARN = "warn"
    FAIL = "fail"

    @property
    def badness(self) -> int:
        return list(Verdict).index(self)


@attrs.frozen
class Finding:
    """text: one sentence or several for people, of one line. fix: lines to type, in order; a line that
    begins with # says more. facts: JSON-able, for programs; never a secret."""

    verdict: Verdict
    text: str
    fix: tuple[str, ...] = ()
    facts: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Check:
    """One look.

    name: as in `--only`. needs: names of checks without whose success this one says nothing. limit: seconds.
    container: it starts one, and `--quick` leaves it out.
    """

    name: str
    title: str
    run: Callable[[Patient], Awaitable[Finding]]
    needs: tuple[str, ...] = ()
    limit: float = 5.0
    container: bool = False


@attrs.frozen
class Result:
    """What a check found. seconds: how long it took."""

    name: str
    title: str
    finding: Finding
    seconds: float

    def json(self) -> dict[str, Any]:
        found = self.finding
        return {
            "name": self.name,
            "title": self.title,
            "verdict": found.verdict.value,
            "text": found.text,
            "fix": list(found.fix),
            "seconds": round(self.seconds, 3),
            "facts": dict(found.facts),
        }


@attrs.frozen
class Report:
    """All results, in the order of the checks. at: milliseconds since the epoch."""

    version: str
    at: int
    seconds: float
    results: tuple[Result, ...]

    @property
    def failed(self) -> bool:
        return any(result.finding.verdict is Verdict.FAIL for result in self.results)

    def json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "version": self.version,
            "at": self.at,
            "seconds": round(self.seconds, 3),
            "ok": not self.failed,
            "checks": [result.json() for result in self.results],
        }


def ok(text: str, **facts: Any) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, text, (), facts)


def warn(text: str, *fix: str, **facts: Any) -> Finding:
    """It works, and less well than it could; or it will not for long."""
    return Finding(Verdict.WARN, text, fix, facts)


def fail(text: str, *fix: str, **facts: Any) -> Finding:
    """It does not work."""
    return Finding(Verdict.FAIL, text, fix, facts)


def skipped(text: str, **facts: Any) -> Finding:
    """There was nothing to look at, or no way to; the text says why."""
    return Finding(Verdict.SKIPPED, text, (), facts)


def together(findings: Sequence[Finding]) -> Finding:
    """Several findings as one: the worst verdict, and of the sentences those that led to it and the like.

    Sentences of what is well are told when nothing is wrong.
    """
    worst = max((found.verdict for found in findings), key=lambda verdict: verdict.badness)
    bad = [found for found in findings if found.verdict in (Verdict.WARN, Verdict.FAIL)]
    told = sorted(bad, key=lambda found: -found.verdict.badness) or list(findings)
    facts: dict[str, Any] = {}
    for found in findings:
        facts |= found.facts
    lines = tuple(dict.fromkeys(line for found in told for line in found.fix))
    return Finding(worst, "; ".join(found.text for found in told if found.text), lines, facts)
