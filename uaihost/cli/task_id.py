"""Which task a person means: its id, the beginning of one, or what the shell completes."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from uaihost.cli import local
from uaihost.errors import HostError
from uaihost.paths import Folders

# Characters of an id that stand for it when they are of one task alone: fewer are more likely a slip.
SHORTEST = 4


class TaskId(click.ParamType[str]):
    """An id as it is typed, or the whole one of which it is the beginning.

    What nobody here knows stays as it is: who does the work says what is wrong with it.
    """

    name = "task"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = _known()
        if value in known or len(value) < SHORTEST:
            return str(value)
        found = [one for one in known if one.startswith(value)]
        if len(found) > 1:
            shown = ", ".join(found[:5]) + (" and others" if len(found) > 5 else "")
            self.fail(f"{len(found)} tasks begin with {value}: {shown}; type more of it", param, ctx)
        return found[0] if found else str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(one) for one in _known() if one.startswith(incomplete)]


def _known() -> list[str]:
    """Tasks that the host has, and those whose chat it keeps; none where they cannot be seen."""
    try:
        folders = Folders(local.settings().data_dir)
        status = local.ask(folders.control_socket, "GET", "/api/status") or {"tasks": []}
        kept = [path.stem for path in folders.transcripts.glob("*.jsonl")]
    except (HostError, OSError, ValueError):
        return []
    return sorted({str(task["id"]) for task in status["tasks"]} | set(kept))
