"""Repositories for tests: remotes made with the machine's git, served from a folder or over smart HTTP.

Here git runs as the repository's owner or the agent would run it, with whatever its `.git` says.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.interfaces import Doing
from uaihost.test.support import short_folder
from uaihost.workspaces.workspaces import Identity, Workspaces

ANN = Identity("Ann Ö", "ann@example.org")

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "advice.detachedHead",
    "GIT_CONFIG_VALUE_1": "false",
    **{f"GIT_{role}_{part}": "agent" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")},
}


@attrs.frozen
class Folders:
    mirrors: Path
    tasks: Path
    saved: Path


def git(folder: Path, *words: str, check: bool = True) -> str:
    """Run git in `folder` and return what it prints, without the last line end."""
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env=_ENVIRONMENT,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(words)}: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def commit(folder: Path, message: str, **files: str) -> str:
    """Write files (`__` in a name stands for a slash, `_` before the last part for a dot) and commit all."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


class WorkspacesCase(TestCase):
    """A host's workspaces on an empty data folder, and a remote repository `self.remote` beside it."""

    uid, gid = os.getuid(), os.getgid()
    environment: Mapping[str, str] = MappingProxyType({})

    def setUp(self) -> None:
        self.root = short_folder(self).resolve()
        self.mirrors = self.root / "data" / "mirrors"
        self.tasks = self.root / "data" / "tasks"
        self.saved = self.root / "data" / "saved"
        self.remote = self.root / "code" / "app"
        self.remote.mkdir(parents=True)
        git(self.remote, "init", "-q", "-b", "main")
        self.first = commit(self.remote, "first", a_txt="one\ntwo\n", d__b_txt="b\n", _gitignore="*.log\n")
        self.threads = Threads(reactor, "workspaces", 4)  # type: ignore[arg-type]
        self.addCleanup(self.threads.stop)
        self.lines: list[str | Doing] = []
        self.workspaces = self.host()

    def host(self) -> Workspaces:
        """The workspaces as a newly started daemon would make them."""
        folders = Folders(self.mirrors, self.tasks, self.saved)
        return Workspaces(
            reactor, folders, self.threads, self.uid, self.gid, (self.root / "code",), self.environment
        )

    async def prepared(self, branch: str = "fix/x", task: str = "t1", slug: str = "app") -> Path:
        copy = await self.workspaces.prepare(task, slug, str(self.remote), branch, ANN, self.lines.append)
        return Path(copy.path)

    async def changes(self, task: str = "t1", slug: str = "app") -> dict[str, Any]:
        """The diff's files by their path."""
        found = await self.workspaces.diff(task, "p1", slug)
        return {file["path"]: file for file in found["files"]}

    def mirror(self) -> Path:
        (found,) = self.mirrors.glob("*.git")
        return found

    def vault(self) -> Path:
        (found,) = self.saved.glob("*.git")
        return found


class GitServer:
    """Serves the bare repositories in `root` over smart HTTP; below /private/ only with a password.

    Everything below /page/ is a web page and no repository. asked: every request since it was cleared;
    status: what is answered to all of them, 0 for what is right.
    """

    def __init__(self, root: Path) -> None:
        backend = (
            Path(subprocess.check_output(["git", "--exec-path"], text=True).strip()) / "git-http-backend"
        )

        self.asked: list[str] = []
        self.status = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Quiet."""

            def answer(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append(f"{self.command} {path}")
                if server.status:
                    self.reply(server.status, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                elif path.startswith("/private/") and "Authorization" not in self.headers:
                    self.reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                elif path.startswith("/page/"):
                    self.reply(
                        200,
                        b"<!DOCTYPE html>\n<html>\n<h1>hello</h1>\n</html>\n",
                        {"Content-Type": "text/html"},
                    )
                else:
                    env = {
                        "PATH": os.environ["PATH"],
                        "GIT_PROJECT_ROOT": str(root),
                        "GIT_HTTP_EXPORT_ALL": "1",
                        "GIT_CONFIG_NOSYSTEM": "1",
                        "GIT_CONFIG_GLOBAL": str(root / "config"),
                        "PATH_INFO": path,
                        "QUERY_STRING": query,
                        "REQUEST_METHOD": self.command,
                        "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                        "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                        "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    }
                    done = subprocess.run(
                        [str(backend)], input=body, env=env, capture_output=True, check=False
                    )
                    head, _, content = done.stdout.partition(b"\r\n\r\n")
                    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
                    self.reply(int(headers.pop("Status", "200").split()[0]), content, headers)

            do_GET = do_POST = answer

            def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
