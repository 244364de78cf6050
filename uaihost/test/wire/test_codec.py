"""Every frame of docs/protocol.md: what is read, what is refused, and that nothing read can raise."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.test.support import given, strategies
from uaihost.wire import codec, frames
from uaihost.wire.codec import BadFrame

OPEN: dict[str, Any] = {
    "kind": "tunnel.open",
    "tunnelId": "t",
    "target": "preview",
    "taskId": "k",
    "name": "web",
    "reqLine": {"method": "GET", "url": "/", "headers": [["Host", "x"], ["Host", "y"]]},
    "upgrade": False,
}
SET: dict[str, Any] = {
    "kind": "gh.connect.set",
    "userId": "u",
    "installationId": 7,
    "githubLogin": "octo",
    "targetType": "User",
    "refreshToken": "s3cret-token",
}

GOOD: list[tuple[dict[str, Any], type]] = [
    ({"kind": "pong", "ts": 1}, frames.Pong),
    ({"kind": "pong", "ts": 1.5}, frames.Pong),
    ({"kind": "bridge.hello", "features": ["mux.1"]}, frames.BridgeHello),
    ({"kind": "command", "commandId": "c", "command": "taskUp", "args": []}, frames.Command),
    ({"kind": "command", "commandId": "c", "command": "noSuch", "args": [1, None]}, frames.Command),
    (OPEN, frames.TunnelOpen),
    ({**OPEN, "target": "editor", "upgrade": True, "extra": {"a": 1}}, frames.TunnelOpen),
    ({"kind": "tunnel.data", "tunnelId": "t"}, frames.TunnelData),
    ({"kind": "tunnel.requestEnd", "tunnelId": "t"}, frames.TunnelRequestEnd),
    ({"kind": "tunnel.close", "tunnelId": "t"}, frames.TunnelClose),
    ({"kind": "tunnel.close", "tunnelId": "t", "reason": "bye"}, frames.TunnelClose),
    (SET, frames.GhConnectSet),
    ({**SET, "targetType": "Organization", "refreshTokenExpiresAt": 5}, frames.GhConnectSet),
    ({"kind": "gh.connect.clear", "userId": "u"}, frames.GhConnectClear),
    ({"kind": "ssh.key.get", "userId": "u"}, frames.SshKeyGet),
    ({"kind": "ssh.key.ensure", "userId": "u"}, frames.SshKeyEnsure),
    ({"kind": "ssh.key.delete", "userId": "u"}, frames.SshKeyDelete),
]

# Required fields by kind, each with a value of a wrong type.
WRONG: dict[str, dict[str, Any]] = {
    "pong": {"ts": "1"},
    "bridge.hello": {"features": "mux.1"},
    "command": {"commandId": 1, "command": None, "args": {}},
    "tunnel.open": {
        "tunnelId": 1,
        "target": "shell",
        "taskId": None,
        "reqLine": [],
        "upgrade": "false",
    },
    "tunnel.data": {"tunnelId": 1},
    "tunnel.requestEnd": {"tunnelId": None},
    "tunnel.close": {"tunnelId": []},
    "gh.connect.set": {
        "userId": 1,
        "installationId": "7",
        "githubLogin": None,
        "targetType": "Robot",
        "refreshToken": 5,
    },
    "gh.connect.clear": {"userId": 1},
    "ssh.key.get": {"userId": 1},
    "ssh.key.ensure": {"userId": {}},
    "ssh.key.delete": {"userId": None},
}

NOT_FRAMES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"5",
    b'"pong"',
    b"{}",
    b'{"kind":5}',
    b'{"kind":"nope"}',
    b'{"kind":"auth","token":"t","hostId":"h"}',
    b'{"kind":"pong","ts":1e999}',
    b'{"kind":"pong","ts":NaN}',
    b"[" * 200_000,
]


class FromBridgeTests(TestCase):
    def test_good_frames_are_read_as_their_type(self) -> None:
        for frame, kind in GOOD:
            self.assertIsInstance(codec.from_bridge(json.dumps(frame).encode()), kind, frame)

    def test_every_kind_of_the_protocol_is_in_the_table(self) -> None:
        self.assertEqual({frame["kind"] for frame, _ in GOOD}, set(WRONG))

    def test_each_missing_or_ill_typed_field_makes_a_bad_frame(self) -> None:
        by_kind = {frame["kind"]: frame for frame, _ in GOOD}
        for kind, fields in WRONG.items():
            for field, value in fields.items():
                for bad in ({**by_kind[kind], field: value}, _without(by_kind[kind], field)):
                    got = codec.from_bridge(json.dumps(bad).encode())
                    self.assertIsInstance(got, BadFrame, bad)
                    assert isinstance(got, BadFrame)
                    self.assertIn(kind, got.why)

    def test_request_lines_are_checked_to_the_last_header(self) -> None:
        for headers in (["a"], [["a"]], [["a", "b", "c"]], [["a", 1]], {"a": "b"}, None):
            bad = {**OPEN, "reqLine": {**OPEN["reqLine"], "headers": headers}}
            self.assertIsInstance(codec.from_bridge(json.dumps(bad).encode()), BadFrame, headers)

    def test_what_is_no_frame_is_described(self) -> None:
        for payload in NOT_FRAMES:
            got = codec.from_bridge(payload)
            assert isinstance(got, BadFrame), payload[:40]
            self.assertLess(len(got.why), 200)

    def test_an_ill_typed_optional_field_counts_as_absent(self) -> None:
        got = codec.from_bridge(json.dumps({**OPEN, "name": 5}).encode())
        assert isinstance(got, frames.TunnelOpen)
        self.assertIsNone(got.name)
        got = codec.from_bridge(b'{"kind":"tunnel.close","tunnelId":"t","reason":["x"]}')
        assert isinstance(got, frames.TunnelClose)
        self.assertIsNone(got.reason)
        got = codec.from_bridge(json.dumps({**SET, "refreshTokenExpiresAt": True}).encode())
        assert isinstance(got, frames.GhConnectSet)
        self.assertIsNone(got.refreshTokenExpiresAt)

    def test_a_command_with_bad_args_can_still_be_answered(self) -> None:
        got = codec.from_bridge(b'{"kind":"command","commandId":"c1","command":"taskUp","args":"x"}')
        assert isinstance(got, BadFrame)
        self.assertEqual(got.command_id, "c1")

    def test_only_commands_are_answered(self) -> None:
        got = codec.from_bridge(b'{"kind":"pong","commandId":"c1"}')
        assert isinstance(got, BadFrame)
        self.assertIsNone(got.command_id)

    def test_no_value_of_a_secret_frame_is_described_or_shown(self) -> None:
        for bad in ({**SET, "installationId": "s3cret-token"}, {**SET, "targetType": "s3cret-token"}):
            got = codec.from_bridge(json.dumps(bad).encode())
            assert isinstance(got, BadFrame)
            self.assertNotIn("s3cret", got.why)
        self.assertNotIn("s3cret", repr(codec.from_bridge(json.dumps(SET).encode())))

    @given(strategies.binary(max_size=300))
    def test_any_bytes_become_a_frame_or_a_bad_frame(self, payload: bytes) -> None:
        self.assertIsNotNone(codec.from_bridge(payload))
        self.assertIsNotNone(codec.from_host(payload))

    @given(
        strategies.sampled_from([frame for frame, _ in GOOD]),
        strategies.data(),
        strategies.recursive(
            strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=8),
            lambda inner: (
                strategies.lists(inner, max_size=3)
                | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
    def test_any_value_in_any_field_never_raises(self, frame: dict[str, Any], data: Any, value: Any) -> None:
        field = data.draw(strategies.sampled_from(sorted(frame)))
        got = codec.from_bridge(json.dumps({**frame, field: value}).encode())
        self.assertIsInstance(got, (*[kind for _, kind in GOOD], BadFrame))


class FromHostTests(TestCase):
    def test_every_frame_of_a_host_survives_the_way(self) -> None:
        sent: list[frames.FromHost] = [
            frames.Auth("t", "h"),
            frames.HostCapabilities(
                frames.Capabilities([frames.AgentKind("mock", ["a"])], [frames.Runtime("python", "3")])
            ),
            frames.Ping(1),
            frames.Result("c", {"ok": True, "value": None}),
            frames.EventFrame({"type": "x"}),
            frames.TunnelAck("t", True, 200, "OK", [("A", "b"), ("a", "c")]),
            frames.TunnelAck("t", False, 503, message="no"),
            frames.TunnelData("t"),
            frames.TunnelClose("t", "upstream ended"),
            frames.GhConnectAck("u", True),
            frames.GhConnectAck("u", False, "why"),
        ]
        for frame in sent:
            self.assertEqual(codec.from_host(codec.encode(frame)), frame)

    def test_a_key_answer_says_null_where_there_is_no_key(self) -> None:
        payload = codec.encode(frames.SshKeyOk("u", None))
        self.assertIn(b'"publicKey":null', payload)
        self.assertEqual(codec.from_host(payload), frames.SshKeyAck("u", True))

    def test_results_have_the_two_documented_shapes(self) -> None:
        good = json.loads(codec.encode(frames.Result("c", frames.ResultOk({"a": 1}))))
        self.assertEqual(
            good, {"kind": "result", "commandId": "c", "result": {"ok": True, "value": {"a": 1}}}
        )
        bad = json.loads(codec.encode(frames.Result("c", frames.ResultFailed("internal", "m"))))
        self.assertEqual(bad["result"], {"ok": False, "code": "internal", "message": "m"})


def _without(frame: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in frame.items() if name != field}
