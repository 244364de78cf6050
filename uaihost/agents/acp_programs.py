"""Programs that speak the Agent Client Protocol: how each is started so that it asks and obeys no repository.

A program of one's own (the setting `acp_agents`) is started as it is: what it takes from a repository, and
whether it asks, is its own affair (docs/agents.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from uaihost.agents.acp import AcpAdapter, AcpProgram
from uaihost.agents.adapter import AgentSettings, Start

OPENCODE = "opencode"
OPENCODE_TITLE = "OpenCode"
OPENCODE_MODELS = (
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-opus-4-5",
    "anthropic/claude-haiku-4-5",
)
INSTRUCTIONS = "instructions.md"
_SIGN_IN = "On the host type: uaihost login claude --api-key"
# It needs a folder of settings that it can write; what an earlier command wrote there must not count.
_CLEAN = 'rm -rf "$XDG_CONFIG_HOME" "$HOME/.opencode"; cd "$0" && exec "$@"'
# Whatever it is told, OpenCode runs the plugins of the folder it works in and of those above it. So it works
# in the one above the projects, in which nobody but the host can make anything.
ABOVE = "/workspace"

# What a repository or a command in the container left must neither run nor count.
_ENVIRONMENT = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_EXTERNAL_SKILLS": "1",
    "OPENCODE_DISABLE_CLAUDE_CODE": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_SHARE": "1",
    "OPENCODE_PURE": "1",
    "OPENCODE_CONFIG": "",
    "OPENCODE_CONFIG_DIR": "",
    "OPENCODE_PERMISSION": "",
}


def opencode(settings: AgentSettings, memory: str = "") -> AcpAdapter:
    """OpenCode, with the owner's API key of Claude."""
    program = AcpProgram(OPENCODE, _opencode, cwd=ABOVE, sign_in=_SIGN_IN)
    return AcpAdapter(settings, memory, program)


def own(name: str, command: Sequence[str], settings: AgentSettings, memory: str = "") -> AcpAdapter:
    """A program that the owner has named."""
    sign_in = f"Sign in as {name} wants it, in the task's terminal"
    return AcpAdapter(settings, memory, AcpProgram(name, partial(_own, tuple(command)), sign_in=sign_in))


def _opencode(settings: AgentSettings) -> Start:
    account = settings.account
    options = {"baseURL": f"{account.base_url}/v1"} if account.base_url else {}
    config: dict[str, Any] = {
        "permission": {"edit": "ask", "bash": "ask", "webfetch": "ask", "external_directory": "ask"},
        "model": settings.model or OPENCODE_MODELS[0],
        "provider": {"anthropic": {"options": options}},
        "instructions": [f"{settings.control}/{INSTRUCTIONS}"],
        "share": "disabled",
        "autoupdate": False,
    }
    env = {
        **_ENVIRONMENT,
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
        # In place of its settings in the home folder, which commands in the container can write.
        "XDG_CONFIG_HOME": f"{settings.folder}/config",
    }
    where = f"Your commands start in {ABOVE}; the project is in {settings.cwd}."
    secrets: Mapping[str, str] = {"ANTHROPIC_API_KEY": "key"} if account.form == "key" else {}
    return Start(
        ("/bin/sh", "-c", _CLEAN, ABOVE, "opencode", "acp"),
        env,
        secrets,
        {INSTRUCTIONS: f"{settings.instructions}\n\n{where}\n"},
    )


def _own(command: tuple[str, ...], settings: AgentSettings) -> Start:
    return Start(command, files={INSTRUCTIONS: settings.instructions + "\n"})
