"""The first process of a task's container: sets the projects up, keeps their dev servers running, reports.

For each folder of /workspace, the projects side by side:

1. once in the container's life: an executable `.uai/setup`, else devcontainer.json's `postCreateCommand`;
2. at every start: devcontainer.json's `postStartCommand`;
3. from then on: `.uai/start`, started again 2 s after it ends, its output in /run/uai/start-<slug>.log.

Progress is told on the Unix socket /run/uai/init.sock: every line so far, then each new one, JSON objects
`{"step", "state": "started"|"done"|"failed", "message"?, "elapsedMs"?}`. After the last line, which is
`{"state": "ready", "failed": [step, ...]}` or `{"state": "failed", "message"}`, the connection is closed.
A hook that fails is reported with its last lines and does not stop the rest.

Standard library only, Python 3.9 and later. It must not know who listens, nor anything of agents.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

# Seconds for a project's set-up command; the host waits 600 for all of it, and a reason is better than that.
HOOK_LIMIT = 540.0
# Seconds between two starts of what is kept running.
BACK_OFF = 2.0
# Seconds between TERM and KILL at the end; the engine itself waits 10.
GRACE = 1.0
# A kept program's log is moved aside at this size, in bytes: at most twice as much lies on the host's disk.
LOG_LIMIT = 5 << 20
# Of a failed hook's output: lines, and characters of one line.
LAST_LINES = 15
LINE_LIMIT = 400
# devcontainer.json is written by people: 1 MiB is far more than any of them.
FILE_LIMIT = 1 << 20

EDITOR = "/opt/code-server"
EDITOR_PORT = 8100
EDITOR_FLAGS = (
    "--auth=none --disable-telemetry --disable-update-check --disable-workspace-trust "
    "--disable-getting-started-override --disable-proxy --ignore-last-opened --reconnection-grace-time=300"
)


class Progress:
    """What was reported, for everybody who asks, however late."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._closed = False
        self._changed = threading.Condition()
        self.failed: list[str] = []

    def report(self, step: str, state: str, message: str | None = None, elapsed: float = -1) -> None:
        entry: dict[str, Any] = {"step": step, "state": state}
        if message:
            entry["message"] = message
        if elapsed >= 0:
            entry["elapsedMs"] = round(elapsed * 1000)
        if state == "failed":
            self.failed.append(step)
        self.tell(entry)

    def tell(self, entry: dict[str, Any], last: bool = False) -> None:
        text = json.dumps(entry)
        print(text, flush=True)
        with self._changed:
            self._lines.append(text.encode() + b"\n")
            self._closed = self._closed or last
            self._changed.notify_all()

    def follow(self, connection: socket.socket) -> None:
        """Write every line to `connection`, until the last one or until its peer is gone."""
        sent = 0
        with connection, contextlib.suppress(OSError):
            while True:
                with self._changed:
                    while sent == len(self._lines) and not self._closed:
                        self._changed.wait()
                    fresh, over = self._lines[sent:], self._closed
                connection.sendall(b"".join(fresh))
                sent += len(fresh)
                if over and sent == len(self._lines):
                    return

    def serve(self, path: Path) -> None:
        """Listen at `path`, in threads of its own."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # Left by the container's last run.
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(16)

        def accept() -> None:
            while True:
                connection, _ = server.accept()
                connection.settimeout(30)
                threading.Thread(target=self.follow, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()


class Children:
    """Every process that was started here, each the leader of a group, so that all of it can be ended."""

    def __init__(self) -> None:
        self._living: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.ending = False

    def start(self, argv: list[str], cwd: str) -> subprocess.Popen[bytes] | None:
        """None when everything is being ended. OSError when there is no such program."""
        with self._lock:
            if self.ending:
                return None
            child = subprocess.Popen(
                argv,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._living.add(child)
            return child

    def ended(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._living.discard(child)

    def signal(self, child: subprocess.Popen[bytes], number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)

    def end(self) -> None:
        """TERM for all, KILL for what is left after the grace."""
        with self._lock:
            self.ending = True
            living = list(self._living)
        for child in living:
            self.signal(child, signal.SIGTERM)
        limit = time.monotonic() + GRACE
        while time.monotonic() < limit and any(child.poll() is None for child in living):
            time.sleep(0.02)
        for child in living:
            self.signal(child, signal.SIGKILL)


class Project:
    """One folder of the workspace. once: where it is noted what has run; it ends with the container."""

    def __init__(self, folder: Path, once: Path, progress: Progress, children: Children) -> None:
        self.folder = folder
        self.slug = folder.name
        self._once = once
        self._progress = progress
        self._children = children

    def set_up(self) -> None:
        """Run the hooks, each a step; a failed one is reported and the next is tried."""
        settings: dict[str, Any] = {}
        try:
            settings = devcontainer(self.folder)
        except ValueError as error:
            self._progress.report(f"devcontainer {self.slug}", "failed", str(error))
        script = self.folder / ".uai" / "setup"
        if script.is_file() and os.access(script, os.X_OK):
            self._hook(f"setup {self.slug}", [str(script)], once="setup")
        elif settings.get("postCreateCommand"):
            self._hook(f"post-create {self.slug}", settings["postCreateCommand"], once="post-create")
        if settings.get("postStartCommand"):
            self._hook(f"post-start {self.slug}", settings["postStartCommand"])

    def server(self) -> list[str] | None:
        """The words that start its dev server; None when it has none."""
        script = self.folder / ".uai" / "start"
        if not script.is_file():
            return None
        return [str(script)] if os.access(script, os.X_OK) else ["sh", str(script)]

    def _hook(self, step: str, command: Any, once: str | None = None) -> None:
        mark = None if once is None else self._once / f"{once}-{self.slug}"
        if mark is not None and mark.exists():
            return
        self._progress.report(step, "started")
        began = time.monotonic()
        try:
            problem = run_all(commands(command), str(self.folder), self._children)
        except ValueError as error:
            problem = str(error)
        if problem:
            self._progress.report(step, "failed", problem, time.monotonic() - began)
            return
        if mark is not None:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        self._progress.report(step, "done", None, time.monotonic() - began)


def commands(value: Any) -> list[list[str]]:
    """A devcontainer.json command (containers.dev/implementors/json_reference, "Lifecycle scripts").

    A string is for the shell, a list is one program's words, an object holds several that run side by side.
    """
    if isinstance(value, str):
        return [["sh", "-c", value]]
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return [value]
    if isinstance(value, dict) and not any(isinstance(part, dict) for part in value.values()):
        return [words for part in value.values() for words in commands(part)]
    raise ValueError("a command must be a string, a list of strings, or an object of these")


def run_all(every: list[list[str]], cwd: str, children: Children) -> str:
    """Run the commands side by side to their ends; what is wrong, or nothing."""
    problems: list[str | None] = []
    threads = [
        threading.Thread(target=lambda argv=argv: problems.append(run(argv, cwd, children))) for argv in every
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "\n".join(problem for problem in problems if problem)


def run(argv: list[str], cwd: str, children: Children) -> str | None:
    """Run one command to its end, its output into ours; None, or what is wrong with its last lines."""
    try:
        child = children.start(argv, cwd)
    except OSError as error:
        return f"cannot run {argv[0]}: {error.strerror}"
    if child is None:
        return "ended with the container"
    last: deque[str] = deque(maxlen=LAST_LINES)
    reader = threading.Thread(target=read, args=(child, last), daemon=True)
    reader.start()
    try:
        status = child.wait(HOOK_LIMIT)
        how = f"ended with status {status}"
    except subprocess.TimeoutExpired:
        children.signal(child, signal.SIGKILL)
        status, how = child.wait(), f"did not end in {HOOK_LIMIT:.0f} s"
    # What the command left running in the background may hold its output open for ever.
    reader.join(GRACE)
    children.ended(child)
    return None if status == 0 else "\n".join([how, *last])


def read(child: subprocess.Popen[bytes], last: deque[str]) -> None:
    """Pass a command's output on, and keep its last lines."""
    assert child.stdout is not None
    with child.stdout as output:
        # Bounded, so that output without line ends is not collected.
        for data in iter(lambda: output.readline(LINE_LIMIT), b""):
            last.append(data.decode("utf-8", "replace").rstrip())
            print(last[-1], flush=True)


def keep(name: str, argv: list[str], cwd: str, path: Path, children: Children) -> None:
    """Start `argv`, and again when it ends, until everything ends; its output goes to `path`."""
    log = Log(path)
    while not children.ending:
        try:
            child = children.start(argv, cwd)
        except OSError as error:
            log.write(f"cannot run {argv[0]}: {error.strerror}\n".encode())
            child = None
        if child is not None:
            assert child.stdout is not None
            with child.stdout as output:
                for data in iter(partial(os.read, output.fileno(), 65536), b""):
                    log.write(data)
            status = child.wait()
            children.ended(child)
            log.write(f"[{name} ended with status {status}; it is started again]\n".encode())
        time.sleep(BACK_OFF)


class Log:
    """A file that never grows beyond LOG_LIMIT: it is then moved aside, over the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._size = 0

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._size + len(data) > LOG_LIMIT:
                self._file.close()
                self._path.replace(self._path.with_suffix(".log.1"))
                self._file = self._path.open("wb", buffering=0)
                self._size = 0
            self._file.write(data)
            self._size += len(data)


_JSONC = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


def devcontainer(folder: Path) -> dict[str, Any]:
    """The project's devcontainer.json, with its comments and trailing commas; empty when there is none.

    Raises:
        ValueError: it is not what it should be; the text names the file.
    """
    for name in (".devcontainer/devcontainer.json", ".devcontainer.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_LIMIT + 1)
            if len(raw) > FILE_LIMIT:
                raise ValueError(f"larger than {FILE_LIMIT >> 20} MiB")
            plain = _JSONC.sub(lambda match: match[1] or " ", raw.decode("utf-8-sig"))
            found = json.loads(_TRAILING.sub(lambda match: match[1] or "", plain))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{name} cannot be read: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{name} cannot be read: it is not an object")
        return found
    return {}


def projects(workspace: Path) -> list[Path]:
    """The folders in the workspace, hidden ones left out."""
    return sorted(path for path in workspace.iterdir() if path.is_dir() and not path.name.startswith("."))


def begin(workspace: Path, run_folder: Path, home: Path, progress: Progress, children: Children) -> None:
    """Everything from the hooks to ready; the kept programs go on in threads."""
    every = [Project(folder, home / ".cache" / "uai", progress, children) for folder in projects(workspace)]
    threads = [threading.Thread(target=project.set_up) for project in every]
    if Path(EDITOR).is_dir():
        words = ["/opt/node/bin/node", f"{EDITOR}/out/node/entry.js", f"--bind-addr=0.0.0.0:{EDITOR_PORT}"]
        words += [*EDITOR_FLAGS.split(), str(workspace)]
        keep_running("editor", words, str(workspace), run_folder / "editor.log", children)
        progress.report("editor", "done")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for project in every:
        words_of = project.server()
        if words_of is not None:
            name = f"start {project.slug}"
            log = run_folder / f"start-{project.slug}.log"
            keep_running(name, words_of, str(project.folder), log, children)
            progress.report(name, "done")
    progress.tell({"state": "ready", "failed": progress.failed}, last=True)


def keep_running(name: str, argv: list[str], cwd: str, log: Path, children: Children) -> None:
    threading.Thread(target=keep, args=(name, argv, cwd, log, children), daemon=True).start()


def main() -> int:
    workspace = Path(os.environ.get("UAI_WORKSPACE", "/workspace"))
    run_folder = Path(os.environ.get("UAI_RUN", "/run/uai"))
    home = Path(os.environ.get("HOME", "/home/dev"))
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    progress, children = Progress(), Children()
    progress.serve(run_folder / "init.sock")

    def work() -> None:
        try:
            begin(workspace, run_folder, home, progress, children)
        except Exception as error:
            # The container stays up, so that a person can look into it.
            progress.tell({"state": "failed", "message": f"the set-up failed: {error}"}, last=True)

    threading.Thread(target=work, daemon=True).start()
    over.wait()
    children.end()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Threads may sit in a read; nothing of them matters any more.
    os._exit(status)
