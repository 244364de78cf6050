"""Whom an agent's commits name as their co-author, beside the task's owner, who is their author."""

from __future__ import annotations

__all__ = ["VARIABLE", "co_author"]

# What git in the task image looks at (images/standard/etc/uai/git): it is set for agents' processes alone.
VARIABLE = "UAI_CO_AUTHOR"

# As these programs name themselves where they do: forges know some of the addresses.
_OWN = {
    "claude": "Claude <noreply@anthropic.com>",
    "codex": "Codex <noreply@openai.com>",
    "opencode": "opencode <noreply@opencode.ai>",
}


def co_author(kind: str) -> str:
    """`name <address>` of the agents of this kind; the address of one that is not known reaches nobody."""
    # RFC 2606, section 2: names below `invalid` never exist.
    return _OWN.get(kind) or f"{kind} <{kind}@agents.invalid>"
