"""The verb that frees disk: what the daemon does by itself, now, or only what it would do."""

from __future__ import annotations

from typing import Any

import click

from uaihost.cli.absence import nobody
from uaihost.cli.lines import size
from uaihost.cli.local import ask, settings
from uaihost.cli.said import echo, echo_json
from uaihost.paths import Folders

# Seconds: measuring and saving large work copies takes its time.
PATIENCE = 3600.0


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def gc(dry_run: bool, as_json: bool) -> None:
    """Free disk where it is over its budget, in the order of docs/recovery.md.

    Work goes last, and only after it was saved; saved work, transcripts and attachments never go.
    """
    control = Folders(settings().data_dir).control_socket
    answer = ask(control, "POST", "/api/clean", {"dryRun": dry_run}, PATIENCE)
    if answer is None:
        raise nobody()
    if as_json:
        echo_json(answer, indent=2)
    else:
        echo(report(answer, dry_run))


def report(answer: dict[str, Any], dry_run: bool) -> str:
    """What went, or would go, for people."""
    lines = [f"{size(count):>10}  {name}" for name, count in answer["classes"].items() if count]
    used = answer["usedBytes"]
    of = "not measured" if used is None else size(used)
    lines.append(f"{of} of {size(answer['budgetBytes'])} in use, {size(answer['freeBytes'])} free")
    word = "would remove" if dry_run else "removed"
    for one in answer["removed"]:
        lines.append(f"{word} {one['what']} ({one['class']}, {size(one['bytes'])}): {one['why']}")
        lines.append(f"    to get it back: {one['how']}")
    lines += [f"kept {one['what']}: {one['why']}" for one in answer["kept"]]
    if not answer["removed"]:
        lines.append("nothing to remove" if not answer["kept"] else "nothing that may be removed")
    return "\n".join(lines)
