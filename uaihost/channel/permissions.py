"""What agents asked leave for in one task: each request bound to its exact input, decided once.

In memory, with rows behind it: every method returns the row to be stored. It does no input or output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import attrs

from uaihost.agents.adapter import PermissionAsked
from uaihost.errors import ErrorCode, HostError
from uaihost.state.channel import PermissionRow

DECISIONS = ("accept", "decline")
# Who declined when nobody did: the agent gave up waiting.
WITHDRAWN = "withdrawn"


class Permissions:
    """The requests of one task, by (agent, request id)."""

    def __init__(self, task_id: str, rows: Iterable[PermissionRow] = ()) -> None:
        self._task_id = task_id
        self._rows = {(row.agent_id, row.request_id): row for row in rows}

    def open_request(self, agent_id: str, asked_as: str) -> PermissionRow | None:
        """The undecided request that the agent knows by that name."""
        for row in self._rows.values():
            if row.agent_id == agent_id and row.asked_as == asked_as and row.decision is None:
                return row
        return None

    def is_open(self, agent_id: str, asked: PermissionAsked) -> bool:
        """Whether exactly this waits for a decision already."""
        found = self.open_request(agent_id, asked.request_id)
        return found is not None and found.input_hash == input_hash(asked.tool, asked.input)

    def ask(self, agent_id: str, asked: PermissionAsked, at: int) -> PermissionRow:
        """The new row. A name that the agent uses again, for whatever input, gets a request id of its own: a
        decision counts for what the person saw and for nothing after it."""
        request_id, number = asked.request_id, 2
        while (agent_id, request_id) in self._rows:
            request_id, number = f"{asked.request_id}~{number}", number + 1
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
        )
        self._rows[agent_id, request_id] = row
        return row

    def withdraw(self, agent_id: str, asked_as: str, at: int) -> PermissionRow | None:
        """The agent does not wait any more: the open request, declined; None if there is none."""
        row = self.open_request(agent_id, asked_as)
        return None if row is None else self._decided(row, "decline", WITHDRAWN, at)

    def decide(self, agent_id: str, request_id: str, decision: str, by: str, at: int) -> PermissionRow | None:
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
            return self._decided(row, decision, by, at)
        if row.decision == decision and row.decided_by != WITHDRAWN:
            return None
        how = "it was withdrawn" if row.decided_by == WITHDRAWN else f"{row.decided_by} said {row.decision}"
        raise HostError(ErrorCode.CONFLICT, f"the request {request_id[:80]!r} is settled already: {how}")

    def forget(self, row: PermissionRow) -> None:
        """Take back an `ask` that was not stored."""
        del self._rows[row.agent_id, row.request_id]

    def reopen(self, row: PermissionRow) -> None:
        """Take back a decision that was not stored."""
        self._decided(row, None, None, None)

    def _decided(
        self, row: PermissionRow, decision: str | None, by: str | None, at: int | None
    ) -> PermissionRow:
        row = attrs.evolve(row, decision=decision, decided_by=by, decided_at=at)
        self._rows[row.agent_id, row.request_id] = row
        return row


def input_hash(tool: str, given: dict[str, Any]) -> str:
    """SHA-256 of a tool and its input, the same however the input's keys were ordered."""
    canonical = json.dumps([tool, given], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
