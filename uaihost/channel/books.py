"""What agents' happenings mean to the channel's own books: requests for leave, budgets, usage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import attrs

from uaihost.agents.adapter import PermissionAsked, Usage
from uaihost.channel import governor
from uaihost.channel.effects import Effects
from uaihost.channel.governor import Budgets, Spent
from uaihost.channel.permissions import NOBODY, Permissions
from uaihost.channel.shown import shown
from uaihost.state import channel as table
from uaihost.state.channel import PermissionRow
from uaihost.wire import events


class Requests:
    """The requests for leave of one task: from happenings to rows, events and lines of the transcript."""

    def __init__(self, task_id: str, permissions: Permissions) -> None:
        self.rows = permissions
        self._task_id = task_id

    def ask(self, agent_id: str, asked: PermissionAsked, now: int, effects: Effects) -> None:
        if self.rows.is_open(agent_id, asked):
            return
        bound = self.rows.bind(agent_id, asked)
        if bound is not None:
            before, row = bound
            effects.undoing.append(lambda: self.rows.restore(before))
            effects.writes.append(lambda db: table.save_permission(db, row))
            return
        # The agent waits for one thing by one name: an earlier one by the same name is given up.
        self.withdraw(agent_id, asked.request_id, now, effects)
        row = self.rows.ask(agent_id, asked, now)
        effects.undoing.append(lambda: self.rows.forget(row))
        effects.writes.append(lambda db: table.save_permission(db, row))
        effects.told.append(self._requested(agent_id, asked, row, now))
        if row.decision is not None:
            self._announce(row, now, effects)

    def withdraw(self, agent_id: str, asked_as: str, now: int, effects: Effects) -> None:
        self._close(self.rows.withdraw(agent_id, asked_as, now), now, effects)

    def orphan(self, agent_id: str, names: tuple[str, ...], effects: Effects) -> None:
        for row in self.rows.orphan(agent_id, names):
            self._undo_to(attrs.evolve(row, orphaned=False), effects)
            self._save(row, effects)

    def give_up(self, agent_id: str, now: int, effects: Effects) -> None:
        for row in self.rows.give_up(agent_id, now):
            self._close(row, now, effects)

    def decided(self, row: PermissionRow, now: int, effects: Effects, given: bool = True) -> None:
        """A decision; given: told to the agent, if the process that asked is there."""
        told = self.rows.told(row) if given else row
        if not given:
            self.rows.restore(row)
        known = not self.rows.announce(row)
        if known:
            self._undo_to(attrs.evolve(row, told=False), effects)
        else:
            effects.undoing.append(lambda: self.rows.undecided(row))
            self._tell(row, now, effects)
            self._rule(row, now, effects)
        self._save(told, effects)

    def _close(self, row: PermissionRow | None, now: int, effects: Effects) -> None:
        if row is None:
            return
        effects.undoing.append(lambda: self.rows.undecided(row))
        if self.rows.announce(row):
            effects.told.append(self._resolved(row, now))
        self._save(row, effects)

    def _announce(self, row: PermissionRow, now: int, effects: Effects) -> None:
        if self.rows.announce(row):
            self._tell(row, now, effects)

    def _tell(self, row: PermissionRow, now: int, effects: Effects) -> None:
        effects.told.append(self._resolved(row, now))
        effects.note(audit(row))

    def _rule(self, row: PermissionRow, now: int, effects: Effects) -> None:
        rule = self.rows.rule(row, now)
        if rule is None:
            return
        self.rows.rules[rule.tool] = rule
        effects.undoing.append(lambda: self._unrule(rule.tool))
        effects.writes.append(lambda db: table.add_rule(db, rule))

    def _unrule(self, tool: str) -> None:
        self.rows.rules.pop(tool, None)

    def _undo_to(self, row: PermissionRow, effects: Effects) -> None:
        effects.undoing.append(lambda: self.rows.restore(row))

    def _save(self, row: PermissionRow, effects: Effects) -> None:
        effects.writes.append(lambda db: table.save_permission(db, row))

    def _requested(
        self, agent_id: str, asked: PermissionAsked, row: PermissionRow, now: int
    ) -> events.PermissionRequested:
        questions = [
            events.Question(each.text, [events.Option(*option) for option in each.options], each.many)
            for each in asked.questions
        ]
        return events.PermissionRequested(
            self._task_id,
            now,
            agent_id,
            row.request_id,
            asked.tool,
            shown(asked.title),
            asked.input,
            questions or None,
            row.expires_at,
        )

    def _resolved(self, row: PermissionRow, now: int) -> events.PermissionResolved:
        decision = cast(Literal["accept", "decline"], row.decision)
        return events.PermissionResolved(
            self._task_id, now, row.agent_id, row.request_id, decision, row.decided_by or ""
        )


class Books:
    """Budgets and usage of one task."""

    def __init__(self, task_id: str, budgets: Budgets, spent: str) -> None:
        self.budgets = budgets
        self.spent = Spent(**json.loads(spent)) if spent else Spent()
        self._task_id = task_id

    def spend(self, change: Callable[[Spent, Budgets], Spent], effects: Effects) -> None:
        """Count something, and say so when a budget is used up by it."""
        before, after = self.spent, change(self.spent, self.budgets)
        if after == before:
            return
        self.spent = after
        effects.undoing.append(lambda: self._back(before))
        stored = json.dumps(attrs.asdict(after))
        effects.writes.append(lambda db: table.set_spent(db, self._task_id, stored))
        if after.paused and not before.paused:
            effects.note(governor.notice(after, self.budgets))

    def used(self, agent_id: str, usage: Usage, now: int, effects: Effects) -> None:
        read, made, cost = usage.input_tokens, usage.output_tokens, usage.cost_usd
        effects.told.append(events.AgentUsage(self._task_id, now, agent_id, read, made, cost))
        row = table.UsageRow(agent_id, read, made, cost)
        effects.writes.append(lambda db: table.add_usage(db, self._task_id, row))
        self.spend(lambda spent, budgets: governor.used(spent, budgets, read + made), effects)

    def _back(self, spent: Spent) -> None:
        self.spent = spent


def audit(row: PermissionRow) -> str:
    """A decision as the transcript keeps it."""
    verb = "accepted" if row.decision == "accept" else "declined"
    what = f"@{row.agent_id} asked for {shown(row.title)}"
    answers: Mapping[str, Any] = json.loads(row.answers) if row.answers else {}
    chosen = "".join(f"\n{shown(question)}: {shown(str(answer))}" for question, answer in answers.items())
    more = f"; {row.tool} is accepted in this task from now on" if row.scope == "task" else ""
    who = "since nobody answered in time" if row.decided_by == NOBODY else f"by {row.decided_by}"
    return f"{what}: {verb} {who}{more}.{chosen}"
