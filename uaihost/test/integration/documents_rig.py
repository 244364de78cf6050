"""Surroundings in which documents are read: home, ports, data folder and engine of the reader's own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.test.documents import Command
from uaihost.test.integration.engine import docker_host, real_engine, task_image
from uaihost.test.integration.processes import BIN, free_port


async def surroundings(case: TestCase, folder: Path) -> dict[str, str]:
    """The environment of somebody who has nothing yet, below `folder`; the small task image is there."""
    await task_image(case)
    host_id = f"test-{secrets.token_hex(6)}"
    await real_engine(case, host_id)
    return {
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        **{name: os.environ[name] for name in ("UAI_BASE_IMAGE",) if name in os.environ},
        "HOME": str(folder),
        "USER": "me",
        "LANG": "C.UTF-8",
        "UAI_DATA_DIR": str(folder / "data"),
        "UAI_HOST_ID": host_id,
        "UAI_HOST_BRIDGE_PORT": str(free_port()),
        "UAI_HOST_UI_PORT": str(free_port()),
        "UAI_TASK_IMAGE": "small",
        "DOCKER_HOST": await docker_host(),
    }


def by_page(commands: Sequence[Command]) -> list[tuple[str, list[Command]]]:
    """Commands of each page, in order."""
    return [(page, list(found)) for page, found in groupby(commands, lambda command: command.page)]
