"""A file for a bug report: what the checks found, versions, settings and the end of the log, without secrets.

Whoever sends it can read it first: it holds plain text and JSON alone, and its list is shown.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from collections import deque
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from uaihost import __version__, config
from uaihost.doctor.model import Report
from uaihost.doctor.patient import Patient
from uaihost.doctor.stored import opened_secrets
from uaihost.logs.redaction import Redactor

# Lines of the log's end.
LINES = 500
# What is worth knowing the version of.
PACKAGES = (
    "uaihost",
    "twisted",
    "autobahn",
    "klein",
    "msgspec",
    "isal",
    "docker",
    "cryptography",
    "pyopenssl",
)
# Files of the data folder that hold a secret each, as one line.
SECRETS = ("host-token", "bridge.key", "secrets.key", "secrets.key.old", "ui-token")
TOP = "uaihost-report"


def write(path: Path, patient: Patient, report: Report) -> list[str]:
    """Write the file, mode 0600; a line for each thing in it. Blocks.

    Raises:
        OSError: it cannot be written.
    """
    hide = redactor(patient)
    parts = {
        "README.txt": _about(report),
        "checks.json": _json(report.json(), hide),
        "versions.json": _json(versions(), hide),
        "settings.json": _json(settings(patient.settings, patient.problems), hide),
        "status.json": _json(dict(patient.running.status or {}), hide),
        "log.jsonl": tail(patient.folders.log, hide),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in parts.items():
            data = text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{TOP}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, report.at // 1000
            archive.addfile(entry, io.BytesIO(data))
    return [f"{name:<15}{len(text.splitlines())} lines" for name, text in parts.items()]


def redactor(patient: Patient) -> Redactor:
    """What takes out every secret that this process can know. Blocks for small files."""
    hide = Redactor()
    for secret in (patient.settings.token, patient.settings.github_client_secret):
        if secret:
            hide.learn(secret)
    for setting in config.SETTINGS:
        if setting.secret and patient.environ.get(setting.env):
            hide.learn(patient.environ[setting.env])
    for name in SECRETS:
        try:
            hide.learn((patient.folders.root / name).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            continue
    for stored in opened_secrets(patient):
        hide.learn_stored(stored)
    return hide


def versions() -> dict[str, Any]:
    """Of everything that matters."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {
        "uaihost": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": found,
    }


def settings(values: config.Settings, problems: tuple[str, ...]) -> dict[str, Any]:
    """Every setting but those that are secrets, of which only that they are set is told."""
    hidden = {setting.name for setting in config.SETTINGS if setting.secret}
    shown = {
        name: bool(value) if name in hidden else _plain(value)
        for name, value in attrs.asdict(values, recurse=False).items()
    }
    return {"settings": shown, "problems": list(problems)}


def tail(path: Path, hide: Redactor) -> str:
    """The log's last lines; it was written without secrets, and is looked through once more."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = deque(file, LINES)
    except OSError:
        return ""
    return "".join(_line(line, hide) for line in lines)


def _line(line: str, hide: Redactor) -> str:
    try:
        return json.dumps(hide.value(json.loads(line)), ensure_ascii=False) + "\n"
    except ValueError:
        return hide.text(line.rstrip("\n")) + "\n"


def _json(value: Any, hide: Redactor) -> str:
    return json.dumps(hide.value(value, 16), indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return [_plain(part) for part in value] if isinstance(value, tuple) else str(value)


def _about(report: Report) -> str:
    return (
        f"What `uaihost doctor` of uaihost {report.version} found, for a bug report.\n"
        "Tokens, keys and passwords were taken out ([secret]). Names of hosts, folders, tasks and users are\n"
        "still there: read it before you send it.\n"
    )
