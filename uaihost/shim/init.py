"""The first process of a task's container: uai-init.

At once: its socket, /run/uai/init.sock (progress.py has the lines), and the relay by which the host reaches
ports in here. Then it waits for the gate: where /run/host is mounted, nothing of a repository runs and no
editor before the host has put the file `go` there, a step of its own, `gate`. Work copies appear in
/workspace until then and not after. Then side by side: the editor (editor.py), and each project with its tool
versions, hooks and dev server (projects.py). What ends and should not is started again.

Standard library only, Python 3.9 and later. It must not know who listens, nor anything of agents.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

if not __package__:
    # Started as a program, its folder is the package of its parts.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

from . import editor, places, processes, progress, projects, toolchain

# Seconds between two looks for the gate's file.
POLL = 0.01
# Seconds until an ended relay is started again: meanwhile nothing reaches the task's ports.
RELAY_BACK_OFF = 0.25


def pass_gate(where: places.Places, told: progress.Progress, over: threading.Event) -> bool:
    """Wait for the host's word, where it gives one; False when the container ends before."""
    if where.gated():
        with told.step("gate"):
            while not where.gate_open():
                if over.wait(POLL):
                    return False
    return True


def folders(workspace: Path) -> list[Path]:
    """The projects in the workspace; hidden folders are none."""
    return sorted(path for path in workspace.iterdir() if path.is_dir() and not path.name.startswith("."))


def begin(where: places.Places, told: progress.Progress, children: processes.Children) -> None:
    """Everything from the gate to ready; what is kept running goes on in threads."""
    try:
        where.fill_home()
    except OSError as error:
        told.report("home", "failed", f"the home folder cannot be filled: {error}")
    tools = toolchain.Toolchain(where, children)
    every = [projects.Project(folder, where, tools, told, children) for folder in folders(where.workspace)]
    work = [project.set_up for project in every]
    if editor.wanted(where):
        work.append(lambda: editor.start(where, told, children))
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ports = {port["port"]: port for project in reversed(every) for port in reversed(project.ports)}
    last = {"state": "ready", "failed": told.failed, "ports": list(reversed(ports.values()))}
    told.tell(last, last=True)


def main() -> int:
    """Run until TERM. The one argument, for tests, is the folder that stands for `/`."""
    where = places.Places(Path(sys.argv[1] if len(sys.argv) > 1 else "/"))
    over = threading.Event()
    ended, ending = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not `over.set()`: it takes a lock, which this very thread holds when it is about to wait.
        signal.signal(number, lambda *_: os.write(ending, b"."))
    told, children = progress.Progress(), processes.Children()
    told.serve(where.run / "init.sock")
    if where.relay.is_file():
        # Nothing that a task left in its home folder is loaded before the gate (-E -s).
        words = [sys.executable, "-E", "-s", str(where.relay)]
        log = where.run / "relay.log"
        processes.keep_running("relay", words, "/", log, children, back_off=RELAY_BACK_OFF, alone=True)

    def work() -> None:
        try:
            if pass_gate(where, told, over):
                begin(where, told, children)
        except Exception as error:
            # The container stays up, so that a person can look into it.
            told.tell({"state": "failed", "message": f"the set-up failed: {error}"}, last=True)

    threading.Thread(target=work, daemon=True).start()
    os.read(ended, 1)
    over.set()
    children.end()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Threads may sit in a read; nothing of them matters any more.
    os._exit(status)
