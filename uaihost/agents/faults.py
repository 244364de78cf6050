"""What people read of a fault, with what they can do, and how long a usage limit lasts. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from uaihost.agents.adapter import Fault

# How long a usage limit is taken to last whose end the vendor does not tell, milliseconds.
UNTOLD = 30 * 60 * 1000
# The longest that is believed, milliseconds: limits are counted by weeks.
LONGEST = 8 * 24 * 3600 * 1000
# The least that is waited, by how often this turn has met a limit before, milliseconds: an end that is told
# and is none must not become a loop.
LEAST = (1_000, 60_000, 300_000, UNTOLD)


def until(fault: Fault, now: int, before: int) -> int:
    """When a turn that met a usage limit is tried again, milliseconds since the epoch."""
    told = fault.resets_at if fault.resets_at is not None else now + UNTOLD
    least = LEAST[min(before, len(LEAST) - 1)]
    return min(max(told, now + least), now + LONGEST)


def clock_time(at: int, now: int) -> str:
    """A time to come as people read it, with the day if it is not within the next 20 hours. Milliseconds.

    >>> clock_time(1_700_000_000_000, 1_699_990_000_000)
    '22:13 UTC'
    """
    day = "%-d %b " if at - now > 20 * 3600 * 1000 else ""
    return f"{datetime.fromtimestamp(at / 1000, UTC):{day}%H:%M} UTC"


def advice(agent_id: str, kind: str, fault: Fault, until: str = "") -> str:
    """What happened to the agent's turn and what can be done. until: the end of a usage limit, for people."""
    text = fault.text.strip() or "it did not say why"
    again = f"/retry @{agent_id}"
    match fault.kind:
        case "quota":
            return (
                f"@{agent_id} has met its usage limit: {text}\n"
                f"It goes on by itself at {until}. To try at once write: {again}"
            )
        case "signed-out":
            sign_in = fault.sign_in or f"On the host type: uaihost login {kind}"
            return (
                f"@{agent_id} is not signed in: {text}\n{sign_in}\n"
                f"Then it goes on by itself, also with what waits for it. To try at once write: {again}"
            )
        case "overloaded":
            return f"@{agent_id} could not finish, the model has no room now: {text}\nLater write: {again}"
        case "network":
            return (
                f"@{agent_id} could not finish, the model is not reached: {text}\n"
                f"When the network is back write: {again}"
            )
        case "refused":
            return (
                f"@{agent_id} could not finish, the request was refused: {text}\n"
                f"Change the model or say it otherwise; or write: {again}"
            )
    return f"@{agent_id} could not finish: {text}\nTo try again write: {again}"


def forgotten(agent_id: str, text: str) -> str:
    """About a conversation that cannot be gone on with."""
    return (
        f"@{agent_id} cannot go on with its conversation ({text.strip() or 'it is not there'}). "
        "It begins a new one and is told what was said here."
    )
