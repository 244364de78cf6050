"""The shared tool versions on disk: what is there, since when it was not used, and how one comes in or goes.

    tools/installs/<tool>/<version>/   as mise installs it; /opt/uai-tools/installs/... in every container
    tools/index.json     sizes, last uses, and which version answered a prefix, `latest` or `lts`
    tools-new/<name>/    where a container installs one version, with its sockets; no task sees it
    tools-new/gone-*/    what is being deleted

A version appears by one rename when it is whole. Tasks see `tools` read-only; what an installer leaves is
taken over without following links. Everything here blocks. It must not know containers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import msgspec
from twisted.logger import Logger

from uaihost.containers.tool_versions import Request, legal_version
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders

log = Logger()

# In a task's control folder: what shim/tools.py links into the home folder.
CONTROL_FILE = "tools.json"
INSTALLS = "installs"
# Folders of an installer, and what they are mounted as.
STAGED = {"tools": "/opt/uai-tools", "home": "/home/dev", "tmp": "/tmp", "run": "/run/uai"}
# Seconds for which the answer to `latest`, `lts` or a prefix holds: newer releases come in by the week.
ANSWER_LIMIT = 7 * 86400.0
# Seconds by which a last use may be late in the index: it is compared by days.
USE_GRAIN = 3600.0


@attrs.frozen
class ToolVersion:
    """bytes: on disk; last_used: seconds since the epoch; tasks: the ids of those that have it linked."""

    name: str
    version: str
    bytes: int
    last_used: float
    tasks: tuple[str, ...] = ()


class Project(msgspec.Struct, frozen=True):
    """A project's entry in a task's tools.json. tools: names and whole versions; notes: for people."""

    tools: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class _Kept(msgspec.Struct):
    bytes: int
    used: float


class _Index(msgspec.Struct):
    """versions: by `tool@version`; answers: the version that answered `tool@asked`, and when."""

    versions: dict[str, _Kept] = msgspec.field(default_factory=dict)
    answers: dict[str, tuple[str, float]] = msgspec.field(default_factory=dict)


class ToolStore:
    """uid, gid: the containers' user. clock: seconds since the epoch."""

    def __init__(self, folders: Folders, uid: int, gid: int, clock: Callable[[], float]) -> None:
        self._folders = folders
        self._root = folders.tools
        # Beside it, on the same file system, so that a rename brings a version in.
        self._new = folders.tools.with_name("tools-new")
        self._owner = (uid, gid)
        self._clock = clock
        self._lock = threading.Lock()
        self._read: _Index | None = None

    def answers(self, requests: Iterable[Request]) -> dict[Request, str]:
        """The installed version for each request that one answers."""
        with self._lock:
            found = {}
            for request in requests:
                version = self._answer(request, ANSWER_LIMIT)
                if version is not None:
                    found[request] = version
            return found

    def old_answer(self, request: Request) -> str | None:
        """What once answered the request and is still there, for when nothing newer can be had."""
        with self._lock:
            return self._answer(request, float("inf"))

    def stage(self, name: str) -> Path:
        """A folder for one installer, with the folders of STAGED in it, which are the container's user's."""
        self._new.mkdir(parents=True, mode=0o700, exist_ok=True)
        folder = self._new / name
        folder.mkdir()
        for part in STAGED:
            inner = folder / part
            inner.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(inner, *self._owner)
        return folder

    def adopt(self, stage: Path, request: Request) -> str:
        """Take over what was installed for the request, and return its version. Nobody writes there any more.

        Raises:
            HostError: `unavailable`; there is not exactly one version.
        """
        with contextlib.ExitStack() as opened:
            inside = _opened(opened, stage / "tools")
            for part in (INSTALLS, request.name):
                inside = _opened(opened, part, inside)
            every = os.listdir(inside)  # noqa: PTH208 - of a descriptor
            names = [name for name in every if legal_version(name) and _is_folder(name, inside)]
            if len(names) != 1:
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"the installation of {request} left {len(names)} versions instead of one",
                )
            version = names[0]
            made = _opened(opened, version, inside)
            # To move a folder is to write its "..".
            os.fchmod(made, 0o755)
            size = _size(made)
            # A power failure after the rename must not find empty files under the final name.
            os.sync()
            target = self._root / INSTALLS / request.name
            target.mkdir(parents=True, exist_ok=True)
            with self._lock:
                try:
                    os.rename(version, version, src_dir_fd=inside, dst_dir_fd=_opened(opened, target))
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    # Another request came to the same version; the one that tasks may use already stays.
                index, now = self._index(), self._clock()
                index.versions[f"{request.name}@{version}"] = _Kept(size, now)
                index.answers[str(request)] = (version, now)
                self._write(index)
        return version

    def discard(self, stage: Path) -> None:
        """Delete what an installer left."""
        self._delete(stage)

    def settle(self, task_id: str, projects: Mapping[str, Project]) -> None:
        """Say in the task's control folder what its projects get; these versions are in use from now on."""
        used = {f"{name}@{version}" for project in projects.values() for name, version in project.tools}
        content = msgspec.json.encode(projects)
        with self._lock:
            index, now = self._index(), self._clock()
            stale = [key for key in used & set(index.versions) if now - index.versions[key].used > USE_GRAIN]
            for key in stale:
                index.versions[key].used = now
            if stale:
                self._write(index)
            path = self._folders.control(task_id) / CONTROL_FILE
            with contextlib.suppress(FileNotFoundError):
                if path.read_bytes() == content:
                    return
            _replace(path, content, 0o444)

    def list(self) -> list[ToolVersion]:
        """Every version that is there, the one that was not used for longest first."""
        with self._lock:
            users = self._users()
            found = []
            for key, kept in self._index().versions.items():
                name, _, version = key.partition("@")
                found.append(ToolVersion(name, version, kept.bytes, kept.used, tuple(users.get(key, ()))))
        return sorted(found, key=lambda one: one.last_used)

    def remove(self, name: str, version: str) -> None:
        """Delete a version. One that is not there is no error.

        Raises:
            HostError: `conflict`; a task has it.
        """
        key = f"{name}@{version}"
        gone = self._new / f"gone-{secrets.token_hex(8)}"
        with self._lock:
            users = self._users().get(key)
            if users:
                raise HostError(ErrorCode.CONFLICT, f"{key} is in use by task {', '.join(users)}")
            index = self._index()
            if index.versions.pop(key, None) is None:
                return
            self._write(index)
            self._new.mkdir(parents=True, mode=0o700, exist_ok=True)
            path = self._root / INSTALLS / name / version
            with contextlib.suppress(FileNotFoundError):
                path.rename(gone)
        self._delete(gone)

    def sweep(self, living: Collection[str] = ()) -> None:
        """Delete what a daemon that was killed left half-made or half-deleted. living: stages in use."""
        for path in _entries(self._new):
            if path.name not in living:
                self._delete(path)

    # ---- with the lock held --------------------------------------------------------------------------------

    def _answer(self, request: Request, limit: float) -> str | None:
        if (self._root / INSTALLS / request.name / request.version).is_dir():
            return request.version
        version, at = self._index().answers.get(str(request), ("", 0.0))
        if version and self._clock() - at <= limit:
            return version if (self._root / INSTALLS / request.name / version).is_dir() else None
        return None

    def _index(self) -> _Index:
        """The index, made to agree with what is there: the folders count."""
        if self._read is None:
            try:
                index = msgspec.json.decode((self._root / "index.json").read_bytes(), type=_Index)
            except (OSError, msgspec.MsgspecError):
                index = _Index()
            there = dict(self._installed())
            index.versions = {key: kept for key, kept in index.versions.items() if key in there}
            for key, path in there.items():
                if key not in index.versions:
                    with contextlib.ExitStack() as opened:
                        index.versions[key] = _Kept(_size(_opened(opened, path)), self._clock())
            self._read = index
        return self._read

    def _installed(self) -> Iterator[tuple[str, Path]]:
        for tool in _entries(self._root / INSTALLS):
            for version in _entries(tool):
                if version.is_dir() and not version.is_symlink():
                    yield f"{tool.name}@{version.name}", version

    def _write(self, index: _Index) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        _replace(self._root / "index.json", msgspec.json.encode(index), 0o644)

    def _users(self) -> dict[str, Sequence[str]]:
        """The tasks that have a version, by `tool@version`."""
        users: dict[str, list[str]] = {}
        for task in _entries(self._folders.tasks):
            try:
                content = (task / "control" / CONTROL_FILE).read_bytes()
                projects = msgspec.json.decode(content, type=dict[str, Project])
            except (OSError, msgspec.MsgspecError):
                continue
            keys = {f"{name}@{version}" for one in projects.values() for name, version in one.tools}
            for key in keys:
                users.setdefault(key, []).append(task.name)
        return {key: sorted(tasks) for key, tasks in users.items()}

    def _delete(self, path: Path) -> None:
        with contextlib.suppress(RecursionError):
            # Deeper than Python goes by itself; nothing of it is in use.
            shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            # A tool may make its folders read-only, as Go does, which binds everybody but root.
            for folder, names, _ in os.walk(path):
                for name in names:
                    inner = Path(folder, name)
                    if not inner.is_symlink():
                        inner.chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            log.warn("cannot delete {path}; delete it by hand", path=path)


def _opened(stack: contextlib.ExitStack, path: str | Path, inside: int | None = None) -> int:
    """A folder's descriptor, without following a link; closed with the stack.

    Raises:
        HostError: `unavailable`; there is no such folder.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, dir_fd=inside)
    except OSError as error:
        raise HostError(
            ErrorCode.UNAVAILABLE, f"the installation left no folder {Path(path).name}: {error.strerror}"
        ) from None
    stack.callback(os.close, descriptor)
    return descriptor


def _is_folder(name: str, inside: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode)


def _size(folder: int) -> int:
    """Bytes on disk below the folder; links are not followed."""
    total = 0
    for _, folders, files, at in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        for name in folders + files:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(name, dir_fd=at, follow_symlinks=False).st_blocks * 512
    return total


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write the file so that a reader sees the old content or the new, whole."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)
