"""Who hears a message, and what a message that is a command asks for. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, cast

import attrs

# An agent's id, as the user chose it: it stands in mentions, paths and argument lists.
AGENT_ID = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
# `@id` that is no part of a longer word: an e-mail address or a decorator's path mentions nobody.
_MENTION = re.compile(r"(?<![\w@./-])@([A-Za-z0-9_-]{1,32})(?![\w-])")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)

Verb = Literal["help", "status", "interrupt", "restart", "retry", "rules", "ask", "retry-gh"]
VERBS = ("help", "status", "interrupt", "restart", "retry", "rules", "ask", "retry-gh")


@attrs.frozen
class Slash:
    """A message that is an order to the channel. agents: the ids it names, known or not."""

    verb: Verb
    agents: tuple[str, ...]


def mentions(text: str, crew: Sequence[str]) -> list[str]:
    """The members of `crew` that `text` addresses, in the order of first mention; code does not count."""
    found = dict.fromkeys(_MENTION.findall(_CODE.sub(" ", text)))
    return [agent_id for agent_id in found if agent_id in crew]


def route(text: str, crew: Sequence[str], partner: str | None) -> list[str]:
    """Who hears a person's message: the mentioned, else the last partner, else the first of the crew."""
    addressed = mentions(text, crew)
    if addressed:
        return addressed
    if partner in crew:
        return [cast(str, partner)]
    return list(crew[:1])


def slash(text: str) -> Slash | None:
    """The order that a message is, or None: a path or an unknown word after `/` is an ordinary message."""
    first, *rest = text.split() or [""]
    if not first.startswith("/") or first[1:] not in VERBS:
        return None
    return Slash(cast(Verb, first[1:]), tuple(word.removeprefix("@") for word in rest))
