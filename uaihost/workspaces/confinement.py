"""What a git that reads an agent's objects may do at most, whatever a fault in git lets them make of it.

A run that needs no network keeps a list of folders that it may read and a shorter one that it may write
(Landlock, kernel 5.19 and later), may execute what the machine has installed and nothing else, opens no
socket and drives no other process (seccomp), keeps three of root's rights, and gets a bounded heap. Nothing
here is asked of git: the kernel refuses. Where a kernel has not all of it the rest holds; `missing` tells.

Knows nothing of repositories. On other systems than Linux there is nothing of this.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from uaihost.children import Last
from uaihost.workspaces.filters import deny

__all__ = ["Confinement", "heap"]

# landlock(7), the uapi header linux/landlock.h. System calls since 5.13 have one number everywhere.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_WRITE = (
    _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
)
# The first version in which a file can be renamed from one folder to another, as git does.
_FIRST_ABI = 2
# By version: the rights over files that it knows, TCP (bind, connect), signals and abstract sockets.
_FILES = {2: 14, 3: 15, 4: 15, 5: 16}
_TCP, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6

# openat2(2): struct open_how with O_PATH | O_CLOEXEC, and RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH.
_OPENAT2 = 437
_NO_LINKS = struct.pack("=3Q", getattr(os, "O_PATH", 0) | os.O_CLOEXEC, 0, 0x04 | 0x08)
# Levels of the daemon's folder that no agent can change: a kind of things, and one of them.
_OURS = 2

# prctl(2).
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 38, 22, 24
_MODE_FILTER = 2
# capabilities(7): passing over the modes of files that belong to a container's user. There are at most 64.
_KEPT = {1, 2, 3}
_CAPABILITIES = 64

# Where programs and what they are linked with lie, on the systems that have such places.
_PROGRAMS = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
)
_FACTS = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)

# Bytes of heap: a repository of ten million objects wants about 1 GiB. A share of the machine's memory, since
# several run at once.
LEAST_HEAP, MOST_HEAP, SHARE = 2 << 30, 8 << 30, 4

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def heap() -> int:
    """Bytes that one git may have of its own; mapped files are not counted (RLIMIT_DATA, setrlimit(2))."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(LEAST_HEAP, min(MOST_HEAP, whole // SHARE))


@attrs.frozen
class Confinement:
    """landlock: the version that the kernel speaks, 0 for none; filtered: whether system calls are filtered.

    memory: bytes of heap of each process.
    """

    landlock: int
    filtered: bool
    memory: int
    _programs: tuple[str, ...] = ()
    _filter: bytes = b""

    @classmethod
    def of_this_machine(cls, program: str = "git") -> Confinement:
        """All that the kernel has; `program` is what will be run."""
        if _libc is None:
            return cls(0, False, 0)
        version = int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION))
        words = deny(platform.machine())
        found = shutil.which(program)
        own = [str(Path(found).resolve().parent.parent)] if found else []
        return cls(version if version >= _FIRST_ABI else 0, bool(words), heap(), (*_PROGRAMS, *own), words)

    @property
    def missing(self) -> tuple[str, ...]:
        """What this machine has not, for people."""
        return (
            *(() if self.landlock else ("Landlock",)),
            *(() if self.filtered else ("a filter of system calls",)),
        )

    @contextmanager
    def around(
        self,
        reads: Iterable[Path],
        writes: Iterable[Path],
        data: Path,
        *,
        drop: bool,
        processor: int | None = None,
    ) -> Iterator[Last]:
        """What a child of ours is to call between fork and exec, while the block lasts.

        reads, writes: folders; what does not exist is not there for the child either. data: the daemon's own,
            in which a link may stand for a folder of the first two levels; what lies behind any other is not
            there for the child.
        drop: whether root's rights go as well; not where the program that is run has still to give them up.
        processor: seconds of processor time, after which it is ended (SIGXCPU).
        """
        ruleset = self._ruleset(reads, writes, data) if self.landlock else -1
        program = _filter_program(self._filter) if self.filtered else None
        try:
            keeps = (ruleset,) if ruleset >= 0 else ()
            yield Last(lambda: self._enter(ruleset, program, drop, processor), keeps)
        finally:
            if ruleset >= 0:
                os.close(ruleset)

    def limited(self) -> None:
        """The part for a run that needs the network: bounded heap, no core file."""
        if self.memory:
            _lower(resource.RLIMIT_DATA, self.memory)
            _lower(resource.RLIMIT_CORE, 0)

    def _enter(
        self, ruleset: int, program: ctypes.Array[ctypes.c_char] | None, drop: bool, processor: int | None
    ) -> None:
        """In the child. What fails here must not go on to exec: the child ends by the exception."""
        if _libc is None:
            return
        self.limited()
        if processor is not None:
            # At the second bound it is KILL, of which nobody can say the reason.
            _lower(resource.RLIMIT_CPU, processor, 5)
        if drop and os.geteuid() == 0:
            for number in range(_CAPABILITIES):
                if number not in _KEPT:
                    _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        if ruleset >= 0 or program is not None:
            _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        if ruleset >= 0:
            _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
            os.close(ruleset)
        if program is not None:
            _check(_libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0))

    def _ruleset(self, reads: Iterable[Path], writes: Iterable[Path], data: Path) -> int:
        assert _libc is not None
        known = (1 << _FILES[min(self.landlock, max(_FILES))]) - 1
        fields = [known]
        if self.landlock >= _TCP_SINCE:
            fields.append(_TCP)
        if self.landlock >= _SCOPES_SINCE:
            fields.append(_SCOPES)
        packed = struct.pack(f"={len(fields)}Q", *fields)
        ruleset = _check(_libc.syscall(_CREATE_RULESET, packed, len(packed), 0))
        try:
            for name in self._programs:
                _allow(ruleset, _opened(name), (_READ | _EXECUTE) & known)
            for name in _FACTS:
                _allow(ruleset, _opened(name), _READ & known)
            _allow(ruleset, _opened("/dev/null"), (_READ_FILE | _WRITE_FILE | _TRUNCATE) & known)
            for path in reads:
                _allow(ruleset, _opened_below(data, path), _READ & known)
            for path in writes:
                _allow(ruleset, _opened_below(data, path), _WRITE & known)
        except BaseException:
            os.close(ruleset)
            raise
        return ruleset


def _opened(path: Path | str) -> int | None:
    """A descriptor of what is there, which allows nothing by itself; None for nothing."""
    with suppress(OSError):
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    return None


def _opened_below(data: Path, path: Path) -> int | None:
    """The same, and no link is followed in what an agent may have made."""
    assert _libc is not None
    try:
        parts = path.relative_to(data).parts
    except ValueError:
        return _opened(path)
    top = _opened(data.joinpath(*parts[:_OURS]))
    if top is None or not parts[_OURS:]:
        return top
    try:
        rest = os.fsencode("/".join(parts[_OURS:]))
        found = _libc.syscall(_OPENAT2, top, rest, _NO_LINKS, len(_NO_LINKS))
        return found if found >= 0 else None
    finally:
        os.close(top)


def _allow(ruleset: int, descriptor: int | None, rights: int) -> None:
    assert _libc is not None
    if descriptor is None:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_A_FILE
        _check(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0))
    finally:
        os.close(descriptor)


def _filter_program(words: bytes) -> ctypes.Array[ctypes.c_char]:
    """struct sock_fprog: the number of instructions and where they are. They are kept alive by it."""
    code = ctypes.create_string_buffer(words, len(words))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(words) // 8, ctypes.addressof(code)))
    program.code = code  # type: ignore[attr-defined]
    return program


def _lower(which: int, value: int, more: int = 0) -> None:
    """Bound a resource; `more` is what lies between being told of it and being ended for it."""
    _, hard = resource.getrlimit(which)
    most = value + more if hard == resource.RLIM_INFINITY else min(value + more, hard)
    resource.setrlimit(which, (min(value, most), most))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
