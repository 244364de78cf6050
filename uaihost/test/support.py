"""What many tests share: the Hypothesis profile and a temporary folder that keeps no trace."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

__all__ = ["given", "settings", "short_folder", "strategies"]

# The same cases every time, however slow the machine: a failure is a failure of the code.
settings.register_profile(
    "uaihost",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("uaihost")


def short_folder(case: SynchronousTestCase) -> Path:
    """A fresh folder with a short path (Unix socket names hold 107 bytes), removed after the test."""
    folder = Path(tempfile.mkdtemp(prefix="uai-", dir="/tmp"))
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder
