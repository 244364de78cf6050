"""Where things lie: the layout of the data folder, and the files that are installed beside the code.

Names that come from outside (task ids, project slugs) become parts of paths here and nowhere else, and only
after they were checked.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import attrs

from uaihost.errors import ErrorCode, HostError

# Safe as a file name, as a part of a container's name and in a URL; a leading dot or dash is neither.
# A task's id holds no dot, because it becomes a part of one label of a host name.
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

# Bytes of a Unix socket's name without its closing NUL: sun_path holds 108 on Linux, 104 elsewhere (unix(7)).
SOCKET_LIMIT = 107 if sys.platform == "linux" else 103


def flush(path: Path) -> None:
    """Bring to the disk what a file holds, or what was made, renamed or removed in a folder. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def data_files(name: str) -> Path:
    """The folder `name` (`migrations`, `images`): the source tree's, else `<sys.prefix>/share/uaihost`'s.

    Raises:
        FileNotFoundError: it is in neither place; the installation is not complete.
    """
    beside = Path(__file__).parents[1] / name
    installed = Path(sys.prefix) / "share" / "uaihost" / name
    for folder in (beside, installed):
        # The package's parent may be site-packages, where a folder of that name could be anybody's.
        if folder.is_dir() and (folder is installed or (folder.parent / "setup.py").is_file()):
            return folder
    raise FileNotFoundError(f"neither {beside} nor {installed} exists; install uaihost again")


def public_forges() -> Path:
    """The SSH keys of public forges, in the task image and for the host's own git (sshd(8), known_hosts)."""
    return data_files("images") / "standard" / "etc" / "ssh" / "ssh_known_hosts"


def checked(value: str, what: str) -> str:
    """`value` itself when it is safe as one part of a path.

    Raises:
        HostError: `invalid_args`; the sentence names `what`.
    """
    if not _PART.match(value):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            f"the {what} {value[:40]!r} must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter "
            "or digit",
        )
    return value


def checked_task(task_id: str) -> str:
    """`task_id` itself when it can be one.

    Raises:
        HostError: `invalid_args`.
    """
    if not _TASK.match(task_id):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            f"the task id {task_id[:40]!r} must be 1 to 64 of A-Z a-z 0-9 _ - and begin with a letter "
            "or digit",
        )
    return task_id


@attrs.frozen
class Folders:
    """The layout of the data folder below `root`. Nothing is made or looked at here."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def secrets_key(self) -> Path:
        """The key that seals what the database holds of secrets."""
        return self.root / "secrets.key"

    @property
    def log(self) -> Path:
        return self.root / "uaihost.log"

    @property
    def control_socket(self) -> Path:
        """Where the command line reaches the daemon.

        Raises:
            HostError: the data folder's path is too long for it.
        """
        return self._socket(self.root / "control.sock")

    @property
    def ui_port(self) -> Path:
        """The file that names the port of the local page."""
        return self.root / "ui-port"

    @property
    def ui_token(self) -> Path:
        """The token that opens the local page."""
        return self.root / "ui-token"

    @property
    def bridge_database(self) -> Path:
        return self.root / "bridge.db"

    @property
    def bridge_port(self) -> Path:
        """The file that names the port of the bridge that runs here."""
        return self.root / "bridge.port"

    @property
    def bridge_key(self) -> Path:
        return self.root / "bridge.key"

    @property
    def host_token(self) -> Path:
        """The token that the host and the bridge of one process share."""
        return self.root / "host-token"

    @property
    def engine(self) -> Path:
        """The folder of a container engine that was started for this host alone."""
        return self.root / "engine"

    @property
    def audit(self) -> Path:
        """What credentials were used for."""
        return self.root / "audit.jsonl"

    @property
    def run_of_git(self) -> Path:
        """Sockets for runs of the host's own git; empty between them."""
        return self.root / "git"

    @property
    def samples(self) -> Path:
        """Repositories that the demonstration makes."""
        return self.root / "samples"

    @property
    def mirrors(self) -> Path:
        return self.root / "mirrors"

    def mirror(self, key: str) -> Path:
        """A bare repository."""
        return self.mirrors / f"{checked(key, 'mirror')}.git"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks"

    def task(self, task_id: str) -> Path:
        return self.tasks / checked_task(task_id)

    def work(self, task_id: str) -> Path:
        return self.task(task_id) / "work"

    def work_copy(self, task_id: str, slug: str) -> Path:
        return self.work(task_id) / checked(slug, "project slug")

    def run(self, task_id: str) -> Path:
        """Shared with the container, which can write there: its content is hostile."""
        return self.task(task_id) / "run"

    def run_socket(self, task_id: str, name: str) -> Path:
        """A Unix socket in the task's run folder.

        Raises:
            HostError: the path is too long for a socket.
        """
        return self._socket(self.run(task_id) / checked(name, "socket name"))

    def home(self, task_id: str) -> Path:
        """The home folder of the container's user; outlives the container. Hostile, like `run`."""
        return self.task(task_id) / "home"

    def scratch(self, task_id: str) -> Path:
        """/tmp of the container, emptied when it starts. Hostile, like `run`."""
        return self.task(task_id) / "scratch"

    def control(self, task_id: str) -> Path:
        """What the host tells the container: mounted there read-only, written by the host alone."""
        return self.task(task_id) / "control"

    def attachments(self, task_id: str) -> Path:
        return self.task(task_id) / "attachments"

    @property
    def saved(self) -> Path:
        """Work of tasks that are gone: bare repositories and what git could not hold. Never cleaned up."""
        return self.root / "saved"

    @property
    def exports(self) -> Path:
        """Archives that were asked for and wait to be fetched; empty when the host starts."""
        return self.root / "exports"

    @property
    def tools(self) -> Path:
        """Tool versions that tasks share: mounted read-only in each."""
        return self.root / "tools"

    @property
    def transcripts(self) -> Path:
        return self.root / "transcripts"

    def transcript(self, task_id: str) -> Path:
        """Stays when the task is down."""
        return self.transcripts / f"{checked(task_id, 'task id')}.jsonl"

    def _socket(self, path: Path) -> Path:
        length = len(os.fsencode(path))
        if length > SOCKET_LIMIT:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"{path} is {length} bytes long and a Unix socket's name holds {SOCKET_LIMIT}; "
                "set UAI_DATA_DIR to a shorter path",
            )
        return path
