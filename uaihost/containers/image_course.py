"""How it stands with the task image, as far as this process has heard; nothing is decided by it."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from uaihost.errors import HostError
from uaihost.interfaces import Doing, Say

# Lines of a build that are kept: what its last steps printed.
LINES = 200


class ImageCourse:
    """state: `unknown` until the engine was asked; `missing`: the first task builds it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.state: Literal["unknown", "missing", "building", "present", "failed"] = "unknown"
        self._reference: str | None = None
        self._message: str | None = None
        self._doing: Doing | None = None
        self._since = 0.0
        self._lines: deque[str] = deque(maxlen=LINES)

    def hearing(self, say: Say) -> Say:
        """`say`, overheard."""

        def heard(what: str | Doing) -> None:
            if isinstance(what, Doing):
                if self.state != "building":
                    self._since = self._clock.seconds()
                    self._lines.clear()
                self.state, self._doing = "building", what
            else:
                self._lines.append(what)
            say(what)

        return heard

    def seen(self, reference: str | None) -> None:
        """What the engine has now; None when it has to be built."""
        if self.state == "building" or (reference is None and self.state == "failed"):
            return
        self.state, self._reference = ("missing" if reference is None else "present"), reference
        self._message = None

    def made(self, reference: str) -> None:
        """It is there, built or found."""
        self.state, self._reference, self._message, self._doing = "present", reference, None, None

    def failed(self, error: Exception) -> None:
        """It could not be built or looked for, or nobody wanted it any more."""
        self._doing = None
        if isinstance(error, CancelledError):
            self.state = "missing" if self.state == "building" else self.state
            return
        self.state = "failed"
        self._message = error.message if isinstance(error, HostError) else "a defect of the host; see its log"

    def json(self) -> dict[str, Any]:
        """`{state, reference, message, doing, percent, since, lines}`; since: milliseconds, of the build."""
        building = self.state == "building"
        return {
            "state": self.state,
            "reference": self._reference,
            "message": self._message,
            "doing": self._doing.text if self._doing is not None else None,
            "percent": self._doing.percent if self._doing is not None else None,
            "since": int(self._since * 1000) if building else None,
            "lines": list(self._lines) if self.state in ("building", "failed") else [],
        }
