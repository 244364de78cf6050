"""What agents asked leave for in one task: each request bound to its exact input, decided once.

In memory, with rows behind it: every method returns the row to be stored. It does no input or output.

A request outlives the process that asked: it stays open for people, and whoever asks exactly the same again
is bound to the same row. A decision made meanwhile is given then, and used up by that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from uaihost.agents.adapter import PermissionAsked
from uaihost.errors import ErrorCode, HostError
from uaihost.state.channel import PermissionRow, RuleRow

DECISIONS = ("accept", "decline")
# Who declined when nobody did: the agent gave up waiting; no person said anything in time.
WITHDRAWN = "withdrawn"
NOBODY = "nobody, in time"


class Permissions:
    """The requests of one task, by (agent, request id), and its rules by tool.

    expiry: how long a request waits for a person, milliseconds.
    """

    def __init__(
        self,
        task_id: str,
        rows: Iterable[PermissionRow] = (),
        rules: Iterable[RuleRow] = (),
        expiry: int = 7 * 24 * 3600 * 1000,
    ) -> None:
        self._task_id = task_id
        self._rows = {(row.agent_id, row.request_id): row for row in rows}
        self._expiry = expiry
        # Whose decision is stored and told to everybody.
        self._announced = {key for key, row in self._rows.items() if row.decision is not None}
        self.rules = {rule.tool: rule for rule in rules}

    def open_request(self, agent_id: str, asked_as: str) -> PermissionRow | None:
        """The undecided request that the agent's process knows by that name."""
        return self._find(
            agent_id, lambda row: row.asked_as == asked_as and row.decision is None and not row.orphaned
        )

    def is_open(self, agent_id: str, asked: PermissionAsked) -> bool:
        """Whether exactly this waits for a decision already."""
        found = self.open_request(agent_id, asked.request_id)
        return found is not None and found.input_hash == input_hash(asked.tool, asked.input)

    def ask(self, agent_id: str, asked: PermissionAsked, at: int) -> PermissionRow:
        """The new row, decided already if there is a rule. A name that the agent uses again, for whatever
        input, gets a request id of its own: a decision counts for what the person saw and for nothing after
        it."""
        request_id, number = asked.request_id, 2
        while (agent_id, request_id) in self._rows:
            request_id, number = f"{asked.request_id}~{number}", number + 1
        rule = None if asked.questions else self.rules.get(asked.tool)
        row = PermissionRow(
            task_id=self._task_id,
            agent_id=agent_id,
            request_id=request_id,
            asked_as=asked.request_id,
            at=at,
            tool=asked.tool,
            title=asked.title,
            input=json.dumps(asked.input),
            input_hash=input_hash(asked.tool, asked.input),
            decision="accept" if rule else None,
            decided_by=f"rule of {rule.decided_by}" if rule else None,
            decided_at=at if rule else None,
            expires_at=at + self._expiry,
        )
        self._rows[agent_id, request_id] = row
        return row

    def bind(self, agent_id: str, asked: PermissionAsked) -> tuple[PermissionRow, PermissionRow] | None:
        """Before and after: the row that a process which is gone asked exactly the same by; None if there is
        none."""
        digest = input_hash(asked.tool, asked.input)
        row = self._find(agent_id, lambda row: row.orphaned and not row.told and row.input_hash == digest)
        if row is None:
            return None
        return row, self._put(attrs.evolve(row, asked_as=asked.request_id, orphaned=False))

    def orphan(self, agent_id: str, asked_as: Iterable[str]) -> list[PermissionRow]:
        """Nobody waits for these by those names any more, but somebody may ask the same again."""
        names = set(asked_as)
        rows = [
            row
            for row in self._rows.values()
            if row.agent_id == agent_id and row.asked_as in names and not row.told and not row.orphaned
        ]
        return [self._put(attrs.evolve(row, orphaned=True)) for row in rows]

    def give_up(self, agent_id: str, at: int) -> list[PermissionRow]:
        """The turn that asked is over: what is left of it, declined if it was not decided."""
        left = [
            row for row in self._rows.values() if row.agent_id == agent_id and row.orphaned and not row.told
        ]
        return [self._closed(row, at) for row in left]

    def due(self, agent_id: str) -> list[PermissionRow]:
        """Decided, and the agent's process, which waits for it, has not been told."""
        return [
            row
            for row in self._rows.values()
            if row.agent_id == agent_id and row.decision and not row.told and not row.orphaned
        ]

    def expired(self, at: int) -> list[PermissionRow]:
        """Open requests whose time is over."""
        return [
            row
            for row in self._rows.values()
            if row.decision is None and row.expires_at is not None and row.expires_at <= at
        ]

    def next_expiry(self) -> int | None:
        """When the next open request expires, milliseconds since the epoch."""
        times = [
            row.expires_at
            for row in self._rows.values()
            if row.decision is None and row.expires_at is not None
        ]
        return min(times, default=None)

    def withdraw(self, agent_id: str, asked_as: str, at: int) -> PermissionRow | None:
        """The agent does not wait any more: the open request, declined; None if there is none."""
        row = self.open_request(agent_id, asked_as)
        return None if row is None else self._closed(row, at)

    def decide(
        self,
        agent_id: str,
        request_id: str,
        decision: str,
        by: str,
        at: int,
        *,
        scope: str = "once",
        answers: Mapping[str, str] | None = None,
    ) -> PermissionRow | None:
        """A person's decision: the row with it, or None if the same was decided before.

        Raises:
            HostError: `invalid_args`, `not_found`, or `conflict` when it was decided otherwise.
        """
        if decision not in DECISIONS:
            raise HostError(ErrorCode.INVALID_ARGS, f"a decision is one of: {', '.join(DECISIONS)}")
        row = self._rows.get((agent_id, request_id))
        if row is None:
            raise HostError(
                ErrorCode.NOT_FOUND,
                f"@{agent_id} has no permission request {request_id[:80]!r}; reload the task",
            )
        if row.decision is None:
            return self._put(
                attrs.evolve(
                    row,
                    decision=decision,
                    decided_by=by,
                    decided_at=at,
                    scope=scope if decision == "accept" else "once",
                    answers=json.dumps(dict(answers)) if answers else None,
                )
            )
        if row.decision == decision and row.decided_by != WITHDRAWN:
            return None
        how = "it was withdrawn" if row.decided_by == WITHDRAWN else f"{row.decided_by} said {row.decision}"
        raise HostError(ErrorCode.CONFLICT, f"the request {request_id[:80]!r} is settled already: {how}")

    def expire(self, row: PermissionRow, at: int) -> PermissionRow | None:
        """Declined for nobody has said anything; None if somebody has meanwhile."""
        found = self._rows.get((row.agent_id, row.request_id))
        if found is None or found.decision is not None:
            return None
        return self._put(attrs.evolve(found, decision="decline", decided_by=NOBODY, decided_at=at))

    def told(self, row: PermissionRow) -> PermissionRow:
        """The decision is given, unless the process that asked is gone: then it waits for the next."""
        return row if row.orphaned else self._put(attrs.evolve(row, told=True))

    def announce(self, row: PermissionRow) -> bool:
        """Whether the decision is new to the people of the channel; it is none after this."""
        key = (row.agent_id, row.request_id)
        known = key in self._announced
        self._announced.add(key)
        return not known

    def rule(self, row: PermissionRow, at: int) -> RuleRow | None:
        """What a decision says for the time to come."""
        if row.scope != "task" or row.decision != "accept" or row.tool in self.rules:
            return None
        return RuleRow(self._task_id, row.tool, row.decided_by or "", at)

    def forget(self, row: PermissionRow) -> None:
        """Take back an `ask` that was not stored."""
        del self._rows[row.agent_id, row.request_id]
        self._announced.discard((row.agent_id, row.request_id))

    def restore(self, row: PermissionRow) -> None:
        """Take back a change that was not stored: the row is as before."""
        self._put(row)
        if row.decision is None:
            self._announced.discard((row.agent_id, row.request_id))

    def undecided(self, row: PermissionRow) -> None:
        """Take back a decision that was not stored."""
        blank = attrs.evolve(row, decision=None, decided_by=None, decided_at=None, answers=None, scope="once")
        self.restore(attrs.evolve(blank, told=False))

    def _closed(self, row: PermissionRow, at: int) -> PermissionRow:
        if row.decision is None:
            row = attrs.evolve(row, decision="decline", decided_by=WITHDRAWN, decided_at=at)
        return self._put(attrs.evolve(row, told=True))

    def _find(self, agent_id: str, holds: Callable[[PermissionRow], bool]) -> PermissionRow | None:
        return next((row for row in self._rows.values() if row.agent_id == agent_id and holds(row)), None)

    def _put(self, row: PermissionRow) -> PermissionRow:
        self._rows[row.agent_id, row.request_id] = row
        return row


def input_hash(tool: str, given: dict[str, Any]) -> str:
    """SHA-256 of a tool and its input, the same however the input's keys were ordered."""
    canonical = json.dumps([tool, given], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
