"""Which kinds of agents this host offers, and who makes their adapters.

A new kind is one adapter file and one row given to the registry. It knows nothing of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from uaihost.agents import mock
from uaihost.agents.adapter import Adapter, AgentSettings
from uaihost.errors import ErrorCode, HostError
from uaihost.wire.frames import AgentKind

# The settings and the memory of the adapter before it ("" for none).
MakeAdapter = Callable[[AgentSettings, str], Adapter]


@attrs.frozen
class Kind:
    """models: what a person may choose, the default first. program: what the task image must hold, None where
    every image has it; provider: whose account must be signed in, None for none; forms: the forms of sign-in
    that it can use, empty for all. title: for people."""

    name: str
    models: tuple[str, ...]
    make: MakeAdapter
    program: str | None = None
    provider: str | None = None
    title: str = ""
    forms: tuple[str, ...] = ()


MOCK = Kind(mock.NAME, mock.MODELS, mock.MockAdapter)


class AgentRegistry:
    """The kinds that this host knows, in the order in which they are shown, and which of them work now."""

    def __init__(self, kinds: Sequence[Kind] = (MOCK,), why_not: Mapping[str, str] | None = None) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._why_not = dict(why_not or {})
        self._listeners: list[Callable[[], None]] = []

    def known(self, name: str) -> Kind | None:
        """The kind called `name`, whether it works now or not."""
        return self._kinds.get(name)

    def get(self, name: str) -> Kind:
        """The kind called `name`; HostError naming what exists, or what to do so that it works."""
        kind = self._kinds.get(name)
        if kind is None:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"this host has no agent kind {name[:40]!r}; choose one of: {self._names()}",
            )
        if name in self._why_not:
            raise HostError(ErrorCode.UNAVAILABLE, f"{name} does not work here: {self._why_not[name]}")
        return kind

    def capabilities(self) -> list[AgentKind]:
        """What the host advertises (docs/protocol.md, section 1)."""
        return [
            AgentKind(kind.name, list(kind.models))
            for kind in self._kinds.values()
            if kind.name not in self._why_not
        ]

    def overview(self) -> list[dict[str, str | None]]:
        """Each kind for the owner: its name, its title, and why it does not work, None if it does."""
        return [
            {"kind": kind.name, "title": kind.title or kind.name, "problem": self._why_not.get(kind.name)}
            for kind in self._kinds.values()
        ]

    def replace(self, kinds: Sequence[Kind], why_not: Mapping[str, str] | None = None) -> None:
        """From now on exactly these; listeners are told if what is advertised has changed."""
        before = self.capabilities()
        self._kinds = {kind.name: kind for kind in kinds}
        self._why_not = dict(why_not or {})
        if self.capabilities() != before:
            for listener in list(self._listeners):
                listener()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """`listener` is called after each change of `capabilities()`; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _names(self) -> str:
        return ", ".join(name for name in self._kinds if name not in self._why_not) or "none"
