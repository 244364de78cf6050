"""`uaihost doctor`: does it all work, and what to type where it does not."""

from __future__ import annotations

import os
import pwd
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from uaihost import config
from uaihost.blocking import Threads
from uaihost.cli.image import run
from uaihost.cli.local import ask, with_engine
from uaihost.cli.said import echo, echo_json
from uaihost.cli.terminals import terminal
from uaihost.doctor import bundle
from uaihost.doctor.checks import CHECKS
from uaihost.doctor.model import Check, Report, Result, Verdict
from uaihost.doctor.patient import Patient, running
from uaihost.doctor.run import Examination, chosen
from uaihost.errors import HostError
from uaihost.paths import Folders
from uaihost.services.description import USER
from uaihost.services.given import read_variables

# Threads: most checks wait for something else than this machine.
THREADS = 16
# Seconds for the daemon's answer: a host that is well needs milliseconds.
ANSWER = 5.0

MARKS = {
    Verdict.OK: ("ok  ", "green"),
    Verdict.WARN: ("warn", "yellow"),
    Verdict.FAIL: ("FAIL", "bold red"),
    Verdict.SKIPPED: ("-   ", "dim"),
}
COUNTED = (
    (Verdict.OK, "ok"),
    (Verdict.WARN, "to look at"),
    (Verdict.FAIL, "failed"),
    (Verdict.SKIPPED, "not looked at"),
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output (docs/doctor.md).")
@click.option("--only", multiple=True, metavar="NAME", help="This check and what it needs; may be repeated.")
@click.option("--quick", is_flag=True, help="Start no container.")
@click.option("--list", "listed", is_flag=True, help="Show the checks' names and run none.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.tar.gz",
    help="Also write a file for a bug report, without secrets; what is in it is shown.",
)
def doctor(as_json: bool, only: tuple[str, ...], quick: bool, listed: bool, report: Path | None) -> None:
    """Test the real path end to end: settings, data, bridge, engine, a container, git, agents.

    Says what to type for each thing that is wrong, and changes nothing by itself. A running host goes on
    undisturbed. Exit status: 0 when nothing failed (warnings are no failure), 1 when something did.
    """
    if listed:
        _list(as_json)
        return
    try:
        checks = chosen(CHECKS, only, quick)
    except KeyError as error:
        raise click.UsageError(
            f"there is no check {error.args[0]!r}; `uaihost doctor --list` shows them"
        ) from None
    shown = Shown(terminal(stderr=as_json, highlight=False), checks)
    environ = _environment()
    settings, problems = config.survey({}, environ, home=Path.home(), root=os.geteuid() == 0)

    async def work(reactor: Any, _: Threads) -> tuple[Report, list[str]]:
        threads = Threads(reactor, "doctor", THREADS)
        try:
            patient = await _patient(reactor, threads, environ, settings, problems)
            examination = Examination(
                patient, checks, began=shown.began, done=shown.done, sudo=not _root_without_sudo()
            )
            with shown.live(silent=as_json):
                found = await examination.run()
            held = [] if report is None else await threads.call(bundle.write, report, patient, found)
            return found, held
        finally:
            threads.stop()

    found, held = run(work)
    if as_json:
        echo_json(found.json(), indent=2)
    else:
        shown.summary(found)
    if report is not None:
        shown.bundle(report, held)
    if found.failed:
        raise click.exceptions.Exit(1)


def _list(as_json: bool) -> None:
    if as_json:
        rows = [{"name": check.name, "title": check.title, "needs": list(check.needs)} for check in CHECKS]
        echo_json(rows, indent=2)
        return
    for check in CHECKS:
        echo(f"{check.name:<18}{check.title}")


def _root_without_sudo() -> bool:
    """Whether lines are typed by root where sudo is not installed: root itself, or as the package's program
    lets root be its service's user."""
    person = pwd.getpwuid(os.geteuid()).pw_name
    return person in ("root", USER) and shutil.which("sudo") is None


def _environment() -> dict[str, str]:
    """This process's, and where it says nothing what a service of this user is started with: the token that
    `uaihost install` keeps in a file, and the variables beside it."""
    environ = dict(os.environ)
    root = os.geteuid() == 0
    above = Path("/etc") if root else Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = above / "uaihost"
    try:
        environ = {**read_variables(folder / "service.env"), **environ}
        there = (folder / "host-token").is_file()
    except (HostError, OSError, UnicodeDecodeError):
        return environ  # Another user's; the checks say what is missing.
    if there and not (environ.get("UAI_HOST_TOKEN") or environ.get("UAI_HOST_TOKEN_FILE")):
        environ["UAI_HOST_TOKEN_FILE"] = str(folder / "host-token")
    return environ


async def _patient(
    reactor: Any, threads: Threads, environ: dict[str, str], settings: config.Settings, problems: list[str]
) -> Patient:
    folders = Folders(settings.data_dir)

    def asked(method: str, path: str, body: Any) -> Any:
        return ask(folders.control_socket, method, path, body, ANSWER)

    now = await threads.call(running, asked)
    settings = with_engine(settings, now.status)
    return Patient(reactor, threads, settings, tuple(problems), environ, os.geteuid() == 0, asked, now)


class Shown:
    """What a person sees: a line for each check, in their order; on a terminal also what is looked at now."""

    def __init__(self, console: Console, checks: Sequence[Check]) -> None:
        self._console = console
        self._order = [check.name for check in checks]
        self._ready: dict[str, Result] = {}
        self._status: Status | None = None
        self._under_way: dict[str, str] = {}
        self._silent = False

    def live(self, silent: bool) -> AbstractContextManager[object]:
        """While checks run. silent: for programs; a terminal still sees that something is done."""
        self._silent = silent
        if not self._console.is_terminal:
            return nullcontext()
        self._status = self._console.status("looking")
        return self._status

    def began(self, check: Check) -> None:
        self._under_way[check.name] = check.title
        self._tell()

    def done(self, result: Result) -> None:
        """Show it, once all before it are shown."""
        self._under_way.pop(result.name, None)
        self._tell()
        self._ready[result.name] = result
        while self._order and self._order[0] in self._ready:
            self._line(self._ready[self._order.pop(0)])

    def summary(self, report: Report) -> None:
        """What to do, worst first, and how it went."""
        bad = [one for one in report.results if one.finding.fix]
        bad.sort(key=lambda one: -one.finding.verdict.badness)
        for result in bad:
            self._plain("")
            self._plain(_marked(result), (f" {result.title}: ", "bold"), result.finding.text)
            self._plain("  type:")
            for line in result.finding.fix:
                self._plain(f"    {line}")
        counts = Counter(result.finding.verdict for result in report.results)
        words = [f"{counts[verdict]} {word}" for verdict, word in COUNTED if counts[verdict]]
        self._plain("")
        self._plain(f"{', '.join(words)}, in {report.seconds:.1f} s")

    def bundle(self, path: Path, held: Sequence[str]) -> None:
        """What was written for a report."""
        self._plain(f"{path}:")
        for line in held:
            self._plain(f"  {line}")

    def _line(self, result: Result) -> None:
        if not self._silent:
            self._plain(_marked(result), f"  {result.title:<21}", result.finding.text)

    def _plain(self, *parts: str | tuple[str, str]) -> None:
        # In one call: whatever turns on a terminal is drawn anew after each.
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def _tell(self) -> None:
        if self._status is not None:
            self._status.update("looking: " + ", ".join(self._under_way.values()))


def _marked(result: Result) -> tuple[str, str]:
    """The verdict's word and its colour."""
    return MARKS[result.finding.verdict]
