"""Which kinds of agents this host offers, and who makes their adapters.

A new kind is one adapter file and one row given to the registry. It knows nothing of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    every image has it; provider: whose account must be signed in, None for none. title: for people."""

    name: str
    models: tuple[str, ...]
    make: MakeAdapter
    program: str | None = None
    provider: str | None = None
    title: str = ""


MOCK = Kind(mock.NAME, mock.MODELS, mock.MockAdapter)


class AgentRegistry:
    """The kinds that work on this host now, in the order in which they are shown."""

    def __init__(self, kinds: Sequence[Kind] = (MOCK,)) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._listeners: list[Callable[[], None]] = []

    def get(self, name: str) -> Kind:
        """The kind called `name`; HostError `invalid_args` naming what exists."""
        try:
            return self._kinds[name]
        except KeyError:
            known = ", ".join(self._kinds) or "none"
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"this host has no agent kind {name[:40]!r}; choose one of: {known}",
            ) from None

    def capabilities(self) -> list[AgentKind]:
        """What the host advertises (docs/protocol.md, section 1)."""
        return [AgentKind(kind.name, list(kind.models)) for kind in self._kinds.values()]

    def replace(self, kinds: Sequence[Kind]) -> None:
        """From now on exactly these; listeners are told if what is advertised has changed."""
        before = self.capabilities()
        self._kinds = {kind.name: kind for kind in kinds}
        if self.capabilities() != before:
            for listener in list(self._listeners):
                listener()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """`listener` is called after each change of `capabilities()`; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
