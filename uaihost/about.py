"""What the work under way is about: the command and the task that whatever it logs concerns.

It follows a coroutine through everything that it awaits (contextvars), so that a line that git's caller logs
says whose command it was, without every call being handed the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_ABOUT: ContextVar[Mapping[str, str] | None] = ContextVar("uaihost.about", default=None)


@contextmanager
def about(**names: str | None) -> Iterator[None]:
    """Within it, work is about `command` and `task` of these names; None changes nothing."""
    found = {**current(), **{name: value for name, value in names.items() if value is not None}}
    token = _ABOUT.set(found)
    try:
        yield
    finally:
        # A coroutine that is thrown away ends in whoever's context that happens.
        with suppress(ValueError):
            _ABOUT.reset(token)


def current() -> Mapping[str, str]:
    """What the caller's work is about."""
    return _ABOUT.get() or {}
