"""`uaihost run`: the host in the foreground, as a person or a supervisor of any kind runs it."""

from __future__ import annotations

import sys

import click

from uaihost.cli.said import echo


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run(options: tuple[str, ...]) -> None:
    """Run the host in the foreground: it dials the bridge at UAI_CLOUD_URL.

    OPTIONS are those of `twistd uaihost`, such as --data-dir and --config. Unlike `uaihost up` this starts no
    bridge and no engine. SIGTERM and Ctrl-C end it in order; tasks and their agents go on.
    """
    _check(options)
    from twisted.scripts.twistd import run as twistd

    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "uaihost", *options]
    twistd()


def _check(options: tuple[str, ...]) -> None:
    """What would keep the service from starting, said before it begins.

    Raises:
        click.UsageError: an option or a setting is bad.
        HostError: another host uses the data folder.
    """
    # The service's own modules install a reactor, which other verbs do without.
    from twisted.python.usage import UsageError

    from uaihost.containers.client import answers
    from uaihost.offline import DataLock
    from uaihost.paths import Folders
    from uaihost.rooms import engine_address
    from uaihost.tap import Options

    parsed = Options()
    try:
        parsed.parseOptions(list(options))
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    wanted = parsed.settings()
    DataLock(Folders(wanted.data_dir).lock).release()
    engine = engine_address(wanted)
    if not answers(engine):
        # No end: the host looks for it again and again, and private tunnels need none.
        echo(f"uaihost: no container engine answers at {engine}; tasks wait until one does", err=True)
