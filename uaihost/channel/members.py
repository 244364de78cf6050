"""A crew in the store: who is wanted, who was here before. Called within a transaction."""

from __future__ import annotations

from sqlite3 import Connection

import attrs

from uaihost.channel.instructions import standing, workspace
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow, ChannelRow
from uaihost.wire.inputs import Agent, ChannelEnsure

# Whose words open a first turn: the owner's, who wrote them into the crew.
KICKOFF = "user:owner"


def save(db: Connection, given: ChannelEnsure) -> tuple[ChannelRow, list[AgentRow]]:
    """The channel is open and its crew is `given`; a new member's initial prompt is queued, once for ever.

    Returns the rows as they are wanted, in the crew's order; what is stored of a known one stays.
    """
    task_id = given.taskId
    old = table.channel(db, task_id) or ChannelRow(task_id, True, "")
    channel = attrs.evolve(old, open=True, cwd=workspace(given))
    table.save_channel(db, channel)
    known = {row.agent_id: row for row in table.agents(db, task_id)}
    for agent_id in known.keys() - {agent.id for agent in given.agents}:
        table.save_agent(db, attrs.evolve(known[agent_id], present=False))
    rows = []
    for position, agent in enumerate(given.agents):
        row = _wanted(given, agent, position)
        if agent.id not in known:
            table.save_agent(db, row)
            if agent.initialPrompt and agent.initialPrompt.strip():
                table.enqueue(db, task_id, agent.id, agent.initialPrompt, origin=KICKOFF)
        rows.append(row)
    return channel, rows


def bring_back(db: Connection, wanted: AgentRow) -> AgentRow:
    """The member as wanted; it may have been here before: what it remembers is kept."""
    old = table.agent(db, wanted.task_id, wanted.agent_id) or wanted
    keep = attrs.evolve(
        wanted,
        run=old.run,
        cursor=old.cursor,
        next_line=old.next_line,
        session_id=old.session_id if old.kind == wanted.kind else None,
        answer_id=old.answer_id,
    )
    table.save_agent(db, keep)
    return keep


def _wanted(given: ChannelEnsure, agent: Agent, position: int) -> AgentRow:
    return AgentRow(
        task_id=given.taskId,
        agent_id=agent.id,
        position=position,
        present=True,
        label=agent.label,
        kind=agent.kind,
        model=agent.model,
        instructions=standing(given, agent),
    )
