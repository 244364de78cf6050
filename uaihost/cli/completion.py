"""`uaihost completion`: what a shell loads to complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

WHERE = {
    "bash": "~/.local/share/bash-completion/completions/uaihost",
    "zsh": "a folder of $fpath, as _uaihost",
    "fish": "~/.config/fish/completions/uaihost.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(WHERE)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell; the Debian package installs bash's by itself.

    Bash: uaihost completion bash > ~/.local/share/bash-completion/completions/uaihost.
    Zsh: into a folder of $fpath, as _uaihost. Fish: ~/.config/fish/completions/uaihost.fish.
    """
    made = get_completion_class(shell)
    root = context.find_root()
    assert made is not None
    click.echo(made(root.command, {}, "uaihost", "_UAIHOST_COMPLETE").source())
