"""The host that runs on this data folder: does it answer, is it well, is it what is installed here."""

from __future__ import annotations

from uaihost import __version__
from uaihost.doctor.model import Finding, fail, ok, together, warn
from uaihost.doctor.patient import Patient, readable
from uaihost.doctor.service import of_somebody_else

# Seconds that a timer of its reactor may be late: beyond it tunnels and chats stutter.
LAG = 0.5
# Results and events that wait for the bridge: more than a busy minute makes.
DEPTH = 1000


async def daemon(patient: Patient) -> Finding:
    """None is no failure: it may not be started yet."""
    status = patient.running.status
    if status is None:
        socket = readable(patient.folders.root / "control.sock")
        if patient.running.problem:
            return fail(
                f"a host is there and cannot be asked: {patient.running.problem}",
                f"ls -l {socket}   # who owns it? type this as that user",
                "uaihost restart",
            )
        if await patient.blocking.call(of_somebody_else, patient):
            return warn(
                "no host of yours runs; this machine's own is for root to look at", "sudo uaihost doctor"
            )
        return warn(
            "no host runs on this data folder", "uaihost start   # where it is a service", "uaihost up"
        )
    version = str(status.get("version"))
    tasks = [task for task in status.get("tasks") or [] if task.get("status") == "running"]
    facts = {"version": version, "hostId": status.get("hostId"), "tasks": len(tasks)}
    findings = [ok(f"{status.get('hostId')}, {len(tasks)} tasks run", **facts)]
    if version != __version__:
        findings.append(
            warn(
                f"it is version {version} and {__version__} is installed: it was not restarted since",
                "uaihost restart   # tasks go on meanwhile",
            )
        )
    if patient.url != patient.settings.cloud_url:
        findings.append(
            ok(f"it uses the bridge {patient.url}, other than the settings here say", bridge=patient.url)
        )
    lag = status.get("reactorLag")
    if isinstance(lag, (int, float)) and lag > LAG:
        findings.append(warn(f"it was {lag:.1f} s late at its worst: this machine is overloaded", "uptime"))
    waiting = status.get("outbox")
    if isinstance(waiting, int) and waiting > DEPTH:
        findings.append(
            warn(f"{waiting} results and events wait for the bridge", "uaihost doctor --only bridge-token")
        )
    return together(findings)
