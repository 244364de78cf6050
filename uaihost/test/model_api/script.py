"""The little language in which a user's text says what the model does. Pure.

A text's last line that begins with a verb is its script; without one the answer is `echo: TEXT`. Steps are
chained by ` ;; `:

    say:TEXT                answer TEXT
    think:TEXT              a thought, which is no answer
    slow:COUNT:MS           COUNT pieces of text, MS milliseconds apart
    run:COMMAND             the program's shell tool
    write:PATH:TEXT         the program's tool that writes a file
    ask:QUESTION|A|B        the program's tool that asks a person
    tool:NAME:JSON          any tool by its name
    fail:STATUS[:TIMES]     an HTTP error, always or for the first TIMES requests with this script
    limit:SECONDS[:TIMES]   a usage limit that ends so many seconds later, as the vendor tells it
    drop:COUNT              COUNT pieces of text, then the connection is cut
    hang:SECONDS            silence

A step that calls a tool is over when the tool's result has come; after the last one the answer is `done: `
and the end of the last result. In TEXT `\\n` is a line break and `{at}` an @, `{{at}}` one that is said by
whoever repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

VERBS = ("say", "think", "slow", "run", "write", "ask", "tool", "fail", "limit", "drop", "hang")
CALLS = ("run", "write", "ask", "tool")
SEPARATOR = " ;; "
_SCRIPT = re.compile(rf"^(?:@[A-Za-z0-9_-]+ )*((?:{'|'.join(VERBS)}):.*)$")
# Of a result, characters that are repeated.
SHOWN = 200


@dataclass(frozen=True)
class Step:
    verb: str
    rest: str


@dataclass
class Turn:
    """What one request gets. pieces: of text, `pause` seconds apart; call: at most one tool; fail: an HTTP
    status; limit: seconds; cut: the connection ends after the text; hang: seconds before anything is said."""

    pieces: list[str] = field(default_factory=list)
    thought: str = ""
    pause: float = 0.0
    call: Step | None = None
    fail: int = 0
    limit: int = 0
    cut: bool = False
    hang: float = 0.0


def script(text: str) -> list[Step]:
    """The steps in a text; none if it has no script."""
    for line in reversed(text.strip().splitlines()):
        found = _SCRIPT.match(line.strip())
        if found:
            steps = []
            for part in found[1].split(SEPARATOR):
                verb, colon, rest = part.strip().partition(":")
                if verb not in VERBS or not colon:
                    return [Step("say", f"no such step: {part}")]
                steps.append(Step(verb, rest))
            return steps
    return []


def unescape(text: str) -> str:
    plain = text.replace("\\n", "\n").replace("\\t", "\t")
    return plain.replace("{{at}}", "\0").replace("{at}", "@").replace("\0", "{at}")


def turn(text: str, results: Sequence[str], seen: dict[str, int], otherwise: str = "") -> Turn:
    """What to answer when `results` of tools have come since the user said `text`.

    seen: script to the number of requests that failed by it, which this counts. otherwise: the script of a
    text that has none.
    """
    steps = script(text) or script(otherwise)
    if not steps:
        return Turn(words(f"echo: {text.strip()[-SHOWN:]}"))
    made = Turn()
    calls = [number for number, step in enumerate(steps) if step.verb in CALLS]
    first = calls[len(results) - 1] + 1 if results and len(results) <= len(calls) else 0
    if len(results) > len(calls):
        first = len(steps)
    for step in steps[first:]:
        if step.verb in CALLS:
            made.call = step
            break
        _add(made, step, seen, f"{steps}#{len(results)}")
        if made.fail or made.limit or made.cut:
            break
    if not made.pieces and made.call is None and not (made.fail or made.limit or made.cut):
        last = " ".join(results[-1].split())[-SHOWN:] if results else ""
        made.pieces = words(f"done: {last}" if last else "done")
    return made


def words(text: str) -> list[str]:
    """A text in pieces, as a model streams it."""
    return re.findall(r"\S+\s*|\s+", text) or [text]


def _add(made: Turn, step: Step, seen: dict[str, int], key: str) -> None:
    rest = step.rest
    if step.verb == "say":
        made.pieces += words(unescape(rest))
    elif step.verb == "think":
        made.thought = rest
    elif step.verb == "slow":
        count, _, pause = rest.partition(":")
        made.pieces += [f"piece {number}\n" for number in range(1, int(count) + 1)]
        made.pause = float(pause or 200) / 1000
    elif step.verb == "drop":
        made.pieces += [f"piece {number}\n" for number in range(1, int(rest) + 1)]
        made.cut = True
    elif step.verb == "hang":
        made.hang = float(rest)
    elif step.verb in ("fail", "limit"):
        value, _, times = rest.partition(":")
        seen[key] = seen.get(key, 0) + 1
        if not times or seen[key] <= int(times):
            setattr(made, step.verb, int(value))
