"""What follows when an agent's process has ended: another start, when, or none; what people read. Pure."""

from __future__ import annotations

import attrs

# Between a crash and the next start, seconds; after as many crashes in a row as there are, it stays down.
BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0)
# After an end that was wanted, seconds: the old keeper removes its socket meanwhile.
SOON = 0.2
# Of a crashed agent's stderr, lines and characters shown to people.
SHOWN_LINES = 8
SHOWN_CHARACTERS = 1500


@attrs.frozen
class Recovery:
    """delay: seconds until it is started again, None if it is not; text: for people, "" if they know."""

    delay: float | None
    text: str


@attrs.define
class Crashes:
    """How often in a row an agent has ended without being asked to, and what was said of the last time."""

    count: int = 0
    last: str = ""

    def clear(self) -> None:
        self.count, self.last = 0, ""

    def follow(self, agent_id: str, why: str, *, planned: bool, goes_on: bool) -> Recovery:
        """It ended. planned: by us, since it did not obey; goes_on: with a turn that it was in."""
        if planned:
            text = f"@{agent_id} did not stop when asked and was ended by force; it starts again."
            return Recovery(SOON, text)
        self.count += 1
        if self.count > len(BACKOFF):
            return Recovery(
                None,
                f"@{agent_id} stopped {self.count} times in a row and stays down. {why}\n"
                f"Mend the cause, then write: /restart @{agent_id}",
            )
        delay = BACKOFF[self.count - 1]
        then = " and goes on with what it was doing" if goes_on else ""
        text = f"@{agent_id} stopped unexpectedly. {why}\nIt starts again in {delay:.0f} s{then}."
        repeated, self.last = why == self.last, why
        return Recovery(delay, "" if repeated else text)


def exit_reason(status: int, err: str) -> str:
    """A sentence from an exit status (minus the signal's number) and the end of stderr."""
    how = f"signal {-status}" if status < 0 else f"status {status}"
    tail = "\n".join(err.strip().splitlines()[-SHOWN_LINES:])[-SHOWN_CHARACTERS:]
    return f"It ended with {how}" + (f": {tail}" if tail else ".")
