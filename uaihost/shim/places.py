"""Where uai-init finds things, all below one root; and what it copies into a home folder that is new."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Bytes of a file that the host wrote for us.
CONTROL_LIMIT = 4 << 20


class Places:
    """root: `/` in a container, another folder in tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "workspace"
        self.run = root / "run" / "uai"
        self.control = root / "run" / "host"
        self.home = root / "home" / "dev"
        self.skeleton = root / "opt" / "uai-skel"
        self.relay = root / "opt" / "uai" / "relay.py"
        self.tools = root / "opt" / "uai-tools" / "installs"
        self.mise = root / "usr" / "local" / "bin" / "mise"
        self.node = root / "opt" / "node" / "bin" / "node"
        self.editor = root / "opt" / "code-server"

    @property
    def shims(self) -> Path:
        """mise's programs that choose a project's version by the folder they are called in."""
        return self.home / ".local" / "share" / "mise" / "shims"

    @property
    def marks(self) -> Path:
        """What has run once; in the home folder, which outlives the container."""
        return self.home / ".local" / "state" / "uai"

    def gated(self) -> bool:
        """Whether the host opens a gate: the control folder is there and is the host's.

        An image may have the folder as a place to mount; by the mount alone it means something.
        """
        if not self.control.is_dir():
            return False
        if self.root != Path("/"):
            return True
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
        # proc_pid_mountinfo(5): the fifth field is where it is mounted.
        return any(line.split()[4] == str(self.control) for line in mounts.splitlines())

    def gate_open(self) -> bool:
        return (self.control / "go").exists()

    def fill_home(self) -> None:
        """Copy what the home folder lacks from the image's skeleton. What is there stays.

        Raises:
            OSError: the home folder cannot be written, for example.
        """
        if self.skeleton.is_dir():
            _copy(self.skeleton, self.home)


def _copy(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        there = target / path.name
        if path.is_dir() and not path.is_symlink():
            if not there.exists():
                there.mkdir()
            if there.is_dir():
                _copy(path, there)
        elif not os.path.lexists(there):
            # By a rename: a container that ends meanwhile leaves no half a file.
            fresh = target / f".{path.name}.uai"
            fresh.unlink(missing_ok=True)
            shutil.copy2(path, fresh, follow_symlinks=False)
            fresh.rename(there)
