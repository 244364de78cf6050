"""The newest records, for a look at the log while it is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

# Records that are kept: some hours of a quiet host, and about a megabyte.
KEPT = 1000

Record = Mapping[str, Any]


class Recent:
    """A ring of records with a number each, and whoever wants to hear of the next ones."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[tuple[int, Record]] = deque(maxlen=kept)
        self._heard: dict[int, Callable[[int, Record], None]] = {}
        self._number = 0
        self._subscription = 0

    def add(self, record: Record) -> None:
        """Keep it and tell the subscribers; one that raises is not told again."""
        self._number += 1
        self._ring.append((self._number, record))
        for key, heard in list(self._heard.items()):
            try:
                heard(self._number, record)
            except Exception:
                # Logging it would come back here.
                self._heard.pop(key, None)

    def after(self, number: int = 0) -> list[tuple[int, Record]]:
        """The kept records with a higher number, oldest first."""
        return [kept for kept in self._ring if kept[0] > number]

    def subscribe(self, heard: Callable[[int, Record], None]) -> Callable[[], None]:
        """Call `heard(number, record)` for each record from now on, until the returned function is called."""
        self._subscription += 1
        key = self._subscription
        self._heard[key] = heard
        return lambda: self._heard.pop(key, None) and None
