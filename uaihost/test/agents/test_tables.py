"""The pure parts of agents: turn table, recovery, the keeper's framing, the mock's language, the registry."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.agents import faults, framing, mock, turn
from uaihost.agents.adapter import (
    AgentSettings,
    Answer,
    Fault,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Question,
    Ready,
    Retrying,
    SessionLost,
    TextDelta,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
    Usage,
)
from uaihost.agents.framing import BadKeeper, Hello, KeeperReader, LineSplitter, Out
from uaihost.agents.recovery import BACKOFF, Crashes, exit_reason
from uaihost.agents.registry import MOCK, AgentRegistry, Kind
from uaihost.agents.turn import Input, State
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import given, strategies
from uaihost.wire.frames import AgentKind

SETTINGS = AgentSettings("a", None, "/run/uai/agents/a", "be kind")


class TurnTests(TestCase):
    def test_the_table_is_whole(self) -> None:
        self.assertEqual(set(turn.TABLE), {(state, given) for state in State for given in Input})

    def test_a_turn_with_a_question(self) -> None:
        state = State.STARTING
        seen = []
        for given_input in (Input.READY, Input.PROMPT, Input.ASKED, Input.SETTLED, Input.ENDED):
            state = turn.step(state, given_input)
            seen.append(state)
        self.assertEqual(seen, [State.IDLE, State.BUSY, State.AWAITING, State.BUSY, State.IDLE])

    def test_only_idle_agents_begin_a_turn(self) -> None:
        begun = [state for state in State if turn.step(state, Input.PROMPT) not in (state,)]
        self.assertEqual(begun, [State.IDLE])

    def test_an_interrupt_matters_only_in_a_turn(self) -> None:
        for state in State:
            after = turn.step(state, Input.INTERRUPT)
            self.assertEqual(after, State.INTERRUPTING if state in turn.IN_TURN else state)

    def test_whoever_is_down_stays_down_until_a_restart(self) -> None:
        for state in (State.STOPPED, State.FAILED):
            for given_input in set(Input) - {Input.RESTART, Input.STOP}:
                self.assertEqual(turn.step(state, given_input), state)
            self.assertEqual(turn.step(state, Input.RESTART), State.STARTING)

    def test_an_end_of_the_process_or_a_stop_is_never_ignored(self) -> None:
        alive = set(State) - {State.STOPPED, State.FAILED}
        self.assertEqual({turn.step(state, Input.EXITED) for state in alive}, {State.STARTING})
        self.assertEqual({turn.step(state, Input.GAVE_UP) for state in alive}, {State.FAILED})
        self.assertEqual({turn.step(state, Input.STOP) for state in State}, {State.STOPPED})


class RecoveryTests(TestCase):
    def test_the_pauses_grow_and_then_it_stays_down(self) -> None:
        crashes = Crashes()
        found = [crashes.follow("a", "why", planned=False, goes_on=False) for _ in range(6)]
        self.assertEqual([each.delay for each in found], [*BACKOFF, None])
        self.assertIn("/restart @a", found[-1].text)

    def test_what_we_ended_is_no_crash(self) -> None:
        crashes = Crashes()
        crashes.follow("a", "why", planned=True, goes_on=True)
        self.assertEqual(crashes.count, 0)

    def test_people_learn_why_and_what_follows(self) -> None:
        text = Crashes().follow("a", exit_reason(-9, "x\nlast"), planned=False, goes_on=True).text
        self.assertIn("signal 9: x\nlast", text)
        self.assertIn("goes on with what it was doing", text)
        self.assertNotIn("goes on", Crashes().follow("a", "why", planned=False, goes_on=False).text)

    def test_the_same_is_not_said_again_and_again(self) -> None:
        crashes = Crashes()
        texts = [crashes.follow("a", why, planned=False, goes_on=False).text for why in ("x", "x", "y", "y")]
        self.assertEqual([bool(text) for text in texts], [True, False, True, False])
        crashes.clear()
        self.assertTrue(crashes.follow("a", "y", planned=False, goes_on=False).text)

    def test_a_long_stderr_is_cut_to_its_end(self) -> None:
        reason = exit_reason(1, "\n".join(f"line {n}" for n in range(100)))
        self.assertIn("line 99", reason)
        self.assertNotIn("line 91\n", reason)


class AdviceTests(TestCase):
    def test_a_sign_in_is_named_as_the_program_has_it(self) -> None:
        said = faults.advice("a", "claude", Fault("signed-out", "no"))
        self.assertIn("On the host type: uaihost login claude\n", said)
        said = faults.advice("a", "own", Fault("signed-out", "no", sign_in="Ask its maker"))
        self.assertIn("Ask its maker\n", said)
        self.assertNotIn("uaihost login", said)


class FramingTests(TestCase):
    @given(
        strategies.lists(
            strategies.one_of(
                strategies.binary(max_size=40), strategies.dictionaries(strategies.text(), strategies.text())
            ),
            max_size=8,
        ),
        strategies.integers(1, 11),
    )
    def test_messages_and_bytes_are_read_alike_however_cut(self, items: list[Any], size: int) -> None:
        expected: list[Any] = []
        stream, offset = b"", 0
        for item in items:
            if isinstance(item, bytes):
                stream += json.dumps({"out": offset, "size": len(item)}).encode() + b"\n" + item
                expected.append(Out(offset, item))
                offset += len(item)
            else:
                message = {f"x{key}": value for key, value in item.items()}
                stream += json.dumps(message).encode() + b"\n"
                expected.append(message)
        reader = KeeperReader()
        found: list[Any] = []
        for start in range(0, len(stream), size):
            found += reader.feed(stream[start : start + size])
        self.assertEqual(found, expected)
        self.assertEqual(KeeperReader().feed(stream), expected)

    def test_what_is_not_the_protocol_is_refused(self) -> None:
        for bad in (
            b"nonsense\n",
            b"[]\n",
            b'{"out": -1, "size": 2}\n',
            b'{"out": 0, "size": 99999999999}\n',
            b'{"out": true, "size": 1}\n',
            b'{"out": 0}\n',
            b"[" * 100_000 + b"\n",
            b"x" * (framing.MESSAGE_LIMIT + 1),
        ):
            with self.assertRaises(BadKeeper, msg=repr(bad[:40])):
                KeeperReader().feed(bad)

    @given(strategies.binary(max_size=200), strategies.integers(1, 17), strategies.integers(0, 1000))
    def test_lines_and_their_offsets_do_not_depend_on_the_cuts(
        self, data: bytes, size: int, offset: int
    ) -> None:
        splitter = LineSplitter(offset)
        found: list[Any] = []
        for start in range(0, len(data), size):
            found += splitter.feed(data[start : start + size])
        *lines, rest = data.split(b"\n")
        self.assertEqual([line for line, _ in found], lines)
        end = offset
        for line, line_end in found:
            end += len(line) + 1
            self.assertEqual(line_end, end)
        self.assertEqual(splitter.offset, end + len(rest))

    def test_a_line_beyond_the_limit_is_dropped_and_counted(self) -> None:
        splitter = LineSplitter(0, limit=4)
        found = [each for piece in (b"1234\n12", b"34", b"5\n", b"ok\n") for each in splitter.feed(piece)]
        self.assertEqual(found, [(b"1234", 5), (None, 11), (b"ok", 14)])

    def test_a_hello_of_another_version_or_shape_is_refused(self) -> None:
        good = {"hello": 1, "run": "r", "start": 0, "pid": 7, "exited": None, "stdin_next": 2, "out_end": 9}
        self.assertEqual(Hello.read(good), Hello("r", 0, 7, None, 2, 9))
        self.assertEqual(Hello.read(good | {"hello": 2, "base": 3}), Hello("r", 0, 7, None, 2, 9, 3))
        for change in (
            {"hello": 3},
            {"base": -1},
            {"base": 10},
            {"run": None},
            {"run": "x" * 65},
            {"pid": -1},
            {"out_end": "9"},
            {"stdin_next": 1 << 80},
            {"exited": "0"},
            {"exited": True},
            {"exited": 1 << 80},
            {"run": "\ud800"},
        ):
            with self.assertRaises(BadKeeper, msg=str(change)):
                Hello.read(good | change)


class MockAdapterTests(TestCase):
    def setUp(self) -> None:
        self.adapter = mock.MockAdapter(SETTINGS)

    def test_lines_become_events(self) -> None:
        table: list[tuple[dict[str, Any], Any]] = [
            ({"type": "session", "session": "s", "resumed": True}, Ready("s", True)),
            ({"type": "delta", "text": "he"}, TextDelta("he")),
            ({"type": "message", "text": "hello"}, Message("hello")),
            ({"type": "tool", "id": "1", "name": "Run", "detail": "ls", "state": "started", "ok": None},
             ToolStarted("1", "Run", "ls")),
            ({"type": "tool", "id": "1", "name": "Run", "detail": "ls", "state": "ended", "ok": False},
             ToolEnded("1", False)),
            ({"type": "permission", "request": "r", "tool": "Run", "title": "ls", "input": {"command": "ls"}},
             PermissionAsked("r", "Run", "ls", {"command": "ls"})),
            ({"type": "withdrawn", "request": "r"}, PermissionWithdrawn("r")),
            ({"type": "usage", "input": 3, "output": 4}, Usage(3, 4)),
            ({"type": "end", "turn": 1, "reason": "done", "error": None}, TurnEnded("done")),
            ({"type": "end", "turn": 1, "reason": "cancelled"}, TurnEnded("cancelled")),
            ({"type": "end", "reason": "failed", "error": "e", "fault": "quota", "resets": 7},
             TurnEnded("failed", Fault("quota", "e", 7))),
            ({"type": "lost", "text": "gone"}, SessionLost("gone")),
            ({"type": "retry", "text": "busy", "attempt": 1, "most": 3}, Retrying("busy", 1, 3)),
            ({"type": "oddity"}, Unknown("oddity", '{"type": "oddity"}')),
            ({"type": "permission", "request": "r", "tool": "Q", "title": "t", "input": {},
              "questions": [{"text": "Which?", "options": ["a", "b"]}]},
             PermissionAsked("r", "Q", "t", {}, (Question("Which?", (("a", ""), ("b", ""))),))),
            ({"type": "end", "reason": "?", "error": "e"}, TurnEnded("failed", Fault("other", "e"))),
        ]  # fmt: skip
        for line, event in table:
            self.assertEqual(self.adapter.feed(json.dumps(line).encode()), [event])

    @given(
        strategies.one_of(
            strategies.binary(max_size=60),
            strategies.recursive(
                strategies.none() | strategies.integers() | strategies.text(max_size=5),
                lambda inner: (
                    strategies.lists(inner, max_size=3)
                    | strategies.dictionaries(
                        strategies.sampled_from(
                            ["type", "text", "input", "request", "session", "state", "ok"]
                        ),
                        strategies.sampled_from(["delta", "end", "permission", "usage"]) | inner,
                        max_size=4,
                    )
                ),
                max_leaves=8,
            ).map(lambda value: json.dumps(value).encode()),
        )
    )
    def test_noise_is_tolerated(self, line: bytes) -> None:
        self.assertIsInstance(self.adapter.feed(line), list)

    def test_deep_nesting_and_half_surrogates_are_noise(self) -> None:
        self.assertEqual(self.adapter.feed(b"[" * 100_000), [])
        self.assertEqual(self.adapter.feed(rb'{"type": "delta", "text": "\ud800"}'), [])

    def test_requests_are_single_lines_of_json(self) -> None:
        for line in (
            self.adapter.open("s"),
            self.adapter.prompt("one\ntwo \ud800"),
            self.adapter.answer("r", Answer(True)),
            *self.adapter.interrupt(),
        ):
            assert line is not None
            self.assertNotIn(b"\n", line)
            self.assertIn("type", json.loads(line))

    def test_the_memory_makes_a_new_adapter_go_on(self) -> None:
        self.adapter.prompt("one")
        again = mock.MockAdapter(SETTINGS, self.adapter.memory())
        self.assertEqual(json.loads(again.prompt("two"))["turn"], 2)

    def test_only_the_free_model_is_free(self) -> None:
        for model, expected in (
            ("free", "free"),
            ("careful", "careful"),
            (None, "careful"),
            ("x", "careful"),
        ):
            argv = mock.MockAdapter(AgentSettings("a", model, "/f", "")).start(None).argv
            self.assertEqual(argv[argv.index("--model") + 1], expected)
        self.assertEqual(self.adapter.start("s").argv[-2:], ("--resume", "s"))


class RegistryTests(TestCase):
    def test_an_unknown_kind_names_what_exists(self) -> None:
        with self.assertRaises(HostError) as caught:
            AgentRegistry().get("clippy")
        self.assertEqual(caught.exception.code, ErrorCode.INVALID_ARGS)
        self.assertIn("'clippy'", caught.exception.message)
        self.assertIn("mock", caught.exception.message)

    def test_a_change_is_told_once_and_only_if_it_is_one(self) -> None:
        registry = AgentRegistry()
        told: list[list[AgentKind]] = []
        leave = registry.on_change(lambda: told.append(registry.capabilities()))
        registry.replace([MOCK])
        self.assertEqual(told, [])
        registry.replace([MOCK, Kind("other", ("m",), mock.MockAdapter)])
        self.assertEqual(told, [[AgentKind("mock", ["careful", "free"]), AgentKind("other", ["m"])]])
        leave()
        registry.replace([])
        self.assertEqual(len(told), 1)
