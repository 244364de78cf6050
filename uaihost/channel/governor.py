"""Keeps a crew from working without end on one word of a person. Pure.

What agents do by themselves (words to one another, turns that those begin, tokens, time) is counted since a
person last spoke. When a budget is used up the crew pauses: what waits is held, nothing is lost, and any word
of a person fills all budgets up again. 0 stands for no limit.
"""

from __future__ import annotations

from typing import Literal

import attrs

Name = Literal["hops", "turns", "tokens", "minutes", "ping-pong"]

# Turns in a row that agents began by talking and in which nobody used a tool: talk, and no work.
PING_PONG = 6


@attrs.frozen
class Budgets:
    """hops: words from agent to agent; turns: begun by those; tokens: read and made; minutes: of work."""

    hops: int = 8
    turns: int = 40
    tokens: int = 5_000_000
    minutes: int = 240


@attrs.frozen
class Spent:
    """What was used since a person spoke. since: that moment, milliseconds since the epoch; idle: turns of
    talk in a row; paused: the budget that is used up, '' for none."""

    since: int = 0
    hops: int = 0
    turns: int = 0
    tokens: int = 0
    idle: int = 0
    paused: str = ""


def spoken(at: int) -> Spent:
    """A person spoke: everything begins anew."""
    return Spent(since=at)


def hop(spent: Spent, budgets: Budgets, count: int) -> Spent:
    """Agents want to say `count` words to one another. The words themselves wait in the queue when paused."""
    if not count:
        return spent
    return _check(attrs.evolve(spent, hops=spent.hops + count), budgets)


def began(spent: Spent, budgets: Budgets, origin: str, at: int) -> Spent:
    """A turn began with words from `origin`."""
    if of_person(origin):
        return spent
    return timed(attrs.evolve(spent, turns=spent.turns + 1), budgets, at)


def used(spent: Spent, budgets: Budgets, tokens: int) -> Spent:
    return _check(attrs.evolve(spent, tokens=spent.tokens + tokens), budgets)


def ended(spent: Spent, budgets: Budgets, origin: str, tools: int) -> Spent:
    """A turn ended in which so many tools were used."""
    talk = not of_person(origin) and tools == 0
    return _check(attrs.evolve(spent, idle=spent.idle + 1 if talk else 0), budgets)


def timed(spent: Spent, budgets: Budgets, at: int) -> Spent:
    """It is now `at`."""
    if not spent.paused and budgets.minutes and spent.since and at - spent.since >= budgets.minutes * 60_000:
        return attrs.evolve(spent, paused="minutes")
    return _check(spent, budgets)


def may_begin(spent: Spent, origin: str) -> bool:
    """Whether words from `origin` may begin a turn."""
    return not spent.paused or of_person(origin)


def of_person(origin: str) -> bool:
    return origin.startswith("user:")


def notice(spent: Spent, budgets: Budgets) -> str:
    """What the channel is told when it pauses."""
    said = {
        "hops": f"the agents have spoken {budgets.hops} times among themselves",
        "turns": f"the agents have begun {budgets.turns} turns by themselves",
        "tokens": f"the agents have used {spent.tokens:,} tokens; the budget is {budgets.tokens:,}",
        "minutes": f"the agents have worked for {budgets.minutes} minutes",
        "ping-pong": f"the agents talked {PING_PONG} turns in a row and did nothing",
    }
    return (
        f"The crew pauses: {said[spent.paused]} since somebody spoke. What they wanted to say to one another "
        "waits. Any word from you lets them go on."
    )


def _check(spent: Spent, budgets: Budgets) -> Spent:
    if spent.paused:
        return spent
    limits: tuple[tuple[Name, int, int], ...] = (
        # The word beyond the budget is the one that waits.
        ("hops", spent.hops - 1, budgets.hops),
        ("turns", spent.turns, budgets.turns),
        ("tokens", spent.tokens, budgets.tokens),
        ("ping-pong", spent.idle, PING_PONG),
    )
    for name, value, limit in limits:
        if limit and value >= limit:
            return attrs.evolve(spent, paused=name)
    return spent
