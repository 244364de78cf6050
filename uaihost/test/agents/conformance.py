"""What every adapter must do, held over golden transcripts and arbitrary lines; a new kind gets it for free.

Give a test class the bases `Conformance` and TestCase, a `folder` of transcripts (record.py), and `make`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies

from uaihost.agents.adapter import (
    Adapter,
    AgentEvent,
    Answer,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Ready,
    Retrying,
    Send,
    TextDelta,
    TextVoid,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
)
from uaihost.test.agents.record import GOLDEN, SCENARIOS
from uaihost.test.support import given

JSON: Any = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=8),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


class Conformance:
    """folder: of the golden transcripts, below `golden`."""

    folder: str
    # Scenarios that the program comes to no end with.
    without: frozenset[str] = frozenset()
    bad_request = "refused"

    def make(self, memory: str = "") -> Adapter:
        raise NotImplementedError

    # ---- over what real programs have said

    def test_every_transcript_is_read_without_loss(self: Any) -> None:
        self.assertEqual({path.stem for path in self.paths()}, set(SCENARIOS) - self.without)
        for path in self.paths():
            unknown = [event for event in self.events(path) if isinstance(event, Unknown)]
            self.assertEqual(unknown, [], path.name)

    def test_an_adapter_made_anew_after_each_line_reads_the_same(self: Any) -> None:
        for path in self.paths():
            self.assertEqual(self.events(path, anew=True), self.events(path), path.name)

    def test_what_is_streamed_is_what_the_message_says(self: Any) -> None:
        for path in self.paths():
            streamed = ""
            for event in self.events(path):
                if isinstance(event, TextDelta):
                    streamed += event.text
                elif isinstance(event, TextVoid):
                    streamed = ""
                elif isinstance(event, TurnEnded):
                    # What was interrupted is not always repeated whole.
                    streamed = ""
                elif isinstance(event, Message):
                    self.assertEqual(streamed or event.text, event.text, path.name)
                    streamed = ""

    def test_turns_end_as_they_did(self: Any) -> None:
        ends = {
            "answer": [("done", None), ("done", None)],
            "tools": [("done", None)],
            "declined": [("done", None)],
            "thought": [("done", None)],
            "interrupted": [("cancelled", None), ("done", None)],
            "refused-key": [("failed", "signed-out")],
            "overloaded-once": [("done", None)],
            "overloaded": [("failed", "overloaded")],
            "limit": [("failed", "quota")],
            "bad-request": [("failed", self.bad_request)],
        }
        for name in ends.keys() - self.without:
            found = [
                (event.reason, event.fault.kind if event.fault else None)
                for event in self.events(self.path(name))
                if isinstance(event, TurnEnded)
            ]
            self.assertEqual(found, ends[name], name)

    def test_texts_are_said_as_they_are(self: Any) -> None:
        said = [event.text for event in self.events(self.path("answer")) if isinstance(event, Message)]
        self.assertEqual(said[0].strip(), "hello from the model")
        self.assertIn("/cost", said[1], "a text that looks like a command was one")

    def test_tools_begin_end_and_are_asked_about(self: Any) -> None:
        for name, ok in (("tools", True), ("declined", False)):
            events = self.events(self.path(name))
            asked = [event for event in events if isinstance(event, PermissionAsked)]
            self.assertTrue(asked, name)
            self.assertIn("touch", json.dumps(asked[0].input))
            started = {event.tool_id for event in events if isinstance(event, ToolStarted)}
            ended = {event.tool_id: event.ok for event in events if isinstance(event, ToolEnded)}
            self.assertEqual(started, set(ended), name)
            self.assertEqual(ended[next(iter(ended))], ok, name)

    def test_answers_and_orders_are_one_line_each(self: Any) -> None:
        adapter = self.make()
        lines = [adapter.open(None), adapter.prompt("two\nlines\u2028and \ud800 more"), *adapter.interrupt()]
        lines += [adapter.answer("nobody asked", Answer(accept)) for accept in (True, False)]
        for line in lines:
            self.assertNotIn(b"\n", line)
            self.assertIsInstance(json.loads(line), dict)

    # ---- over anything

    def test_noise_means_nothing(self: Any) -> None:
        for noise in (b"", b"hello", b"\xff\xfe", b"[1]", b"null", b"12", b"{", b'"text"', b"[" * 100_000):
            self.assertEqual(self.make().feed(noise), [], noise[:20])

    @given(JSON)
    def test_anything_that_is_json_is_read(self: Any, value: Any) -> None:
        self.make().feed(json.dumps(value).encode())

    @given(strategies.data())
    def test_lines_with_a_field_that_is_not_what_it_was_are_read(self: Any, data: Any) -> None:
        path = data.draw(strategies.sampled_from(self.paths()))
        lines = list(self.lines(path))
        at = data.draw(strategies.integers(0, len(lines) - 1))
        adapter = self.make()
        for number, (direction, text) in enumerate(lines):
            if direction == "out":
                try:
                    value = json.loads(text)
                except ValueError:
                    continue
                if number >= at:
                    value = spoiled(value, data.draw(strategies.integers(0, 30)), data.draw(JSON))
                for event in adapter.feed(json.dumps(value).encode()):
                    self.assertIsInstance(event, AgentEvent)
            if number > at + 3:
                break
        self.make(adapter.memory())

    # ---- within

    def paths(self) -> list[Path]:
        return sorted((GOLDEN / self.folder).glob("*.jsonl"))

    def path(self, name: str) -> Path:
        return GOLDEN / self.folder / f"{name}.jsonl"

    def lines(self, path: Path) -> Iterator[tuple[str, str]]:
        for line in path.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            yield found["dir"], found["line"]

    def events(self, path: Path, anew: bool = False) -> list[AgentEvent]:
        """What an adapter makes of a transcript, that has said what was said to the program."""
        adapter, found = self.make(), list[AgentEvent]()
        prompts, decide = list(SCENARIOS[path.stem].prompts), SCENARIOS[path.stem].decide
        adapter.open(None)
        pieces = 0
        for direction, text in self.lines(path):
            if direction == "in":
                continue
            for event in adapter.feed(text.encode()):
                found.append(event)
                if isinstance(event, Ready | TurnEnded) and prompts:
                    adapter.prompt(prompts.pop(0))
                elif isinstance(event, PermissionAsked):
                    answers = {each.text: each.options[0][0] for each in event.questions}
                    adapter.answer(event.request_id, Answer(decide, answers))
                elif isinstance(event, TextDelta) and SCENARIOS[path.stem].interrupt:
                    pieces += 1
                    if pieces == SCENARIOS[path.stem].interrupt:
                        adapter.interrupt()
            if anew:
                adapter = self.make(adapter.memory())
        return [event for event in found if not isinstance(event, Send | PermissionWithdrawn)]


class TellsLimits:
    """For programs that tell usage limits, and that they try again. Beside `Conformance`."""

    def test_a_limit_says_when_it_ends(self: Any) -> None:
        faults = [
            event.fault
            for event in self.events(self.path("limit"))
            if isinstance(event, TurnEnded) and event.fault
        ]
        self.assertEqual([fault.resets_at is not None for fault in faults], [True])

    def test_tries_of_its_own_are_told(self: Any) -> None:
        tries = [event for event in self.events(self.path("cut")) if isinstance(event, Retrying)]
        self.assertTrue(tries)
        self.assertLessEqual(len(tries), 4, "it would try for minutes")


def spoiled(value: Any, at: int, instead: Any) -> Any:
    """`value` with its `at`-th part, counted in depth, replaced."""
    count = -1

    def walk(part: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            return instead
        if isinstance(part, dict):
            return {name: walk(each) for name, each in part.items()}
        if isinstance(part, list):
            return [walk(each) for each in part]
        return part

    return walk(value)
