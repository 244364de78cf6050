"""What git says of its progress, as what a task is doing."""

from __future__ import annotations

import re

from uaihost.interfaces import Doing, Say
from uaihost.wire.reasons import Reason

_PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ing [a-z ]+): +(\d+)%")


class ProgressLines:
    """Turns git's standard error into `Doing(reason, "Receiving objects", 45)`, each once."""

    def __init__(self, say: Say, reason: Reason = Reason.CLONING) -> None:
        self._say = say
        self._reason = reason
        self._rest = b""
        self._last: Doing | None = None

    def feed(self, data: bytes) -> None:
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = self._rest[-4096:]
        for line in lines:
            if found := _PROGRESS.match(line.decode("ascii", "replace")):
                doing = Doing(self._reason, found[1], min(int(found[2]), 100))
                if doing != self._last:
                    self._last = doing
                    self._say(doing)
