"""What a pull request says of its task: made of the transcript and the commits, always the same of the same.

Agents and people wrote these words, and a pull request is read by strangers: nobody is called by name, what
looks like a secret is left out, and it is short. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from uaihost.state.channel import MessageRow

# Requests of people, the newest of them; characters of each, and of the last answer.
REQUESTS, REQUEST, ANSWER = 10, 600, 4000
# Characters of a title: what GitHub shows in a list.
TITLE = 120

_SECRET = re.compile(
    r"(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[A-Za-z0-9_-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?i:(?<=password[=:])|(?<=password: )|(?<=token=)|(?<=secret=))\S{6,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@))",
    re.S,
)
# A name after an at sign calls that person or team there; a zero-width space between keeps it a word.
_CALL = re.compile(r"@(?=[A-Za-z0-9])")
# What begins with one is an order to the channel.
_ORDER = "/"


def title(name: str) -> str:
    """Of a task's name."""
    line = clean(" ".join(name.split()))
    return line if len(line) <= TITLE else line[: TITLE - 1] + "…"


def body(messages: Sequence[MessageRow], commits: Sequence[str]) -> str:
    """Markdown: what people asked for, what was answered last, and the commits. messages: oldest first."""
    asked = [row for row in messages if row.author_kind == "user" and not row.text.startswith(_ORDER)]
    answers = [row for row in messages if row.author_kind == "agent" and row.text.strip()]
    parts = []
    if asked:
        shown = asked[-REQUESTS:]
        lines = [f"> {_quoted(_short(clean(row.text), REQUEST))}" for row in shown]
        left = len(asked) - len(shown)
        parts += ["## Asked", *([f"{left} earlier requests are left out."] if left else []), *lines]
    if answers:
        parts += ["## Answer", _short(clean(answers[-1].text), ANSWER)]
    if commits:
        parts += ["## Commits", "\n".join(f"- {clean(line)}" for line in commits)]
    return "\n\n".join(parts)


def clean(text: str) -> str:
    """Without secrets, without calls, without characters that turn lines around or hide."""
    shown = "".join(char for char in text if char.isprintable() or char in "\n\t")
    return _CALL.sub("@\u200b", _SECRET.sub("[left out]", shown)).strip()


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _quoted(text: str) -> str:
    return text.replace("\n", "\n> ")
