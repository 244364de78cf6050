"""The tables of channels (migrations/0002_channel.sql and later): SQL in, records out.

Every function takes the connection of the transaction it is part of. Times are milliseconds since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Literal

import attrs

AuthorKind = Literal["user", "agent", "system"]


@attrs.frozen
class ChannelRow:
    task_id: str
    open: bool
    cwd: str
    hops_left: int = 0
    spent: str = ""
    review: str = ""


@attrs.frozen
class AgentRow:
    """A member of a crew and all that its session needs to go on (the migration says what each column is)."""

    task_id: str
    agent_id: str
    position: int
    present: bool
    label: str
    kind: str
    model: str | None
    instructions: str
    state: str = "starting"
    run: str | None = None
    cursor: int = 0
    next_line: int = 0
    session_id: str | None = None
    memory: str = ""
    answer_id: str = ""
    partial: str = ""
    doing: str | None = None
    origin: str = "system"
    pending: str = ""
    begun: bool = False
    tries: int = 0
    parks: int = 0
    tools: int = 0
    answer: str = ""
    parked_until: int | None = None
    fault: str = ""
    asked: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    stale: bool = False


@attrs.frozen
class MessageRow:
    task_id: str
    seq: int
    message_id: str
    at: int
    author_kind: AuthorKind
    author_id: str
    author_label: str
    text: str
    routed_to: tuple[str, ...]


@attrs.frozen
class LineRow:
    """A line for an agent's stdin; prompt: the words, if the line begins a turn; secret: 1 if secrets are
    filled in as it leaves, 2 if fresh ones; request: the id of the one whose decision it gives."""

    number: int
    line: bytes
    prompt: str | None
    secret: int = 0
    request: str | None = None


@attrs.frozen
class PermissionRow:
    """asked_as: the agent's own name of the request; input: JSON; decision: None while it is open."""

    task_id: str
    agent_id: str
    request_id: str
    asked_as: str
    at: int
    tool: str
    title: str
    input: str
    input_hash: str
    decision: str | None = None
    decided_by: str | None = None
    decided_at: int | None = None
    answers: str | None = None
    scope: str = "once"
    expires_at: int | None = None
    orphaned: bool = False
    told: bool = False


@attrs.frozen
class RuleRow:
    """A tool that the agents of a task use without asking."""

    task_id: str
    tool: str
    decided_by: str
    at: int


@attrs.frozen
class UsageRow:
    agent_id: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


# ---- channels and crews


def save_channel(db: Connection, row: ChannelRow) -> None:
    _put(db, "channels", attrs.asdict(row))


def channel(db: Connection, task_id: str) -> ChannelRow | None:
    names = [field.name for field in attrs.fields(ChannelRow)]
    found = db.execute(f"SELECT {', '.join(names)} FROM channels WHERE task_id = ?", (task_id,)).fetchone()
    return ChannelRow(found[0], bool(found[1]), *found[2:]) if found else None


def set_spent(db: Connection, task_id: str, spent: str) -> None:
    db.execute("UPDATE channels SET spent = ? WHERE task_id = ?", (spent, task_id))


def set_review(db: Connection, task_id: str, review: str) -> None:
    db.execute("UPDATE channels SET review = ? WHERE task_id = ?", (review, task_id))


def set_reviewers(db: Connection, task_id: str, reviewers: Sequence[str]) -> None:
    _put(db, "channel_reviewers", {"task_id": task_id, "reviewers": json.dumps(list(reviewers))})


def reviewers(db: Connection, task_id: str) -> list[str]:
    found = db.execute("SELECT reviewers FROM channel_reviewers WHERE task_id = ?", (task_id,)).fetchone()
    return list(json.loads(found[0])) if found else []


def close_channel(db: Connection, task_id: str) -> None:
    """Nobody is in it any more and nothing waits to be said; the history stays."""
    db.execute("UPDATE channels SET open = 0 WHERE task_id = ?", (task_id,))
    db.execute("UPDATE channel_agents SET state = 'stopped' WHERE task_id = ?", (task_id,))
    db.execute("DELETE FROM channel_queue WHERE task_id = ?", (task_id,))
    db.execute("DELETE FROM channel_lines WHERE task_id = ?", (task_id,))


def save_agent(db: Connection, row: AgentRow) -> None:
    lists = {name: json.dumps(getattr(row, name)) for name in ("asked", "odd")}
    _put(db, "channel_agents", attrs.asdict(row) | lists)


def agents(db: Connection, task_id: str) -> list[AgentRow]:
    """Everybody who is or was in the crew, in its order."""
    names = [field.name for field in attrs.fields(AgentRow)]
    rows = db.execute(
        f"SELECT {', '.join(names)} FROM channel_agents WHERE task_id = ? ORDER BY position", (task_id,)
    )
    return [_agent(dict(zip(names, row, strict=True))) for row in rows]


def _agent(fields: dict[str, Any]) -> AgentRow:
    flags = {name: bool(fields[name]) for name in ("present", "begun", "stale")}
    lists = {name: tuple(json.loads(fields[name])) for name in ("asked", "odd")}
    return AgentRow(**fields | flags | lists)


def agent(db: Connection, task_id: str, agent_id: str) -> AgentRow | None:
    return next((row for row in agents(db, task_id) if row.agent_id == agent_id), None)


def partners(db: Connection, task_id: str) -> dict[str, str]:
    """Author id to the agent that author spoke with last."""
    return dict(
        db.execute(
            "SELECT author_id, agent_id FROM channel_partners WHERE task_id = ?", (task_id,)
        ).fetchall()
    )


def set_partner(db: Connection, task_id: str, author_id: str, agent_id: str) -> None:
    _put(db, "channel_partners", {"task_id": task_id, "author_id": author_id, "agent_id": agent_id})


# ---- messages


def add_message(db: Connection, row: MessageRow) -> int:
    """Stores the message under the task's next number and returns that; `row.seq` is not looked at."""
    (seq,) = db.execute(
        "SELECT COALESCE(MAX(seq), 0) + 1 FROM channel_messages WHERE task_id = ?", (row.task_id,)
    ).fetchone()
    fields = attrs.asdict(row) | {"seq": seq, "routed_to": json.dumps(row.routed_to)}
    _insert(db, "channel_messages", fields)
    return int(seq)


def message(db: Connection, task_id: str, message_id: str) -> MessageRow | None:
    rows = _messages(db, "task_id = ? AND message_id = ?", (task_id, message_id))
    return rows[0] if rows else None


def messages_after(db: Connection, task_id: str, seq: int, limit: int) -> list[MessageRow]:
    return _messages(db, "task_id = ? AND seq > ? ORDER BY seq LIMIT ?", (task_id, seq, limit))


def last_messages(db: Connection, task_id: str, limit: int) -> list[MessageRow]:
    """The newest, in order."""
    return _messages(db, "task_id = ? ORDER BY seq DESC LIMIT ?", (task_id, limit))[::-1]


def _messages(db: Connection, where: str, given: Sequence[Any]) -> list[MessageRow]:
    names = [field.name for field in attrs.fields(MessageRow)]
    rows = db.execute(f"SELECT {', '.join(names)} FROM channel_messages WHERE {where}", given)
    return [
        MessageRow(**dict(zip(names, row, strict=True)) | {"routed_to": tuple(json.loads(row[8]))})
        for row in rows
    ]


# ---- words that wait, and lines on their way


def enqueue(
    db: Connection, task_id: str, agent_id: str, text: str, *, origin: str = "system", first: bool = False
) -> None:
    """Behind what waits for the agent already, or before it. origin: `user:ID`, `agent:ID` or `system`."""
    edge = "MIN(position) - 1" if first else "MAX(position) + 1"
    db.execute(
        "INSERT INTO channel_queue (task_id, agent_id, position, text, origin) "
        f"SELECT ?, ?, COALESCE({edge}, 0), ?, ? FROM channel_queue WHERE task_id = ? AND agent_id = ?",
        (task_id, agent_id, text, origin, task_id, agent_id),
    )


def queued(db: Connection, task_id: str, agent_id: str) -> tuple[int, str, str] | None:
    """The position, the text and the origin of what the agent is to be told next."""
    found = db.execute(
        "SELECT position, text, origin FROM channel_queue WHERE task_id = ? AND agent_id = ? "
        "ORDER BY position LIMIT 1",
        (task_id, agent_id),
    ).fetchone()
    return (found[0], found[1], found[2]) if found else None


def waiting(db: Connection) -> int:
    """How many messages wait for an agent's turn, in all tasks."""
    found: int = db.execute("SELECT count(*) FROM channel_queue").fetchone()[0]
    return found


def dequeue(db: Connection, task_id: str, agent_id: str, position: int) -> None:
    db.execute(
        "DELETE FROM channel_queue WHERE task_id = ? AND agent_id = ? AND position = ?",
        (task_id, agent_id, position),
    )


def add_line(db: Connection, task_id: str, agent_id: str, row: LineRow) -> None:
    _insert(db, "channel_lines", {"task_id": task_id, "agent_id": agent_id, **attrs.asdict(row)})


def lines(db: Connection, task_id: str, agent_id: str) -> list[LineRow]:
    rows = db.execute(
        "SELECT number, line, prompt, secret, request FROM channel_lines "
        "WHERE task_id = ? AND agent_id = ? ORDER BY number",
        (task_id, agent_id),
    )
    return [LineRow(*row) for row in rows]


def drop_lines(db: Connection, task_id: str, agent_id: str, below: int) -> None:
    """Forget the lines with a number below `below`."""
    db.execute(
        "DELETE FROM channel_lines WHERE task_id = ? AND agent_id = ? AND number < ?",
        (task_id, agent_id, below),
    )


# ---- permissions


def save_permission(db: Connection, row: PermissionRow) -> None:
    _put(db, "channel_permissions", attrs.asdict(row))


def permissions(db: Connection, task_id: str) -> list[PermissionRow]:
    names = [field.name for field in attrs.fields(PermissionRow)]
    rows = db.execute(
        f"SELECT {', '.join(names)} FROM channel_permissions WHERE task_id = ? ORDER BY at", (task_id,)
    )
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return [
        PermissionRow(**each | {name: bool(each[name]) for name in ("orphaned", "told")}) for each in found
    ]


def add_rule(db: Connection, row: RuleRow) -> None:
    _put(db, "channel_rules", attrs.asdict(row))


def remove_rule(db: Connection, task_id: str, tool: str) -> None:
    db.execute("DELETE FROM channel_rules WHERE task_id = ? AND tool = ?", (task_id, tool))


def rules(db: Connection, task_id: str) -> list[RuleRow]:
    rows = db.execute(
        "SELECT task_id, tool, decided_by, at FROM channel_rules WHERE task_id = ? ORDER BY tool", (task_id,)
    )
    return [RuleRow(*row) for row in rows]


# ---- what was used, what was attached


def add_usage(db: Connection, task_id: str, row: UsageRow) -> None:
    """Add to what the agent has used."""
    db.execute(
        "INSERT INTO channel_usage VALUES (?, ?, ?, ?, ?) ON CONFLICT (task_id, agent_id) DO UPDATE SET "
        "input_tokens = input_tokens + excluded.input_tokens, "
        "output_tokens = output_tokens + excluded.output_tokens, "
        "cost_usd = CASE WHEN excluded.cost_usd IS NULL THEN cost_usd "
        "ELSE COALESCE(cost_usd, 0) + excluded.cost_usd END",
        (task_id, row.agent_id, row.input_tokens, row.output_tokens, row.cost_usd),
    )


def usage(db: Connection, task_id: str) -> list[UsageRow]:
    rows = db.execute(
        "SELECT agent_id, input_tokens, output_tokens, cost_usd FROM channel_usage WHERE task_id = ?",
        (task_id,),
    )
    return [UsageRow(*row) for row in rows]


def queue_lengths(db: Connection, task_id: str) -> dict[str, int]:
    """How many words wait for each agent."""
    rows = db.execute(
        "SELECT agent_id, COUNT(*) FROM channel_queue WHERE task_id = ? GROUP BY agent_id", (task_id,)
    )
    return dict(rows.fetchall())


def attach(db: Connection, task_id: str, path: str, size: int) -> None:
    _put(db, "channel_attached", {"task_id": task_id, "path": path, "size": size})


def attached(db: Connection, task_id: str) -> list[tuple[str, int]]:
    """The files that no message has named yet, in the order they came: path in the container, and bytes."""
    rows = db.execute("SELECT path, size FROM channel_attached WHERE task_id = ? ORDER BY rowid", (task_id,))
    return [(path, size) for path, size in rows.fetchall()]


def forget_attached(db: Connection, task_id: str, paths: Sequence[str]) -> None:
    db.executemany(
        "DELETE FROM channel_attached WHERE task_id = ? AND path = ?", [(task_id, path) for path in paths]
    )


def _put(db: Connection, table: str, fields: Mapping[str, Any]) -> None:
    _insert(db, table, fields, "INSERT OR REPLACE")


def _insert(db: Connection, table: str, fields: Mapping[str, Any], verb: str = "INSERT") -> None:
    marks = ", ".join("?" * len(fields))
    db.execute(f"{verb} INTO {table} ({', '.join(fields)}) VALUES ({marks})", tuple(fields.values()))
