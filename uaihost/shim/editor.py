"""Runs the editor, on the container's loopback alone, and says when it answers."""

from __future__ import annotations

import os
import socket
import threading
import time

from . import places, processes, progress

PORT = 8100
# What code-server is told: no password, since only the task's owner is let through to its port; no telemetry,
# no updates, none of its own ways to other ports. An abandoned page's extension host ends after 300 s.
FLAGS = (
    "--auth=none --disable-telemetry --disable-update-check --disable-workspace-trust "
    "--disable-getting-started-override --disable-proxy --ignore-last-opened --reconnection-grace-time=300"
)
# Seconds until it must answer; it takes about one. The host waits 60, and a reason is better than that.
LIMIT = 50.0
# Seconds between two questions, and for one of them.
POLL = 0.02
ANSWER = 5.0
# Bytes of an answer's first line.
LINE_LIMIT = 256


def wanted(where: places.Places) -> bool:
    """Whether the image has an editor and the host wants it."""
    return where.editor.is_dir() and os.environ.get("UAI_EDITOR") != "0"


def start(where: places.Places, told: progress.Progress, children: processes.Children) -> None:
    """Keep the editor running; return when it answers, or when it has not for LIMIT. A step either way."""
    words = [
        str(where.node),
        str(where.editor / "out" / "node" / "entry.js"),
        f"--bind-addr=127.0.0.1:{PORT}",
    ]
    words += [*FLAGS.split(), str(where.workspace)]
    env = {**os.environ, "HOME": str(where.home)}
    with told.step("editor"):
        log = where.run / "editor.log"
        # Its children would keep the port when it alone is killed, for want of memory for example.
        processes.keep_running("editor", words, str(where.workspace), log, children, env, alone=True)
        limit = time.monotonic() + LIMIT
        while asked("/healthz") != 200:
            if time.monotonic() > limit or children.ending:
                raise progress.Failed(f"it did not answer in {LIMIT:.0f} s; its log is {log}")
            time.sleep(POLL)
    # It loads most of itself for the first page: nobody should have to wait for that.
    threading.Thread(target=asked, args=("/",), daemon=True).start()


def asked(path: str) -> int:
    """The status of its answer to a GET of `path`; 0 when it does not answer.

    By hand: http.client takes longer to load than the rest of this program.
    """
    try:
        with socket.create_connection(("127.0.0.1", PORT), ANSWER) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{PORT}\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                # RFC 9112, section 4: version, status, reason.
                status = answer.readline(LINE_LIMIT).split(None, 2)[1:2]
    except OSError:
        return 0
    return int(status[0]) if status and status[0].isdigit() else 0
