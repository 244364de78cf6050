"""Patients for tests: settings from a dictionary, a folder of their own, a daemon that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from uaihost import config
from uaihost.blocking import Blocking, Inline
from uaihost.doctor.patient import Patient, Running

TOKEN = "a-token-of-the-tests-0123456789"


def patient(
    folder: Path,
    *,
    reactor: Any = None,
    blocking: Blocking | None = None,
    status: Mapping[str, Any] | None = None,
    problem: str = "",
    ask: Any = None,
    environ: Mapping[str, str] | None = None,
    **settings: str,
) -> Patient:
    """One with `folder` as data folder; settings: as environment variables."""
    given = {"UAI_DATA_DIR": str(folder), **settings}
    values, problems = config.survey({}, given, home=folder, root=False)
    return Patient(
        Clock() if reactor is None else reactor,
        Inline() if blocking is None else blocking,
        values,
        tuple(problems),
        given if environ is None else environ,
        False,
        (lambda method, path, body: None) if ask is None else ask,
        Running(status, problem),
    )
