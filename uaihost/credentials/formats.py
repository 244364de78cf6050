"""What vendors' secrets look like, so that one in the wrong place is told before it is stored. Pure."""

from __future__ import annotations

from uaihost.errors import ErrorCode, HostError

# Characters; a login's whole state with its signed tokens is the longest.
LONGEST = 64 << 10

# How a vendor's secrets begin (provider, name), and how others begin that are often mistaken for them.
_BEGINS = {
    ("claude", "key"): ("sk-ant-api", "one begins with sk-ant-api"),
    ("claude", "token"): ("sk-ant-oat", "one begins with sk-ant-oat; `claude setup-token` prints one"),
    ("codex", "key"): ("sk-", "one begins with sk-"),
}  # fmt: skip
_NOT = {("codex", "key"): ("sk-ant-", "that is a key of Claude's; type: uaihost login claude")}


def check_value(provider: str, name: str, value: str, *, strict: bool) -> None:
    """Whether `value` can be the secret `name`. strict: the vendor's own, not a gateway's.

    Raises:
        HostError: `invalid_args`, with what to do; the value is not in it.
    """
    place = (provider, name)
    problem = ""
    if not value or len(value) > LONGEST or not value.isascii() or not value.isprintable():
        problem = f"it must be 1 to {LONGEST} printable characters"
    elif name != "auth" and " " in value:
        problem = "it has a space in it"
    elif strict and place in _NOT and value.startswith(_NOT[place][0]):
        problem = _NOT[place][1]
    elif strict and place in _BEGINS and not value.startswith(_BEGINS[place][0]):
        problem = _BEGINS[place][1]
    if problem:
        raise HostError(
            ErrorCode.INVALID_ARGS, f"that is no {name} for {provider}: {problem}; nothing was changed"
        )
