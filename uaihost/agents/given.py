"""Decisions on their way to an agent: each by the number of the line that tells it. Pure."""

from __future__ import annotations

from collections.abc import Callable

from uaihost.state.channel import PermissionRow


class Given:
    """Those that the process may not have read yet: when it is gone, the next one has to be told."""

    def __init__(self) -> None:
        self._rows: dict[int, PermissionRow] = {}

    def add(self, number: int, row: PermissionRow) -> None:
        self._rows[number] = row

    def read(self, below: int) -> None:
        """The process has read every line below this number."""
        for number in [number for number in self._rows if number < below]:
            del self._rows[number]

    def take(self, missed: Callable[[int], bool]) -> list[PermissionRow]:
        """The process is gone: those in lines that it missed, in order. The rest have taken effect."""
        rows = [row for number, row in sorted(self._rows.items()) if missed(number)]
        self._rows.clear()
        return rows
