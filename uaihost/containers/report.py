"""What was found out about a container, for people and for programs. Pure."""

from __future__ import annotations

from typing import Any, Literal

import attrs

Outcome = Literal["blocked", "open", "ok", "unknown"]

# Checks whose details are worth reading when all is well.
TOLD = ("limits", "own network")


@attrs.frozen
class Check:
    """outcome: blocked or ok: as it should be; open: it is not; unknown: it could not be found out.

    required: the task does not start without it. detail: for people, what was found.
    """

    name: str
    outcome: Outcome
    required: bool
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in ("blocked", "ok")


@attrs.frozen
class Report:
    """at: milliseconds since the epoch."""

    checks: tuple[Check, ...]
    at: int

    @property
    def passed(self) -> bool:
        """Whether everything that is required is as it should be; never without any check."""
        needed = [check for check in self.checks if check.required]
        return bool(needed) and all(check.good for check in needed)

    def text(self) -> str:
        """The card of the task's channel: plain lines, the first says how it went."""
        good = sum(check.good for check in self.checks)
        lines = [f"Isolation: {good} of {len(self.checks)} checks passed"]
        if not self.passed:
            lines.append("The task was not started:")
        lines += [f"- {check.name}: {check.detail}" for check in self.checks if _failed(check)]
        opened = [check for check in self.checks if not check.good and not check.required]
        if opened:
            lines.append("Not closed, and not required:")
            lines += [f"- {check.name}: {check.detail}" for check in opened]
        lines += [
            f"{check.name}: {check.detail}" for check in self.checks if check.name in TOLD and check.good
        ]
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """The same for programs: passed, at, and the checks in order."""
        return {
            "passed": self.passed,
            "at": self.at,
            "checks": [attrs.asdict(check) for check in self.checks],
        }


def _failed(check: Check) -> bool:
    return check.required and not check.good


def failed(detail: str, at: int) -> Report:
    """The report when nothing could be found out."""
    return Report((Check("probe", "unknown", True, detail),), at)
