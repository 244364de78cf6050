"""A program's own sign-in, run in a container with this terminal: its result is taken out, then it is gone.

The container is of the task image, without mounts, its home folder in memory: it sees no repository and
nothing of the owner's.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from uaihost.blocking import Threads
from uaihost.cli.image import reachable, run
from uaihost.cli.progress import Steps
from uaihost.cli.terminals import terminal
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.images import owner
from uaihost.containers.terminal import converse
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Launch, Limits
from uaihost.rooms import engine_address, task_images

T = TypeVar("T")

# In memory: /dev/shm is a tmpfs of the container's own.
HOME = "/dev/shm"
NAME = "_login"
LIMITS = Limits(memory=2 << 30, cpus=1.0, pids=256, shm=64 << 20)
# The standard image alone has the programs.
KIND = "standard"

_ESCAPE = re.compile(r"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78])")
# Programs that draw their screen move right, or begin a line anew, where others print a space or an end.
_SPACE = re.compile(r"\x1b\[[0-9]*[CG]")
_END = re.compile(r"\r*\n|\r")
_TOKEN = re.compile(r"sk-ant-oat[0-9]{2}-[A-Za-z0-9_-]+")
_REST = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen
class Program:
    """argv: its sign-in. result: the file in which it keeps the login, None where it shows a token."""

    argv: tuple[str, ...]
    form: str
    result: str | None = None


PROGRAMS = {
    "claude": Program(("claude", "setup-token"), "token"),
    "codex": Program(("codex", "login", "--device-auth"), "login", f"{HOME}/.codex/auth.json"),
}


def sign_in(provider: str, words: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
    """The form of the sign-in and its secrets. words: more arguments for the program.

    Raises:
        HostError: no engine, or the sign-in was given up or refused.
    """
    wanted, program = reachable(), PROGRAMS[provider]
    steps = Steps(terminal(stderr=True))
    host_id = sign_in_id(wanted.data_dir)

    async def work(reactor: Any, threads: Threads) -> tuple[str, dict[str, str]]:
        address = engine_address(wanted)
        engine = DockerEngine(reactor, threads, address, host_id)
        with steps.step("container"):
            # What a sign-in that was killed left.
            await engine.sweep(set())
            image = await task_images(reactor, threads, wanted, KIND).ensure(lambda what: None)
            container = await engine.launch(_launch(image))
        talk: Deferred[Any] | None = None
        # A thread of its own: it is held for as long as a person types.
        terminal = Threads(reactor, "terminal", 1)
        try:
            env = {"HOME": HOME, "CODEX_HOME": f"{HOME}/.codex", "TMPDIR": HOME}
            env["TERM"] = os.environ.get("TERM", "dumb")
            if program.result is not None:
                await engine.execute(NAME, ["mkdir", "-p", env["CODEX_HOME"]])
            ends = (sys.stdin.fileno(), sys.stdout.fileno())
            talk = Deferred.fromCoroutine(
                terminal.call(converse, address, container.id, (*program.argv, *words), env, HOME, ends)
            )
            status, shown = await _apart(talk)
            if status != 0:
                raise _failed(provider, f"it ended with status {status}")
            if program.result is None:
                return program.form, {program.form: _shown_token(provider, shown)}
            kept = await engine.execute(NAME, ["cat", program.result])
            if kept.status != 0:
                raise _failed(provider, "it kept no login")
            return program.form, {"auth": kept.out.decode("utf-8", "replace")}
        finally:
            await engine.remove(NAME)
            # The terminal is as it was when that has ended, which it does now at the latest.
            if talk is not None:
                await talk
            terminal.stop()

    return run(work)


def sign_in_id(data: Path) -> str:
    """Of the containers of this data folder's sign-ins, one at a time: apart from its daemon's, which ends
    those that no task of its has."""
    return "login-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:12]


def token_in(shown: str) -> str | None:
    """The last long-lived token in what a terminal was shown, which may be broken into lines."""
    lines = [line.strip() for line in _END.split(_ESCAPE.sub("", _SPACE.sub(" ", shown)))]
    found = None
    for index, line in enumerate(lines):
        match = _TOKEN.search(line)
        if match is None:
            continue
        found = match[0]
        if match.end() != len(line):
            continue
        for rest in lines[index + 1 :]:
            if not _REST.fullmatch(rest):
                break
            found += rest
    return found


def _apart(work: Deferred[T]) -> Deferred[T]:
    """The outcome of `work`, which goes on when who waits here is cancelled."""
    mine: Deferred[T] = Deferred()

    def tell(outcome: T | Failure) -> None:
        if not mine.called:
            mine.callback(outcome)

    work.addBoth(tell)
    return mine


def _shown_token(provider: str, shown: bytes) -> str:
    token = token_in(shown.decode("utf-8", "replace"))
    if token is None:
        raise _failed(provider, "it showed no token")
    return token


def _failed(provider: str, why: str) -> HostError:
    return HostError(
        ErrorCode.UNAVAILABLE,
        f"the sign-in was not completed: {why}; nothing was changed. Try again, or give a key: "
        f"uaihost login {provider} --api-key",
    )


def _launch(image: str) -> Launch:
    uid, gid = owner()
    return Launch(
        task_id=NAME,
        image=image,
        uid=uid,
        gid=gid,
        mounts=(),
        ports=(),
        env={"UAI_EDITOR": "0"},
        limits=LIMITS,
        read_only=True,
    )
