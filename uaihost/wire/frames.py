"""Every frame of the bridge protocol, revision 1, both directions (docs/protocol.md, sections 1 to 3).

A frame is a JSON object whose `kind` names its type. Unknown fields are ignored. An optional
field of a wrong type counts as absent, as in the reference; a required one makes the frame bad.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Header = tuple[str, str]


class RequestLine(msgspec.Struct, frozen=True):
    """The head of an HTTP request as the browser sent it; headers in order, repeats kept."""

    method: str
    url: str
    headers: list[Header]


class Auth(msgspec.Struct, frozen=True, tag_field="kind", tag="auth"):
    token: str
    hostId: str


class AgentKind(msgspec.Struct, frozen=True):
    kind: str
    models: list[str]


class Runtime(msgspec.Struct, frozen=True):
    name: str
    version: str


class Capabilities(msgspec.Struct, frozen=True, omit_defaults=True):
    agentKinds: list[AgentKind]
    runtimes: list[Runtime]
    # Extensions that this host speaks; a bridge answers with `bridge.hello` (docs/protocol.md, extensions).
    features: list[str] = []


class HostCapabilities(msgspec.Struct, frozen=True, tag_field="kind", tag="host.capabilities"):
    capabilities: Capabilities


class Ping(msgspec.Struct, frozen=True, tag_field="kind", tag="ping"):
    ts: int | float


class Pong(msgspec.Struct, frozen=True, tag_field="kind", tag="pong"):
    ts: int | float


class BridgeHello(msgspec.Struct, frozen=True, tag_field="kind", tag="bridge.hello"):
    features: list[str]


class Command(msgspec.Struct, frozen=True, tag_field="kind", tag="command"):
    commandId: str
    command: str
    args: list[Any]


class ResultOk(msgspec.Struct, frozen=True):
    value: Any
    ok: Literal[True] = True


class ResultFailed(msgspec.Struct, frozen=True):
    code: str
    message: str
    ok: Literal[False] = False


class Result(msgspec.Struct, frozen=True, tag_field="kind", tag="result"):
    commandId: str
    # ResultOk or ResultFailed; kept raw where it is only passed on.
    result: Any


class EventFrame(msgspec.Struct, frozen=True, tag_field="kind", tag="event"):
    event: Any


class TunnelOpen(msgspec.Struct, frozen=True, tag_field="kind", tag="tunnel.open", omit_defaults=True):
    tunnelId: str
    target: Literal["editor", "preview"]
    taskId: str
    reqLine: RequestLine
    upgrade: bool
    name: Any = None

    def __post_init__(self) -> None:
        _only_str(self, "name")


class TunnelAck(msgspec.Struct, frozen=True, tag_field="kind", tag="tunnel.ack", omit_defaults=True):
    """`ok` true: status, statusText and headers are set. `ok` false: status and message are set."""

    tunnelId: str
    ok: bool
    status: int
    statusText: str | None = None
    headers: list[Header] | None = None
    message: str | None = None


class TunnelData(msgspec.Struct, frozen=True, tag_field="kind", tag="tunnel.data"):
    """The next binary message holds this tunnel's bytes."""

    tunnelId: str


class TunnelRequestEnd(msgspec.Struct, frozen=True, tag_field="kind", tag="tunnel.requestEnd"):
    tunnelId: str


class TunnelClose(msgspec.Struct, frozen=True, tag_field="kind", tag="tunnel.close", omit_defaults=True):
    tunnelId: str
    reason: Any = None

    def __post_init__(self) -> None:
        _only_str(self, "reason")


class GhConnectSet(msgspec.Struct, frozen=True, tag_field="kind", tag="gh.connect.set", omit_defaults=True):
    userId: str
    installationId: int
    githubLogin: str
    targetType: Literal["User", "Organization"]
    refreshToken: str
    refreshTokenExpiresAt: Any = None

    def __post_init__(self) -> None:
        value = self.refreshTokenExpiresAt
        if not isinstance(value, int | float) or isinstance(value, bool):
            msgspec.structs.force_setattr(self, "refreshTokenExpiresAt", None)

    def __repr__(self) -> str:
        return f"GhConnectSet(userId={self.userId!r}, githubLogin={self.githubLogin!r}, refreshToken=...)"


class GhConnectClear(msgspec.Struct, frozen=True, tag_field="kind", tag="gh.connect.clear"):
    userId: str


class GhConnectAck(msgspec.Struct, frozen=True, tag_field="kind", tag="gh.connect.ack", omit_defaults=True):
    userId: str
    ok: bool
    error: str | None = None


class SshKeyGet(msgspec.Struct, frozen=True, tag_field="kind", tag="ssh.key.get"):
    userId: str


class SshKeyEnsure(msgspec.Struct, frozen=True, tag_field="kind", tag="ssh.key.ensure"):
    userId: str


class SshKeyDelete(msgspec.Struct, frozen=True, tag_field="kind", tag="ssh.key.delete"):
    userId: str


class SshKeyOk(msgspec.Struct, frozen=True, tag_field="kind", tag="ssh.key.ack"):
    userId: str
    publicKey: str | None
    ok: Literal[True] = True


class SshKeyFailed(msgspec.Struct, frozen=True, tag_field="kind", tag="ssh.key.ack"):
    userId: str
    error: str
    ok: Literal[False] = False


class SshKeyAck(msgspec.Struct, frozen=True, tag_field="kind", tag="ssh.key.ack"):
    """Either of the two above, as a bridge reads it."""

    userId: str
    ok: bool
    publicKey: str | None = None
    error: str | None = None


FromBridge = (
    Pong
    | BridgeHello
    | Command
    | TunnelOpen
    | TunnelData
    | TunnelRequestEnd
    | TunnelClose
    | GhConnectSet
    | GhConnectClear
    | SshKeyGet
    | SshKeyEnsure
    | SshKeyDelete
)

FromHost = (
    Auth
    | HostCapabilities
    | Ping
    | Result
    | EventFrame
    | TunnelAck
    | TunnelData
    | TunnelClose
    | GhConnectAck
    | SshKeyAck
)

Frame = FromBridge | FromHost | SshKeyOk | SshKeyFailed


def _only_str(frame: msgspec.Struct, field: str) -> None:
    """An optional string of another type is absent, as the reference reads it."""
    if not isinstance(getattr(frame, field), str):
        msgspec.structs.force_setattr(frame, field, None)
