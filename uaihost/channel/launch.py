"""How an agent's keeper is started in its container: files, environment, secrets.

Files lie in a folder that the container can only read. Secrets go into the environment of the one process, or
into a line as it leaves: never into a file, an argument, a log or the database.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from uaihost.agents.adapter import AgentSettings, Start
from uaihost.agents.co_authors import VARIABLE, co_author
from uaihost.blocking import Blocking
from uaihost.interfaces import Account, Accounts, Engine
from uaihost.state.channel import AgentRow

# The keeper in the container, where it keeps an agent's things there (the task's run folder), and where the
# host's files for agents are seen there (the task's control folder).
KEEPER = ("python3", "/opt/uai/agentd.py")
AGENTS = "/run/uai/agents"
CONTROL = "/run/host/agents"

_SECRET = re.compile(rb"\{\{([a-z_]{1,32})\}\}")


class Launcher:
    """tasks: the folder that holds `<task id>/control`; provider: of a kind of agent, None for none;
    co_author: whether the commits of agents name them.
    """

    def __init__(
        self,
        engine: Engine,
        blocking: Blocking,
        tasks: Path,
        accounts: Accounts,
        provider: Callable[[str], str | None],
        co_author: bool = False,
    ) -> None:
        self._engine = engine
        self._blocking = blocking
        self._tasks = tasks
        self._accounts = accounts
        self._provider = provider
        self._co_author = co_author

    def settings(self, row: AgentRow, cwd: str) -> AgentSettings:
        """What the agent's adapter is made with."""
        provider = self._provider(row.kind)
        return AgentSettings(
            agent_id=row.agent_id,
            model=row.model,
            folder=f"{AGENTS}/{row.agent_id}",
            instructions=row.instructions,
            control=f"{CONTROL}/{row.agent_id}",
            cwd=cwd,
            account=self._accounts.account(provider) if provider else Account(),
        )

    async def start(self, task_id: str, row: AgentRow, cwd: str, start: Start) -> None:
        """Start the keeper with this in the task's container.

        Raises:
            HostError: nobody is signed in, or the engine refused.
        """
        provider = self._provider(row.kind) or ""
        secrets = {name: await self._accounts.secret(provider, what) for name, what in start.secrets.items()}
        if start.files:
            folder = self._tasks / task_id / "control" / "agents" / row.agent_id
            await self._blocking.call(_write, folder, start.files)
        env = {name: value for name, value in start.env.items() if value}
        if self._co_author:
            env[VARIABLE] = co_author(row.kind)
        away = [name for name, value in start.env.items() if not value and name not in secrets]
        argv = (
            [*("env", *(word for name in away for word in ("-u", name))), *start.argv] if away else start.argv
        )
        await self._engine.start_process(
            task_id,
            [*KEEPER, "--dir", f"{AGENTS}/{row.agent_id}", "--cwd", cwd, "--", *argv],
            env={**env, **secrets} or None,
        )

    async def fill(self, kind: str, line: bytes, renew: bool) -> bytes:
        """`line`, JSON, with each `{{name}}` replaced by that secret."""
        provider = self._provider(kind) or ""
        secrets: dict[bytes, bytes] = {}
        for name in dict.fromkeys(match[1] for match in _SECRET.finditer(line)):
            what = name.decode()
            secret = await self._accounts.secret(provider, what, renew=renew and what == "access")
            secrets[name] = json.dumps(secret)[1:-1].encode()
        # All at once: what a secret itself says is no name.
        return _SECRET.sub(lambda match: secrets[match[1]], line)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Exactly these files in the folder, whole at every moment, to be read by the container's user."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for made in (folder.parent, folder):
        made.chmod(0o755)
    for old in folder.iterdir():
        if old.name not in files:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name, text in files.items():
        beside = folder / f".{name}.new"
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.chmod(0o644)
        beside.replace(folder / name)
