"""The table of agent kinds, and which of them work on this host now.

A kind works when its program is in the task image and somebody is signed in to its provider. A new kind is
one adapter file and one row here (docs/agents.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from uaihost.agents import acp_programs, claude, codex
from uaihost.agents.registry import MOCK, AgentRegistry, Kind
from uaihost.interfaces import Accounts

CLAUDE = Kind(
    claude.NAME, claude.MODELS, claude.ClaudeAdapter, claude.PROGRAM, provider="claude", title=claude.TITLE
)
CODEX = Kind(codex.NAME, codex.MODELS, codex.CodexAdapter, codex.PROGRAM, provider="codex", title=codex.TITLE)

OPENCODE = Kind(
    acp_programs.OPENCODE,
    acp_programs.OPENCODE_MODELS,
    acp_programs.opencode,
    acp_programs.OPENCODE,
    provider="claude",
    title=acp_programs.OPENCODE_TITLE,
    forms=("key",),
)

# In the order in which people see them.
KINDS = (CLAUDE, CODEX, OPENCODE, MOCK)


def table(own: Sequence[tuple[str, Sequence[str]]] = ()) -> list[Kind]:
    """All kinds; own: the owner's programs that speak the Agent Client Protocol, name and command."""
    names = {kind.name for kind in KINDS}
    more = [
        Kind(name, ("default",), partial(acp_programs.own, name, tuple(command)), title=name)
        for name, command in own
        if name not in names
    ]
    return [*KINDS, *more]


def why_not(kinds: Sequence[Kind], programs: Collection[str], accounts: Accounts) -> dict[str, str]:
    """Kinds that do not work now, and what the owner can do. programs: what the task image holds."""
    found = {}
    for kind in kinds:
        if kind.program is not None and kind.program not in programs:
            found[kind.name] = (
                f"the task image has no {kind.program}; the standard image has it: UAI_TASK_IMAGE=standard"
            )
        elif kind.provider is not None:
            form = accounts.account(kind.provider).form
            if form == "none":
                found[kind.name] = f"nobody is signed in; on the host type: uaihost login {kind.provider}"
            elif kind.forms and form not in kind.forms:
                wanted = " or ".join(kind.forms)
                found[kind.name] = (
                    f"it needs {kind.provider} signed in by {wanted}, not by {form}; on the host type: "
                    f"uaihost login {kind.provider} --api-key"
                )
    return found


class Offer:
    """Keeps a registry at what works now. programs: what the task image holds, now."""

    def __init__(
        self,
        registry: AgentRegistry,
        kinds: Sequence[Kind],
        accounts: Accounts,
        programs: Callable[[], Collection[str]],
    ) -> None:
        self._registry = registry
        self._kinds = kinds
        self._accounts = accounts
        self._programs = programs
        self._forget: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Look now, and after each change of a sign-in; until `stop`."""
        self._forget = self._accounts.on_change(lambda provider: self._look())
        self._look()

    def stop(self) -> None:
        self._forget()

    def _look(self) -> None:
        self._registry.replace(self._kinds, why_not(self._kinds, self._programs(), self._accounts))
