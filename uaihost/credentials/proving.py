"""Makes everything that tasks and the host's own git prove themselves with, and joins it."""

from __future__ import annotations

import contextlib
import shutil
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, TimeoutError
from twisted.web.client import HTTPConnectionPool

from uaihost.blocking import Blocking
from uaihost.credentials.api_forward import ApiForward
from uaihost.credentials.api_rules import Api
from uaihost.credentials.audit import AuditLog
from uaihost.credentials.broker import TaskBroker
from uaihost.credentials.github import GitHubTokens
from uaihost.credentials.github_door import GitHubDoor
from uaihost.credentials.github_exchange import GitHubServer
from uaihost.credentials.github_http import GitHubClient, github_agent
from uaihost.credentials.pull_requests import GitHubPullRequests
from uaihost.credentials.sealing import Sealer
from uaihost.credentials.server_files import ServerFiles, owners_files
from uaihost.credentials.ssh_keys import UserSshKeys
from uaihost.interfaces import Store
from uaihost.paths import Folders

# Connections to GitHub's API that are kept for the next requests.
KEPT = 4
# Seconds for TLS connections to end in order when the host stops.
GOODBYE = 1.0


class Settings(Protocol):
    """Those of config.Settings that are used here."""

    @property
    def ca_file(self) -> Path | None: ...

    @property
    def github_url(self) -> str: ...

    @property
    def github_api_url(self) -> str: ...

    @property
    def github_client_id(self) -> str | None: ...

    @property
    def github_client_secret(self) -> str | None: ...


class Proofs:
    """tokens, ssh: what users have; broker: what is done with it; audit: what was done.

    blocking: for files; reading: one thread, for what tasks ask GitHub. shim: the folder of the programs that
    containers run. note: a task's id and a line for its channel; it does not raise.
    """

    def __init__(
        self,
        reactor: Any,
        random: Callable[[], float],
        blocking: Blocking,
        reading: Blocking,
        store: Store,
        sealer: Callable[[], Awaitable[Sealer]],
        folders: Folders,
        settings: Settings,
        shim: Path,
        note: Callable[[str, str], object],
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._folders = folders
        self._ca_file = settings.ca_file
        self._note = note
        host = urlsplit(settings.github_url).netloc.lower()
        self.audit = AuditLog(reactor, blocking, folders.audit)
        self.exchange = GitHubServer(
            reactor,
            settings.github_url,
            settings.github_api_url,
            settings.github_client_id,
            settings.github_client_secret,
            settings.ca_file,
        )
        self.tokens = GitHubTokens(reactor, random, store, sealer, self.exchange, host, self._tell)
        self.github = GitHubDoor(self.tokens)
        self.ssh = UserSshKeys(reactor, store, sealer)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = KEPT
        agent = github_agent(reactor, settings.ca_file, self._pool)
        api = Api(settings.github_url, settings.github_api_url)
        client = GitHubClient(reactor, settings.ca_file)
        self.pulls = GitHubPullRequests(client, self.tokens, settings.github_api_url, self.audit)
        files = owners_files(Path.home(), folders.mirrors / ".git-home")
        self.broker = TaskBroker(
            reactor,
            blocking,
            folders,
            self.tokens,
            self.ssh,
            ApiForward(reactor, reading, agent, self.tokens, api),
            ServerFiles(reactor, blocking, files),
            self.audit,
            helper=shim / "credential.py",
            settings=() if settings.ca_file is None else (f"http.sslCAInfo={self._bundle}",),
            github=host,
        )

    async def start(self) -> None:
        """Before any task and any run of git."""
        await self._blocking.call(self._clear)
        await self.tokens.load()
        self.broker.start()

    async def stop(self) -> None:
        self.broker.stop()
        # A server that does not say goodbye holds nobody up.
        closing: Deferred[Any] = self._pool.closeCachedConnections()
        closing.addTimeout(GOODBYE, self._reactor)
        with contextlib.suppress(TimeoutError):
            await closing
        await self.audit.written()

    async def retry(self, task_id: str) -> str:
        """proofs.Recovery."""
        user_id = self.broker.user_of(task_id)
        return (
            "This task has no owner's credentials." if user_id is None else await self.tokens.retry(user_id)
        )

    def environment(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """The daemon's, with whom its git is to trust: what is set there outranks git's own settings."""
        return environ if self._ca_file is None else {**environ, "GIT_SSL_CAINFO": str(self._bundle)}

    @property
    def _bundle(self) -> Path:
        return self._folders.run_of_git / "authorities.pem"

    def _clear(self) -> None:
        """What runs of git left when the daemon was killed; then whom git is to trust: it reads one file,
        where others take the machine's authorities and the owner's beside them."""
        folder = self._folders.run_of_git
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
        if self._ca_file is not None:
            machine = ssl.get_default_verify_paths().cafile
            texts = [Path(machine).read_text(encoding="utf-8")] if machine else []
            self._bundle.write_text("\n".join([*texts, self._ca_file.read_text(encoding="utf-8")]), "utf-8")

    def _tell(self, user_id: str, line: str) -> None:
        for task_id in self.broker.tasks_of(user_id):
            self._note(task_id, line)
