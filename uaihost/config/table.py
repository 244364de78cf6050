"""Every setting: its name, sources, meaning, legal values and default. docs/settings.md is made from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from uaihost.config import values

DEFAULT_BRIDGE_PORT = 8789
DEFAULT_UI_PORT = 5876


@attrs.frozen
class Setting:
    """One row of the table.

    parse: text to value; raises ValueError when it is not in `legal`. default: as shown to people.
    secret: the value is never shown, and `<env>_FILE` may name a file that holds it.
    """

    name: str
    env: str
    meaning: str
    legal: str
    default: str
    parse: Callable[[str], Any]
    secret: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


SETTINGS = (
    Setting(
        "token",
        "UAI_HOST_TOKEN",
        "What the host shows to the bridge to be let in",
        "printable characters without spaces",
        "none; needed",
        values.token,
        secret=True,
    ),
    Setting(
        "cloud_url",
        "UAI_CLOUD_URL",
        "The bridge to dial",
        "`ws://host[:port]/path` or `wss://host[:port]/path`",
        "`ws://127.0.0.1:<bridge port>/host`",
        values.url,
    ),
    Setting(
        "bridge_port",
        "UAI_HOST_BRIDGE_PORT",
        "Port of a bridge on this machine: where `uaibridge` listens and what the default URL names",
        "1 to 65535",
        str(DEFAULT_BRIDGE_PORT),
        values.port,
    ),
    Setting(
        "host_id",
        "UAI_HOST_ID",
        "The name of this host at the bridge",
        "1 to 128 of A-Z a-z 0-9 . _ -",
        "the content of `<data dir>/host-id`, made on first start",
        values.host_id,
    ),
    Setting(
        "ui_port",
        "UAI_HOST_UI_PORT",
        "Where the local page listens on 127.0.0.1; one of the next 20 ports when it is taken",
        "1 to 65535",
        str(DEFAULT_UI_PORT),
        values.port,
    ),
    Setting(
        "data_dir",
        "UAI_DATA_DIR",
        "Where everything the host keeps lies",
        "an absolute path",
        "`/var/lib/uaihost` for root, else `$XDG_DATA_HOME/uaihost` (`~/.local/share/uaihost`)",
        values.folder,
    ),
    Setting(
        "ca_file",
        "UAI_CA_FILE",
        "Certificate authorities (PEM) to trust for a `wss://` bridge instead of the system's",
        "the absolute path of a file",
        "the system's",
        values.file,
    ),
    Setting(
        "docker_host",
        "DOCKER_HOST",
        "The container engine",
        "`unix:///path`, `tcp://host:port` or `http(s)://host:port`",
        "`unix:///var/run/docker.sock`; where there is none, the engine that `uaihost up` started",
        values.engine,
    ),
    Setting(
        "base_image",
        "UAI_BASE_IMAGE",
        "What the task image is built from; made with mmdebstrap when no image registry answers",
        "an image reference",
        "`debian:bookworm-slim`",
        values.image,
    ),
    Setting(
        "local_repositories",
        "UAI_LOCAL_REPOSITORIES",
        "Folders in which repositories may be named by their path; whoever may create tasks can read them",
        "absolute paths, separated by `:`",
        "none (`uaihost up`: your home folder and the current one)",
        values.folders,
    ),
    Setting(
        "task_image",
        "UAI_TASK_IMAGE",
        "What tasks run in: `standard` with the editor, the agents and their tools, or `small` without them",
        "`standard` or `small`",
        "`standard`",
        values.task_image,
    ),
    Setting(
        "task_memory",
        "UAI_TASK_MEMORY",
        "Memory of one task",
        "a number of bytes with K, M or G, at least 64M",
        "4G",
        values.bytes,
    ),
    Setting(
        "task_swap",
        "UAI_TASK_SWAP",
        "Swap of one task, beyond its memory",
        "a number of bytes with K, M or G",
        "0",
        values.amount,
    ),
    Setting(
        "task_cpus", "UAI_TASK_CPUS", "Processor time of one task, in cores", "0.1 to 1024", "2", values.cpus
    ),
    Setting(
        "task_pids",
        "UAI_TASK_PIDS",
        "Processes and threads of one task",
        "16 to 1048576",
        "1024",
        values.pids,
    ),
    Setting(
        "task_disk",
        "UAI_TASK_DISK",
        "Disk of one task: work copies, home and scratch folder",
        "a number of bytes with K, M or G, at least 1G",
        "20G",
        values.disk,
    ),
    Setting(
        "disk_budget",
        "UAI_DISK_BUDGET",
        "Disk for everything that can be made again: beyond it the oldest goes first, in a fixed order",
        "a number of bytes with K, M or G, at least 1G",
        "50G",
        values.disk,
    ),
    Setting(
        "egress",
        "UAI_EGRESS",
        "What tasks reach outside: all that is public, package registries, git hosts and models, or nothing",
        "`open`, `registries+git` or `deny`",
        "`open`",
        values.egress,
    ),
    Setting(
        "egress_allow",
        "UAI_EGRESS_ALLOW",
        "What tasks may reach besides: host names, `*.name` for all below, addresses and networks of yours",
        "`name[:port]`, `*.name[:port]`, `address[:port]` or `network/bits`, separated by `,`",
        "none",
        values.destinations,
    ),
    Setting(
        "claude_base_url",
        "UAI_CLAUDE_BASE_URL",
        "A gateway that Claude Code asks instead of its vendor",
        "`http(s)://host[:port][/path]`",
        "the vendor's",
        values.gateway,
    ),
    Setting(
        "codex_base_url",
        "UAI_CODEX_BASE_URL",
        "A gateway that Codex asks instead of its vendor",
        "`http(s)://host[:port][/path]`",
        "the vendor's",
        values.gateway,
    ),
    Setting(
        "acp_agents",
        "UAI_ACP_AGENTS",
        "Agents of your own that speak the Agent Client Protocol: each becomes a kind",
        "`name=command` separated by `;`, names of a-z, 0-9 and -",
        "none",
        values.agents,
    ),
    Setting(
        "permission_expiry",
        "UAI_PERMISSION_EXPIRY",
        "How long an agent's request for leave waits before it counts as declined, in hours",
        "0.01 to 8784",
        "168",
        values.hours,
    ),
    Setting(
        "budget_hops",
        "UAI_BUDGET_HOPS",
        "Words from agent to agent in one channel until a person speaks again; 0: no limit",
        "a whole number",
        "8",
        values.count,
    ),
    Setting(
        "budget_turns",
        "UAI_BUDGET_TURNS",
        "Turns that agents begin by themselves until a person speaks again; 0: no limit",
        "a whole number",
        "40",
        values.count,
    ),
    Setting(
        "budget_tokens",
        "UAI_BUDGET_TOKENS",
        "Tokens that one channel uses until a person speaks again; 0: no limit",
        "a whole number",
        "5000000",
        values.count,
    ),
    Setting(
        "budget_minutes",
        "UAI_BUDGET_MINUTES",
        "How long agents work on one word of a person, in minutes; 0: no limit",
        "a whole number",
        "240",
        values.count,
    ),
    Setting(
        "github_url",
        "UAI_GITHUB_URL",
        "The GitHub that users connect to: github.com or a GitHub Enterprise Server",
        "`https://host[:port]`",
        "`https://github.com`",
        values.origin,
    ),
    Setting(
        "github_api_url",
        "UAI_GITHUB_API_URL",
        "Where that GitHub answers API requests",
        "`https://host[:port][/path]`",
        "`https://api.github.com`; for another GitHub `<UAI_GITHUB_URL>/api/v3`",
        values.api,
    ),
    Setting(
        "github_client_id",
        "UAI_GITHUB_CLIENT_ID",
        "The GitHub App by which users connect",
        "the App's client id",
        "none: users are connected by tokens of their own",
        values.client_id,
    ),
    Setting(
        "github_client_secret",
        "UAI_GITHUB_CLIENT_SECRET",
        "That App's client secret",
        "printable characters without spaces",
        "none",
        values.token,
        secret=True,
    ),
    Setting(
        "secrets_source",
        "UAI_SECRETS_KEY",
        "Where the key lies that seals stored secrets",
        "`auto`, `file`, `keyring` or `systemd`",
        "`auto`: a systemd credential when there is one, else the file `secrets.key` in the data folder",
        values.secrets_source,
    ),
    Setting(
        "co_author",
        "UAI_CO_AUTHOR",
        "Whether commits that an agent makes name it as co-author",
        "`on` or `off`",
        "`on`",
        values.switch,
    ),
    Setting(
        "log_format",
        "UAI_LOG_FORMAT",
        "How the service's own output is written: lines for people, or one JSON object a line",
        "`text` or `json`",
        "`text`",
        values.log_format,
    ),
    Setting(
        "log_level",
        "UAI_LOG_LEVEL",
        "The least that is logged",
        "`debug`, `info`, `warn` or `error`",
        "`info`",
        values.log_level,
    ),
)
