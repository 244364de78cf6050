"""The one place that runs git on the host.

Every run has a fixed environment, a fixed configuration that no repository can change, a deadline, a limit
on its output and a list of the ways by which it may reach another repository. Who calls is responsible for
naming only git directories of ours: in a work copy's own `.git` the agent's configuration would apply.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredSemaphore

from uaihost.children import Finished, Last, run
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import public_forges
from uaihost.workspaces.confinement import Confinement
from uaihost.workspaces.faults import GitFailed
from uaihost.workspaces.git_folder import lenders, named_alternates

__all__ = ["LOCAL", "NETWORK", "OUTPUT", "Git", "GitFailed", "Stalled"]

# How many gits run at once: each uses up to two cores and tens of MiB. Those that wait for a network keep
# no other waiting.
AT_ONCE = 4
FAR_AT_ONCE = 8
# Seconds. A local command on a tree of 100,000 files takes a few; a first clone is as slow as the network.
LOCAL = 180.0
NETWORK = 3600.0
# Bytes of output that are kept: names of 100,000 files.
OUTPUT = 32 << 20

# What may be taken over from the daemon's own environment: the network's proxy and authorities, and the
# owner's SSH agent.
PASSED_ON = (
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSH_AUTH_SOCK",
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"

# Never a question; nothing of the connection but git; a dead connection ends. A server's key is taken as it
# is at the first time, since nobody is there to ask, and a changed one is refused.
_SSH = (
    "ssh",
    "-oBatchMode=yes",
    "-oConnectTimeout=20",
    "-oServerAliveInterval=20",
    "-oPermitLocalCommand=no",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "-oStrictHostKeyChecking=accept-new",
)

# upload-pack on the other end of a local fetch reads this file too, but no `-c` of ours.
_CONFIG = """\
[safe]
    directory = *
[core]
    hooksPath = /dev/null
    fsmonitor = false
    untrackedCache = false
    attributesFile = /dev/null
    excludesFile = /dev/null
    quotePath = true
    protectHFS = true
    protectNTFS = true
    safecrlf = false
    commitGraph = false
    looseCompression = 1
    multiPackIndex = false
[protocol]
    allow = never
[credential]
    helper =
[http]
    lowSpeedLimit = 1000
    lowSpeedTime = 60
[submodule]
    recurse = false
[fetch]
    recurseSubmodules = false
    writeCommitGraph = false
    unpackLimit = 1
[uploadpack]
    allowAnySHA1InWant = true
[diff]
    ignoreSubmodules = all
[gc]
    auto = 0
    pruneExpire = never
[maintenance]
    auto = false
[pack]
    threads = 2
[init]
    defaultBranch = main
    templateDir =
[commit]
    gpgSign = false
"""

# Again on the command line, which outranks a repository's own configuration.
_FIXED = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)

# For a git that runs as another user: it cannot read our configuration, which lies behind closed folders.
_STRANGERS = (
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.safecrlf=false",
    "core.multiPackIndex=false",
    "core.commitGraph=false",
)

# The commands that read what an agent may be changing, each in one process.
# Seconds after which one that did nothing, and then nothing again, is ended: it opened a named pipe.
STALL = 5.0
# Seconds of processor time: 100,000 files take two, a pattern can be matched for ever. None for what hashes
# files of any size.
PROCESSOR = {"ls-files": 40, "diff-files": 40, "update-index": None}
# The commands that write files of a work tree; to the others it is there for reading.
_WRITERS = {"read-tree", "checkout-index"}

# The one privilege that such a git keeps: to pass through the closed folders around its own.
_PASS = "-all,+dac_read_search"


class Stalled(HostError):
    """git waited for a file that does not come to an end."""


class Git:
    """Runs git.

    home: a folder of the daemon's own, for the configuration and as an empty HOME.
    environment: the daemon's environment, of which only the names in `PASSED_ON` are taken over.
    confinement: what the kernel refuses to git; by default all that this one can.
    """

    def __init__(
        self,
        reactor: Any,
        home: Path,
        environment: Mapping[str, str],
        confinement: Confinement | None = None,
    ) -> None:
        self.reactor = reactor
        self._home = home
        # The daemon's folders are below this one; what is deeper than their first level can be an agent's.
        self._data = home.parent.parent
        self._passed_on = {name: environment[name] for name in PASSED_ON if name in environment}
        if "SSL_CERT_FILE" in self._passed_on:
            # Not every libcurl looks at the name that other programs know.
            self._passed_on.setdefault("GIT_SSL_CAINFO", self._passed_on["SSL_CERT_FILE"])
        self._near = DeferredSemaphore(AT_ONCE)
        self._far = DeferredSemaphore(FAR_AT_ONCE)
        self._setpriv = shutil.which("setpriv", path=_PATH)
        self._ready = False
        self._confinement = Confinement.of_this_machine() if confinement is None else confinement

    def can_be(self, uid: int) -> bool:
        """Whether git can run as the user `uid`."""
        return uid == os.geteuid() or (os.geteuid() == 0 and self._setpriv is not None)

    async def run(
        self,
        *words: str,
        git_dir: Path | None = None,
        work_tree: Path | None = None,
        index: Path | None = None,
        operands: Sequence[str] = (),
        paths: Sequence[bytes] = (),
        settings: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
        protocols: Sequence[str] = (),
        stdin: bytes = b"",
        timeout: float = LOCAL,
        limit: int = OUTPUT,
        on_err: Callable[[bytes], None] | None = None,
        fine: Sequence[int] = (0,),
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
        idle: bool = False,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
        abroad: bool = False,
    ) -> Finished:
        """Run `git words... operands...` to its end.

        Args:
            words: the command and its options, all ours.
            git_dir, work_tree, index: GIT_DIR, GIT_WORK_TREE and GIT_INDEX_FILE.
            operands: values that came from elsewhere; one that looks like an option is refused.
            paths: names of files, after `--`, each taken literally.
            settings: further `-c name=value`.
            extra: further environment.
            protocols: the ways by which other repositories may be reached in this run.
            timeout: seconds; limit: bytes of output; fine: the statuses that are no failure.
            cwd: the folder to run in; git_dir and work_tree may then be relative to it.
            user: uid and gid to run as, where `can_be` says so. It may pass through folders and read, and
                write what is that user's: what a stranger's repository holds is written without our rights.
            idle: only with processor time that nobody else wants.
            reads, writes: further folders that the run may read and write (`_around`).
            abroad: a repository takes part that is the owner's, and may lie and borrow anywhere.

        Raises:
            GitFailed: it ended with another status.
            HostError: `timeout`, or `unavailable` when there is no git.
            ValueError: an operand looks like an option or holds NUL.
        """
        for operand in operands:
            if operand.startswith("-") or "\0" in operand:
                raise ValueError(f"{operand[:40]!r} cannot be an operand of git")
        if not self._ready:
            self._prepare()
        other = user is not None and user[0] != os.geteuid()
        argv = [*(["nice", "-n", "19"] if idle else []), *(self._as(user) if user and other else []), "git"]
        ssh = f"core.sshCommand={self._ssh()}"
        for setting in (*_FIXED, ssh, *(_STRANGERS if other else ()), *settings):
            argv += ["-c", setting]
        argv += [*words, *operands]
        if paths:
            argv += ["--", *(os.fsdecode(path) for path in paths)]
        env = self._environment(git_dir, work_tree, index, protocols) | dict(extra or {})
        if other:
            env |= {"HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null", "GIT_CONFIG_GLOBAL": "/dev/null"}
        near = set(protocols) <= {"file"}
        async with self._near if near else self._far:
            try:
                with ExitStack() as stack:
                    last = Last(self._confinement.limited)
                    if near:
                        ours = [git_dir, *(Path(operand) for operand in operands if operand.startswith("/"))]
                        written = [*writes, git_dir, index and index.parent, cwd]
                        seen = [*reads, *ours[1:], Path("/") if abroad else None]
                        (written if words[0] in _WRITERS else seen).append(work_tree)
                        if words[0] == "init":
                            written += [Path(operand).parent for operand in operands]
                        processor = PROCESSOR.get(words[0])
                        walls = self._around(
                            seen, written, ours, env, cwd or self._home, not other, processor
                        )
                        last = stack.enter_context(walls)
                    finished = await run(
                        self.reactor,
                        argv,
                        env=env,
                        cwd=str(cwd or self._home),
                        stdin=stdin,
                        timeout=timeout,
                        limit=limit,
                        on_err=on_err,
                        last=last,
                        stall=STALL if words[0] in PROCESSOR else None,
                    )
            except FileNotFoundError:
                raise HostError(
                    ErrorCode.UNAVAILABLE, "git is not installed; install it on the host"
                ) from None
        if finished.timed_out:
            raise HostError(
                ErrorCode.TIMEOUT, f"git {words[0]} was not done after {timeout:.0f} seconds; try again later"
            )
        if finished.stalled:
            raise Stalled(
                ErrorCode.CONFLICT,
                f"git {words[0]} waits for something in the work copy that never comes: is there a named "
                "pipe where a .gitignore or .gitattributes should be? Remove it",
            )
        if finished.status not in fine and not finished.truncated:
            raise GitFailed(words, finished)
        return finished

    async def line(self, *words: str, git_dir: Path, operands: Sequence[str] = ()) -> str:
        """The first line that a command prints; empty when it fails quietly with status 1."""
        finished = await self.run(*words, git_dir=git_dir, operands=operands, fine=(0, 1))
        return finished.out.decode("utf-8", "replace").split("\n", 1)[0] if finished.status == 0 else ""

    def _as(self, user: tuple[int, int]) -> list[str]:
        """What brings git to be another user."""
        assert self._setpriv is not None
        return [
            self._setpriv, f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups",
            f"--inh-caps={_PASS}", f"--ambient-caps={_PASS}", f"--bounding-set={_PASS}", "--no-new-privs",
            "--pdeathsig=TERM", "--",
        ]  # fmt: skip

    def _around(
        self,
        reads: Iterable[Path | None],
        writes: Iterable[Path | None],
        ours: Iterable[Path | None],
        env: Mapping[str, str],
        top: Path,
        drop: bool,
        processor: int | None,
    ) -> AbstractContextManager[Last]:
        """The walls around a run. It sees also what the repositories `ours` borrow their objects from.

        top: what relative paths are relative to.
        """
        lent = named_alternates(env.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", ""))
        objects = [top / path / "objects" for path in ours if path is not None]
        lent += [lender for folder in (*lent, *objects) for lender in lenders(folder)]
        seen = [top / path for path in (self._home, *reads, *lent) if path is not None]
        return self._confinement.around(
            seen,
            [top / path for path in writes if path is not None],
            self._data,
            drop=drop,
            processor=processor,
        )

    def _ssh(self) -> str:
        """The ssh command: hosts are known from a file of ours, where new ones go, from the owner's, and from
        what public forges say of themselves."""
        ours, forges = (
            str(path).replace("%", "%%").replace('"', '\\"')
            for path in (self._home / "known_hosts", public_forges())
        )
        known = f'-oUserKnownHostsFile="{ours}" ~/.ssh/known_hosts ~/.ssh/known_hosts2'
        machine = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
        return shlex.join([*_SSH, known, f'-oGlobalKnownHostsFile="{forges}" {machine}'])

    def _environment(
        self, git_dir: Path | None, work_tree: Path | None, index: Path | None, protocols: Sequence[str]
    ) -> dict[str, str]:
        env = {
            **self._passed_on,
            "PATH": _PATH,
            "HOME": str(self._home / "empty"),
            "XDG_CONFIG_HOME": str(self._home / "empty"),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._home / "config"),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "SSH_ASKPASS": "true",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_ALLOW_PROTOCOL": ":".join(protocols) or "none",
        }
        for name, path in (("GIT_DIR", git_dir), ("GIT_WORK_TREE", work_tree), ("GIT_INDEX_FILE", index)):
            if path is not None:
                env[name] = str(path)
        return env

    def _prepare(self) -> None:
        (self._home / "empty").mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._home / "config.new"
        beside.write_text(_CONFIG, encoding="ascii")
        beside.rename(self._home / "config")
        self._ready = True
