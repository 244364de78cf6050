"""Steps on a terminal: each named when it begins, with its last word while it runs and its time when done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from twisted.internet.defer import CancelledError

from uaihost.errors import HostError
from uaihost.interfaces import Doing


class Steps:
    """Prints one line per step; on a terminal the running one turns and shows its progress."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time one step; an exception marks it failed and goes on its way."""
        started = time.monotonic()
        with self._console.status(name) as status:
            current = Step(name, status, self._console)
            try:
                yield current
            except BaseException as error:
                what = error.message if isinstance(error, HostError) else (str(error) or type(error).__name__)
                what = "interrupted" if isinstance(error, CancelledError) else what
                self._console.print(f"[red]✗[/] {name}: ", end="")
                self._console.print(what, markup=False, highlight=False, soft_wrap=True)
                raise
        elapsed = time.monotonic() - started
        detail = f": {current.result}" if current.result else ""
        self._console.print("[green]✓[/] ", end="")
        self._console.print(f"{name}{detail}  ", markup=False, highlight=False, soft_wrap=True, end="")
        self._console.print(f"[dim]{elapsed:.1f} s[/]", highlight=False)


class Step:
    """The running step: `say` shows progress, `result` stands in its final line."""

    def __init__(self, name: str, status: Status, console: Console) -> None:
        self._name = name
        self._status = status
        self._console = console
        self.result = ""

    def say(self, what: str | Doing) -> None:
        """Progress in a few words; lines are kept where there is no terminal, what work is at is not."""
        if isinstance(what, Doing):
            if not self._console.is_terminal:
                return
            what = what.text if what.percent is None else f"{what.percent} % {what.text}"
        line = " ".join(what.split())[:160]
        if not line:
            return
        if self._console.is_terminal:
            self._status.update(f"{self._name} [dim]{line.replace('[', chr(92) + '[')}[/]")
        else:
            self._console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
