"""Rounds of review: the first agent's turn has changed files, so reviewers are asked, one by one. Pure.

A reviewer that addresses the author lets the author speak first: what that changes begins a new round, and
if it changes nothing the next reviewer is asked. It knows files only as a mark that differs when they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

Stage = Literal["", "asked", "addressed"]


@attrs.frozen
class Round:
    """mark: of the files before the author's turn, '' when not known. looking: it is being found out whether
    they have changed. stage: `asked` while a reviewer is at work, `addressed` while its word waits for the
    author's. left: who is still to be asked, or is asked, that one first; asked: requests that are not
    answered, also of earlier rounds; spoke: the author has, since the last of them; answer: its last
    words.
    """

    mark: str = ""
    looking: bool = False
    stage: Stage = ""
    left: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    spoke: bool = False
    answer: str = ""


_FIELDS = frozenset(field.name for field in attrs.fields(Round))


def restored(fields: Mapping[str, Any]) -> Round:
    """The round of a stored row."""
    known = {name: value for name, value in fields.items() if name in _FIELDS}
    known |= {name: tuple(known.get(name, ())) for name in ("left", "asked")}
    if known.get("stage") == "looking":
        # As it was stored before a look was apart from the stage.
        known |= {"stage": "", "looking": True}
    return Round(**known)


def begun(round_: Round, mark: str) -> Round:
    """The author's turn begins. After one that came to no end the files are still compared with before it."""
    return attrs.evolve(round_, mark=round_.mark or mark)


def look(round_: Round, answer: str) -> Round:
    """The author's turn is done."""
    return attrs.evolve(round_, looking=True, answer=answer)


def found(round_: Round, mark: str, reviewers: Sequence[str]) -> tuple[Round, bool]:
    """What the files are now, '' when that cannot be told; whether the first of those left is asked now.

    A change begins a new round, whatever became of the last.
    """
    seen = attrs.evolve(round_, mark="", looking=False, spoke=True)
    if mark and round_.mark and mark != round_.mark:
        return _next(seen, reviewers)
    if round_.stage == "addressed":
        return _next(seen, [name for name in round_.left if name in reviewers])
    return seen, False


def answered(
    round_: Round, reviewer: str, done: bool, addressed: bool, reviewers: Sequence[str]
) -> tuple[Round, bool]:
    """A turn that a request began has ended; whether the next is asked now.

    done: it came to its end; addressed: the reviewer spoke to the author. It counts if the reviewer has not
    been asked anew meanwhile.
    """
    asked = list(round_.asked)
    if reviewer in asked:
        asked.remove(reviewer)
    seen = attrs.evolve(round_, asked=tuple(asked))
    if not done or reviewer in asked or round_.stage != "asked" or round_.left[:1] != (reviewer,):
        return seen, False
    left = [name for name in round_.left[1:] if name in reviewers]
    if addressed and not round_.spoke:
        return attrs.evolve(seen, left=tuple(left), stage="addressed"), False
    return _next(seen, left)


def _next(round_: Round, left: Sequence[str]) -> tuple[Round, bool]:
    if not left:
        return attrs.evolve(round_, left=(), stage=""), False
    asked = (*round_.asked, left[0])
    return attrs.evolve(round_, left=tuple(left), stage="asked", asked=asked, spoke=False), True


def request(author: str, answer: str) -> str:
    """What a reviewer is told."""
    said = f"\n@{author} said of it:\n{answer}" if answer.strip() else ""
    return (
        f"Please review what @{author} has just changed on this task's branch: look at the files and at "
        f"`git diff`, and change nothing yourself. What must be mended, say to @{author}; if nothing, say so "
        f"without naming anybody.{said}"
    )
