"""The one place that runs git on the host.

Every run has a fixed environment, a fixed configuration that no repository can change, a deadline, a limit
on its output and a list of the ways by which it may reach another repository. Who calls is responsible for
naming only git directories of ours: in a work copy's own `.git` the agent's configuration would apply.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredSemaphore

from uaihost.children import Finished, run
from uaihost.errors import ErrorCode, HostError

# How many gits run at once: each uses up to two cores and tens of MiB.
AT_ONCE = 4
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

# Never a question; nothing of the connection but git.
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=20 -oPermitLocalCommand=no -oClearAllForwardings=yes"

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
[diff]
    ignoreSubmodules = all
[gc]
    auto = 0
    pruneExpire = never
[maintenance]
    auto = false
[pack]
    threads = 2
[checkout]
    workers = 2
    thresholdForParallelism = 100
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
    f"core.sshCommand={_SSH}",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)

_SECRET = re.compile(r"(\w+://)[^/@\s]+@")
_PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ing [a-z ]+): +(\d+)%")

_NOT_FOUND = ("not found", "does not exist", "no such", "does not appear to be a git repo")
_AUTH = (
    "could not read username",
    "could not read password",
    "authentication failed",
    "terminal prompts disabled",
    "permission denied (",
    "error: 401",
    "error: 403",
    "access denied",
)
_NETWORK = (
    "could not resolve",
    "connection refused",
    "connection timed out",
    "failed to connect",
    "network is unreachable",
    "no route to host",
    "connection reset",
    "operation too slow",
    "connection closed",
)
_CORRUPT = (
    "corrupt",
    "bad object",
    "bad tree",
    "unable to read",
    "unable to find",
    "missing blob",
    "missing tree",
    "missing commit",
    "did not send all necessary objects",
    "could not parse",
    "unable to parse",
    "reference broken",
    "not a git repository",
    "broken ref",
    "unable to resolve reference",
)


class GitFailed(Exception):
    """git ended with an error. `words`: its command and options; `text`: what it said, without secrets."""

    def __init__(self, words: Sequence[str], finished: Finished) -> None:
        self.words = tuple(words)
        self.finished = finished
        self.text = scrubbed(finished.err[-8192:].decode("utf-8", "replace")).strip()
        super().__init__(f"git {words[0]} ended with {finished.status}: {self.text[-500:]}")

    @property
    def last_line(self) -> str:
        """The last thing it said."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self.text) if line.strip()]
        return lines[-1][:300] if lines else f"git {self.words[0]} ended with status {self.finished.status}"

    @property
    def corrupt(self) -> bool:
        """Whether it complained of damaged or missing objects."""
        return any(words in self.text.lower() for words in _CORRUPT)


class Git:
    """Runs git.

    home: a folder of the daemon's own, for the configuration and as an empty HOME.
    environment: the daemon's environment, of which only the names in `PASSED_ON` are taken over.
    """

    def __init__(self, reactor: Any, home: Path, environment: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._home = home
        self._passed_on = {name: environment[name] for name in PASSED_ON if name in environment}
        self._turns = DeferredSemaphore(AT_ONCE)
        self._ready = False

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
        argv = ["git"]
        for setting in (*_FIXED, *settings):
            argv += ["-c", setting]
        argv += [*words, *operands]
        if paths:
            argv += ["--", *(os.fsdecode(path) for path in paths)]
        env = self._environment(git_dir, work_tree, index, protocols) | dict(extra or {})
        async with self._turns:
            try:
                finished = await run(
                    self._reactor,
                    argv,
                    env=env,
                    cwd=str(self._home),
                    stdin=stdin,
                    timeout=timeout,
                    limit=limit,
                    on_err=on_err,
                )
            except FileNotFoundError:
                raise HostError(
                    ErrorCode.UNAVAILABLE, "git is not installed; install it on the host"
                ) from None
        if finished.timed_out:
            raise HostError(
                ErrorCode.TIMEOUT, f"git {words[0]} was not done after {timeout:.0f} seconds; try again later"
            )
        if finished.status not in fine:
            raise GitFailed(words, finished)
        return finished

    async def line(self, *words: str, git_dir: Path, operands: Sequence[str] = ()) -> str:
        """The first line that a command prints; empty when it fails quietly with status 1."""
        finished = await self.run(*words, git_dir=git_dir, operands=operands, fine=(0, 1))
        return finished.out.decode("utf-8", "replace").split("\n", 1)[0] if finished.status == 0 else ""

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


class ProgressLines:
    """Turns git's standard error into lines like `Receiving objects: 45%`, each once."""

    def __init__(self, on_progress: Callable[[str], None]) -> None:
        self._on_progress = on_progress
        self._rest = b""
        self._last = ""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = self._rest[-4096:]
        for line in lines:
            if found := _PROGRESS.match(line.decode("ascii", "replace")):
                said = f"{found[1]}: {found[2]}%"
                if said != self._last:
                    self._last = said
                    self._on_progress(said)


def scrubbed(text: str) -> str:
    """`text` without the user names and passwords of addresses in it."""
    return _SECRET.sub(r"\1", text)


def clone_error(failed: GitFailed, display: str) -> HostError:
    """What to tell people about a clone or fetch of `display` that failed."""
    said = failed.text.lower()
    if any(words in said for words in _AUTH):
        why = "it needs a sign-in; give this host access to it, or check the address"
    elif "host key verification failed" in said:
        why = "its SSH host key is not known here; connect to it once with ssh on this host"
    elif "no space left" in said:
        why = "the disk is full; free some space on the host"
    elif "is this a git repository?" in said or "does not appear to be a git repo" in said:
        why = "there is no git repository at that address; check it"
    elif any(words in said for words in _NETWORK):
        why = "the server cannot be reached; check the address and the host's network"
    elif "certificate" in said or "ssl" in said:
        why = f"the connection is not secure ({failed.last_line}); name the right authority in SSL_CERT_FILE"
    elif any(words in said for words in _NOT_FOUND):
        why = "there is no such repository, or this host may not see it; check the address"
    else:
        why = f"git says: {failed.last_line}"
    return HostError(ErrorCode.CLONE_FAILED, f"{display} cannot be fetched: {why}")
