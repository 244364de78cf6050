"""A run's figures as Markdown: targets, then everything; and their place in a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lanes import (
    DIRECT,
    MUX,
    MUX_OFF,
    NEGOTIATED,
    OFF,
    OPENSSH,
    REFERENCE,
    REFERENCE_OFF,
    TUNNEL,
    Kind,
)
from benchmarks.measures import MEASURES
from benchmarks.targets import Lanes, median, outcomes

# What stands in a document before and after what is generated.
BEGIN = "<!-- made by `make bench`: begin -->"
END = "<!-- made by `make bench`: end -->"

TITLES = [measure.title for measure in MEASURES]


def report(found: dict[str, Any]) -> str:
    """All tables of a run, and what it ran on."""
    lanes: Lanes = found["lanes"]
    parts = [
        _machine(found),
        "### What is to be reached",
        _reached(lanes),
    ]
    tables = {
        "As it ships: permessage-deflate negotiated": _figures(lanes, (*NEGOTIATED, OPENSSH), MUX, REFERENCE),
        "Without permessage-deflate": _figures(lanes, OFF, MUX_OFF, REFERENCE_OFF),
        "An editor in a browser": _figures(lanes, (DIRECT, TUNNEL), TUNNEL, DIRECT),
    }
    for title, table in tables.items():
        # More than a table's two lines of head.
        if table.count("\n") > 1:
            parts += [f"### {title}", table]
    return "\n\n".join(part for part in parts if part)


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    lines = [
        f"Machine: {machine['cpu']}, {machine['cores']} cores shared by host, bridge, clients and servers "
        f"(load {machine['load']} before), Linux {machine['kernel']}, "
        f"Python {machine['python']}; "
        f"static server {found['static server']}; {found['rounds']} rounds, {machine['date']}, "
        f"revision {machine['revision']}.",
        *(
            f"The slow link as plain TCP ({machine['congestion control']}) finds it, {name}: {text}."
            for name, text in _links(found)
        ),
        *(f"Not measured: {text}." for text in found["left out"]),
    ]
    return "\n".join(lines)


def _links(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, f"{link['Mbit/s']:.2f} Mbit/s, round trip {link['ms']:.0f} ms")
        for name, link in found["links"].items()
    ]


def _reached(lanes: Lanes) -> str:
    lines = [
        "| measure | unit | target | uaihost | beside it | ratio | met |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for outcome in outcomes(lanes):
        target = outcome.target
        beside = "" if outcome.beside is None else _number(outcome.beside)
        ratio = "" if outcome.beside is None else f"{outcome.value:.3g}"
        met = "yes" if outcome.met else "**no**"
        lines.append(
            f"| {target.measure} | {target.unit} | {target.says()} | {_number(outcome.ours)} | {beside} "
            f"| {ratio} | {met} |"
        )
    return "\n".join(lines)


def _figures(lanes: Lanes, kinds: Sequence[Kind], ours: Kind, other: Kind) -> str:
    """A row for each figure of these lanes; the ratio is `ours` through `other`."""
    shown = [kind for kind in kinds if kind.name in lanes]
    names = " | ".join(kind.name.removesuffix(", deflate off") for kind in shown)
    lines = [f"| measure | unit | {names} | ratio |", f"|---|---|{'---:|' * len(shown)}---:|"]
    # A dict, for its order.
    rows: dict[tuple[str, str], None] = {}
    for kind in shown:
        for measure, units in lanes[kind.name].items():
            rows |= {(measure, unit): None for unit in units}
    for measure, unit in sorted(rows, key=lambda row: TITLES.index(row[0])):
        cells = [median(lanes, kind, measure, unit) for kind in shown]
        mine, beside = median(lanes, ours, measure, unit), median(lanes, other, measure, unit)
        ratio = "" if mine is None or not beside else f"{mine / beside:.2g}"
        text = " | ".join("" if cell is None else _number(cell) for cell in cells)
        lines.append(f"| {measure} | {unit} | {text} | {ratio} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(document: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put `text` between the document's two marks; the rest of it stays.

    Raises:
        ValueError: it has not each mark once, in order.
    """
    before, first, rest = document.read_text().partition(begin)
    _, second, after = rest.partition(end)
    if not first or not second or begin in after or end in after:
        raise ValueError(f"{document} has to hold the lines {begin!r} and {end!r}, once and in this order")
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
