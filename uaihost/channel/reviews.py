"""Rounds of review: the first agent's turn has changed files, so reviewers are asked, one by one. Pure.

A reviewer that addresses the author ends the round: the author works again, and its next change begins a new
one. It knows files only as a mark that differs when they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

Stage = Literal["", "looking", "asked"]


@attrs.frozen
class Round:
    """mark: of the files before the author's turn, '' when not known. stage: `looking` while it is being
    found out whether they changed, `asked` while a reviewer is at work. left: who is still to be asked, the
    one who was asked first; answer: what the author said last."""

    mark: str = ""
    stage: Stage = ""
    left: tuple[str, ...] = ()
    answer: str = ""


def begun(mark: str) -> Round:
    """The author's turn begins."""
    return Round(mark=mark)


def look(round_: Round, answer: str) -> Round:
    """The author's turn is done."""
    return attrs.evolve(round_, stage="looking", left=(), answer=answer)


def found(round_: Round, mark: str, reviewers: Sequence[str]) -> Round:
    """What the files are now: the first reviewer is asked if they changed."""
    if not reviewers or not round_.mark or mark == round_.mark:
        return Round(mark=mark)
    return attrs.evolve(round_, mark=mark, stage="asked", left=tuple(reviewers))


def answered(round_: Round, reviewer: str, addressed: bool) -> Round:
    """The reviewer's turn is done; addressed: it spoke to the author. The next is asked, if there is one."""
    if round_.stage != "asked" or round_.left[:1] != (reviewer,):
        return round_
    left = () if addressed else round_.left[1:]
    return attrs.evolve(round_, left=left, stage="asked" if left else "")


def request(author: str, answer: str) -> str:
    """What a reviewer is told."""
    said = f"\n@{author} said of it:\n{answer}" if answer.strip() else ""
    return (
        f"Please review what @{author} has just changed on this task's branch: look at the files and at "
        f"`git diff`, and change nothing yourself. What must be mended, say to @{author}; if nothing, say so "
        f"without naming anybody.{said}"
    )
