"""Keeps agents from talking among themselves without end. Pure.

Every delivery from one agent to another costs a hop; a person's word refills the budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

# Deliveries between agents for one word of a person: enough for work to go there and back four times.
HOPS = 8


@attrs.frozen
class Grant:
    """granted: who may be told; refused: who may not; left: what remains of the budget."""

    granted: tuple[str, ...]
    refused: tuple[str, ...]
    left: int

    @property
    def notice(self) -> str | None:
        """What the channel is told when the budget is used up."""
        if not self.refused:
            return None
        names = ", ".join(f"@{agent_id}" for agent_id in self.refused)
        return (
            f"The agents have spoken {HOPS} times among themselves; this was not passed on to {names}. "
            "A word from you lets them go on."
        )


def spend(left: int, wanted: Sequence[str]) -> Grant:
    """What of `wanted`, one hop each, a budget of `left` allows."""
    count = max(0, min(left, len(wanted)))
    return Grant(tuple(wanted[:count]), tuple(wanted[count:]), left - count)
