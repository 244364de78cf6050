"""What the channel answers to a message that is an order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from uaihost.channel import governor
from uaihost.channel.governor import Budgets, Spent
from uaihost.state.channel import AgentRow, RuleRow, UsageRow

HELP = """@id addresses one agent or several; without it the agent you spoke with last hears you.
/status: what each agent does and has used    /interrupt [@id]: stop a turn    /retry @id: try again
/restart @id: start an agent anew    /rules: what agents may do without asking    /ask TOOL: ask again
/retry-gh: try the owner's connection to GitHub again    /help: this text"""


def status(
    crew: Sequence[tuple[AgentRow, str]],
    waiting: Mapping[str, int],
    used: Mapping[str, UsageRow],
    spent: Spent,
    budgets: Budgets,
) -> str:
    """crew: each row and what it does."""
    lines = [_line(row, doing, waiting.get(row.agent_id, 0), used.get(row.agent_id)) for row, doing in crew]
    if not lines:
        return "No agent is in this task."
    if spent.paused:
        lines.append(governor.notice(spent, budgets))
    else:
        left = [f"{name}: {value} of {limit or 'any'}" for name, value, limit in _spent(spent, budgets)]
        lines.append(f"Used by agents alone since a person spoke: {', '.join(left)}")
    return "\n".join(lines)


def rules(rows: Sequence[RuleRow]) -> str:
    if not rows:
        return "Agents ask before they use a tool. No tool is accepted for the whole task."
    lines = [f"{row.tool} (by {row.decided_by})" for row in rows]
    return "Accepted in this task without asking: " + ", ".join(lines) + ". To be asked again: /ask TOOL"


def _line(row: AgentRow, doing: str, waiting: int, used: UsageRow | None) -> str:
    parts = [f"@{row.agent_id} ({row.kind}{f', {row.model}' if row.model else ''}): {doing}"]
    if row.parked_until is not None:
        parts.append(f"usage limit until {datetime.fromtimestamp(row.parked_until / 1000, UTC):%H:%M} UTC")
    if waiting:
        parts.append(f"{waiting} waiting")
    if used is not None:
        cost = f", ${used.cost_usd:.2f}" if used.cost_usd is not None else ""
        parts.append(f"{used.input_tokens:,} tokens read, {used.output_tokens:,} written{cost}")
    return "; ".join(parts)


def _spent(spent: Spent, budgets: Budgets) -> list[tuple[str, int, int]]:
    return [
        ("words to one another", spent.hops, budgets.hops),
        ("turns", spent.turns, budgets.turns),
        ("tokens", spent.tokens, budgets.tokens),
    ]
