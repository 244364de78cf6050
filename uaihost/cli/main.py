"""The `uaihost` command: its verbs, one file per group."""

from __future__ import annotations

import sys

import click

from uaihost import __version__
from uaihost.cli.audit import audit
from uaihost.cli.demo import demo
from uaihost.cli.doctor import doctor
from uaihost.cli.gc import gc
from uaihost.cli.github import github
from uaihost.cli.image import image
from uaihost.cli.local import expose, status, unexpose
from uaihost.cli.login import accounts, login, logout
from uaihost.cli.logs import logs
from uaihost.cli.push import push
from uaihost.cli.restore import restore
from uaihost.cli.run import run
from uaihost.cli.secrets import secrets
from uaihost.cli.service import install, restart, start, stop, uninstall
from uaihost.cli.ssh_key import ssh_key
from uaihost.cli.tasks import task, tasks
from uaihost.cli.up import up
from uaihost.errors import HostError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="uaihost")
def cli() -> None:
    """A crew of coding agents on your own machine, reached through one outbound WebSocket."""


for _verb in (
    up,
    demo,
    run,
    status,
    doctor,
    tasks,
    task,
    expose,
    unexpose,
    login,
    logout,
    accounts,
    image,
    push,
    restore,
    gc,
    logs,
    github,
    ssh_key,
    audit,
    secrets,
    install,
    uninstall,
    start,
    stop,
    restart,
):
    cli.add_command(_verb)


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed with a sentence on standard error, 2 bad usage."""
    try:
        cli(standalone_mode=True)
    except HostError as error:
        click.echo(f"uaihost: {error.message}", err=True)
        sys.exit(1)
    except OSError as error:
        # A data folder that cannot be made or written, most of the time.
        click.echo(f"uaihost: {error}; UAI_DATA_DIR names another data folder", err=True)
        sys.exit(1)
