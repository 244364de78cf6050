"""The `uaihost` command: its verbs, one file per group, each imported when it is asked for."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

import click

from uaihost import __version__
from uaihost.cli.exits import conclude

# Each verb's module of this room, by the title under which the help shows it. The name there is the verb's
# with _ for -.
VERBS = {
    "Run": {"up": "up", "run": "run", "demo": "demo"},
    "Look": {
        "status": "local",
        "tasks": "tasks",
        "task": "tasks",
        "logs": "logs",
        "doctor": "doctor",
        "audit": "audit",
        "version": "version",
    },
    "Work": {"push": "push", "restore": "restore", "expose": "local", "unexpose": "local"},
    "Accounts": {
        "login": "login",
        "logout": "login",
        "accounts": "login",
        "github": "github",
        "ssh-key": "ssh_key",
    },
    "Service": {
        "install": "service",
        "uninstall": "service",
        "start": "service",
        "stop": "service",
        "restart": "service",
        "drain": "drain",
    },
    "Keep": {
        "config": "settings",
        "image": "image",
        "gc": "gc",
        "secrets": "secrets",
        "backup": "backup",
        "completion": "completion",
    },
}
_MODULES = {verb: module for group in VERBS.values() for verb, module in group.items()}


class Verbs(click.Group):
    """A group whose verbs cost nothing until they are used: most of them never touch a reactor."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        found = getattr(import_module(f"uaihost.cli.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _MODULES, n=2)
            if near and args[0] not in _MODULES:
                raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in VERBS.items():
            rows = []
            for verb in group:
                command = self.get_command(ctx, verb)
                assert command is not None
                rows.append((verb, command.get_short_help_str(limit=90)))
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="uaihost")
def cli() -> None:
    """A crew of coding agents on your own machine, reached through one outbound WebSocket.

    `uaihost up` runs everything on this machine; `uaihost doctor` says what is wrong and what to type.
    """


def main() -> None:
    """The console script; statuses are those of cli.exits."""
    sys.exit(conclude(lambda: cli(prog_name="uaihost", standalone_mode=False), sys.argv[1:]))
