"""The host as a service: installed, switched on, running, and by whose unit."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import attrs

from uaihost.doctor.model import Finding, fail, ok, skipped, together, warn
from uaihost.doctor.patient import Patient, readable
from uaihost.errors import HostError
from uaihost.services.description import BRIDGE, HOST, PROGRAMS, Kind
from uaihost.services.given import config_folder
from uaihost.services.install import user_manager
from uaihost.services.machine import Machine, Run
from uaihost.services.machine import look as look_at_machine
from uaihost.services.machine import run as run_program
from uaihost.services.managers import State, Systemd, manager_of

# Where systemd notes whose services go on without a session (loginctl(1)).
LINGERING = Path("var/lib/systemd/linger")
# Where an owner's units lie, which go before a package's (systemd.unit(5)).
OWNERS = Path("etc/systemd/system")


@attrs.frozen
class Installed:
    """A service that is there.

    title: of its manager; systemd: whether that is one. state: None where the manager could not be asked;
    problem: why. command: how this person types `uaihost` about it. ends: whose leaving ends it. hidden: a
    file that takes the place of the package's unit.
    """

    kind: Kind
    title: str
    systemd: bool
    state: State | None
    problem: str = ""
    command: str = "uaihost"
    ends: str = ""
    hidden: Path | None = None
    bridge: bool = False

    @property
    def systemctl(self) -> str:
        return "systemctl --user" if self.kind == "user" else "sudo systemctl"

    @property
    def why(self) -> str:
        """What shows why it ended."""
        user = "--user " if self.kind == "user" else ""
        return f"journalctl {user}-u {HOST} -n 50" if self.systemd else "uaihost logs"


async def service(patient: Patient) -> Finding:
    """How the service manager sees the host, where it was installed as a service."""
    return await patient.blocking.call(look_at_service, patient)


def look_at_service(patient: Patient) -> Finding:
    """Blocks."""
    found = installed(patient)
    if found is None:
        return skipped("this machine has no service manager that is known")
    if not found:
        said = (
            "it runs, and not as a service: it ends with its terminal" if patient.lives else "not installed"
        )
        return warn(f"{said}; after a restart of the machine it is not there", "uaihost install")
    return judged(found[0])


def judged(found: Installed) -> Finding:
    """What is wrong with a service that is there. Pure."""
    state = found.state
    if state is None and found.ends:
        return fail(
            f"{found.title} does not run while {found.ends} is not logged in, and the service with it",
            f"sudo loginctl enable-linger {found.ends}",
            f"{found.command} start",
        )
    if state is None:
        return warn(
            f"the service is installed, and {found.title} could not be asked how it is: {found.problem}",
            f"{found.systemctl} status {HOST}" if found.systemd else "uaihost status",
        )
    facts = {
        "manager": found.title,
        "enabled": state.enabled,
        "running": state.running,
        "detail": state.detail,
    }
    findings = [ok(f"{found.title}: {state.detail}", **facts)]
    start = f"{found.command} start"
    if found.hidden is not None:
        findings.append(
            (warn if state.running else fail)(
                f"{found.hidden} takes the place of the unit of Debian's package ({state.detail})",
                f"sudo rm {readable(found.hidden)}",
                "sudo systemctl daemon-reload",
                f"sudo systemctl enable {HOST}",
                f"{found.command} restart",
            )
        )
    elif state.masked:
        findings.append(
            fail(
                f"{found.title} was told never to start it (masked)",
                f"{found.systemctl} unmask {HOST}",
                f"{found.systemctl} enable --now {HOST}",
            )
        )
    elif state.again:
        findings.append(fail(f"{found.title} starts it again and again: {state.detail}", found.why))
    elif not state.running and not state.enabled and found.systemd:
        findings.append(fail(f"it is switched off: {state.detail}", f"{found.systemctl} enable --now {HOST}"))
    elif not state.running:
        failed = "fail" in state.detail
        findings.append(
            fail(
                f"{found.title} has the service and it does not run: {state.detail}",
                *((found.why, start) if failed else (start, found.why)),
            )
        )
    elif not state.enabled:
        findings.append(
            warn(
                f"{found.title} runs it ({state.detail}), and will not after a restart of the machine",
                f"{found.systemctl} enable {HOST}" if found.systemd else "uaihost install",
            )
        )
    if found.ends:
        findings.append(
            warn(
                f"it ends when {found.ends} logs out, and starts only when {found.ends} logs in",
                f"sudo loginctl enable-linger {found.ends}",
            )
        )
    return together(findings)


def installed(patient: Patient) -> list[Installed] | None:
    """The service that is installed here, if one is; None where nothing could manage one. Blocks."""
    try:
        machine = look_at_machine(patient.environ)
    except HostError:
        return None  # An installation without its programs: no unit of anybody's is told by it.
    return of(machine, partial(run_program, environ=user_manager(patient.environ)))


def of(machine: Machine, run: Run) -> list[Installed] | None:
    """The like, of a machine. A person's own goes before the machine's; root has none of his own there."""
    own: tuple[Kind, ...] = ("user",)
    shared: tuple[Kind, ...] = ("package", "system")
    managed = False
    for kind in (*shared, *own) if machine.uid == 0 else (*own, *shared):
        try:
            manager = manager_of(machine, kind, config_folder(machine, kind), run)
            managed = True
            if not manager.path(HOST).exists():
                continue
        except (HostError, OSError):
            continue
        systemd = isinstance(manager, Systemd)
        ends = machine.user if kind == "user" and systemd and not _lingers(machine) else ""
        found = Installed(
            kind,
            manager.title,
            systemd,
            None,
            command=_command(machine, kind),
            ends=ends,
            bridge=manager.path(BRIDGE).exists(),
        )
        try:
            state = manager.state(HOST)
        except (HostError, OSError) as error:
            return [attrs.evolve(found, problem=str(getattr(error, "message", error)))]
        owners = machine.root / OWNERS
        file = state.file
        hidden = file if kind == "package" and file is not None and file.is_relative_to(owners) else None
        return [attrs.evolve(found, state=state, hidden=None if state.masked else hidden)]
    return [] if managed else None


def filters(patient: Patient) -> bool:
    """Whether a service is installed here that may set the packet filter. Blocks."""
    return any(found.kind != "user" for found in installed(patient) or [])


def of_somebody_else(patient: Patient) -> bool:
    """Whether the service that is installed here is the machine's, and who asks is neither root nor its user.
    Blocks."""
    data = patient.settings.data_dir
    if patient.root or data == Path("/var/lib") / data.name:
        return False
    return filters(patient)


def bridge_starts(patient: Patient) -> tuple[str, ...]:
    """What starts the bridge that is a service of this machine, where the host dials that one. Blocks."""
    if patient.bridge[1] != patient.settings.bridge_port:
        return ()
    for found in installed(patient) or []:
        if found.bridge and found.systemd:
            return (f"{found.systemctl} enable --now {BRIDGE}", found.why.replace(HOST, BRIDGE))
        if found.bridge:
            return (f"{found.command} start",)
    return ()


def _lingers(machine: Machine) -> bool:
    return (machine.root / LINGERING / machine.user).exists()


def _command(machine: Machine, kind: Kind) -> str:
    """`uaihost` as this person types it for a service of this kind."""
    if kind == "user" or machine.uid == 0:
        return "uaihost"
    # sudo looks in the usual folders alone.
    known = shutil.which("uaihost", path=":".join(PROGRAMS))
    return f"sudo {'uaihost' if known else readable(machine.programs / 'uaihost')}"
