"""One connection's conversation, and every bad frame survived."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from uaihost.interfaces import LinkInput
from uaihost.link.session import Greeting, Inbound, Proof, Session
from uaihost.link.socket import MessageSocket
from uaihost.test.link.fakes import Pipe
from uaihost.test.support import given, strategies
from uaihost.wire.frames import AgentKind, Capabilities, SshKeyOk

KINDS = [
    "command",
    "tunnel.open",
    "tunnel.requestEnd",
    "tunnel.close",
    "gh.connect.set",
    "gh.connect.clear",
    "ssh.key.get",
    "ssh.key.ensure",
    "ssh.key.delete",
]

SECRET = "s3cr3t-value"

# Every row of docs/protocol.md, section 2, broken in each way it can be.
BAD = {
    "not JSON": b"hello",
    "empty": b"",
    "half an object": b'{"kind":"pong"',
    "deeply nested": b"[" * 100_000,
    "not an object": b'["pong"]',
    "null": b"null",
    "a number": b"7",
    "no kind": b'{"ts":1}',
    "kind no string": b'{"kind":7}',
    "unknown kind": b'{"kind":"nonsense","token":"s3cr3t-value"}',
    "pong without ts": b'{"kind":"pong"}',
    "pong with a text": b'{"kind":"pong","ts":"s3cr3t-value"}',
    "command without id": b'{"kind":"command","command":"taskUp","args":[]}',
    "command with an ill-typed id": b'{"kind":"command","commandId":7,"command":"taskUp","args":[]}',
    "tunnel.open without reqLine": b'{"kind":"tunnel.open","tunnelId":"t","target":"editor","taskId":"x",'
    b'"upgrade":false}',
    "tunnel.open to nowhere": b'{"kind":"tunnel.open","tunnelId":"t","target":"cellar","taskId":"x",'
    b'"upgrade":false,"reqLine":{"method":"GET","url":"/","headers":[]}}',
    "tunnel.open with flat headers": b'{"kind":"tunnel.open","tunnelId":"t","target":"editor","taskId":"x",'
    b'"upgrade":false,"reqLine":{"method":"GET","url":"/","headers":["a","b"]}}',
    "tunnel.open with upgrade as text": b'{"kind":"tunnel.open","tunnelId":"t","target":"editor",'
    b'"taskId":"x","upgrade":"no","reqLine":{"method":"GET","url":"/","headers":[]}}',
    "tunnel.data without id": b'{"kind":"tunnel.data"}',
    "tunnel.data with a number": b'{"kind":"tunnel.data","tunnelId":1}',
    "tunnel.requestEnd without id": b'{"kind":"tunnel.requestEnd"}',
    "tunnel.close without id": b'{"kind":"tunnel.close","reason":"done"}',
    "gh.connect.set without token": b'{"kind":"gh.connect.set","userId":"u","installationId":1,'
    b'"githubLogin":"l","targetType":"User"}',
    "gh.connect.set of another type": b'{"kind":"gh.connect.set","userId":"u","installationId":1,'
    b'"githubLogin":"l","targetType":"s3cr3t-value","refreshToken":"s3cr3t-value"}',
    "gh.connect.set with a text id": b'{"kind":"gh.connect.set","userId":"u","installationId":"s3cr3t-value",'
    b'"githubLogin":"l","targetType":"User","refreshToken":"s3cr3t-value"}',
    "gh.connect.clear without user": b'{"kind":"gh.connect.clear"}',
    "ssh.key.get without user": b'{"kind":"ssh.key.get"}',
    "ssh.key.ensure with a list": b'{"kind":"ssh.key.ensure","userId":["u"]}',
    "ssh.key.delete with null": b'{"kind":"ssh.key.delete","userId":null}',
    "bridge.hello without features": b'{"kind":"bridge.hello"}',
    "a frame of the host": b'{"kind":"auth","token":"s3cr3t-value","hostId":"h"}',
}


class SessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pipe = Pipe()
        self.seen: list[Any] = []
        self.data: list[tuple[str, bytes]] = []
        self.muxed: list[bytes] = []
        self.bad: list[tuple[str, str]] = []
        self.pinged: list[int] = []
        self.ponged: list[float] = []
        self.capabilities = Capabilities(agentKinds=[], runtimes=[])
        self.session = Session(
            self.clock,
            cast(MessageSocket, self.pipe),
            Greeting("T0KEN", "H", lambda: self.capabilities),
            Inbound(
                dict.fromkeys(KINDS, self.seen.append),
                lambda tunnel_id, data: self.data.append((tunnel_id, data)),
                lambda message: self.muxed.append(message),
                lambda command_id, why: self.bad.append((command_id, why)),
            ),
            Proof(self.pinged.append, self.ponged.append),
        )
        self.session.start()

    def alive(self) -> None:
        """The session still does its work, and nothing was said or closed."""
        before = len(self.ponged)
        self.session.text(b'{"kind":"pong","ts":12.5}')
        self.assertEqual(self.ponged[before:], [12.5])
        self.assertEqual((len(self.pipe.sent), self.pipe.closes), (2, []))

    def test_it_says_who_it_is_at_once_and_waits_for_nothing(self) -> None:
        self.assertEqual(
            self.pipe.texts(),
            [
                b'{"kind":"auth","token":"T0KEN","hostId":"H"}',
                b'{"kind":"host.capabilities","capabilities":{"agentKinds":[],"runtimes":[]}}',
            ],
        )

    def test_capabilities_are_asked_for_again_when_they_changed(self) -> None:
        self.capabilities = Capabilities(agentKinds=[AgentKind("mock", ["m"])], runtimes=[])
        self.session.advertise()
        self.assertIn(b'"mock"', self.pipe.texts()[-1])

    def test_a_frame_reaches_whoever_takes_its_kind(self) -> None:
        self.session.text(b'{"kind":"command","commandId":"c","command":"taskStatus","args":["t"],"more":1}')
        self.assertEqual([(f.commandId, f.command, f.args) for f in self.seen], [("c", "taskStatus", ["t"])])

    def test_bytes_go_to_the_tunnel_that_was_announced(self) -> None:
        for tunnel_id in ("a", "b"):
            self.session.text(b'{"kind":"tunnel.data","tunnelId":"%b"}' % tunnel_id.encode())
            self.session.binary(tunnel_id.encode() * 3)
        self.assertEqual(self.data, [("a", b"aaa"), ("b", b"bbb")])

    def test_frames_may_come_between_the_announcement_and_the_bytes(self) -> None:
        self.session.text(b'{"kind":"tunnel.data","tunnelId":"a"}')
        self.session.text(b'{"kind":"pong","ts":1}')
        self.session.text(b"rubbish")
        self.session.binary(b"x")
        self.assertEqual(self.data, [("a", b"x")])

    def test_bytes_that_nothing_announced_are_dropped(self) -> None:
        self.session.binary(b"x")
        self.session.text(b'{"kind":"tunnel.data","tunnelId":"a"}')
        self.session.binary(b"y")
        self.session.binary(b"z")
        self.assertEqual(self.data, [("a", b"y")])
        self.alive()

    def test_messages_of_mux_1_are_taken_once_both_ends_speak_it(self) -> None:
        hello = b'{"kind":"bridge.hello","features":["other.1","mux.1"]}'
        self.session.binary(b"before")
        self.session.text(hello)
        self.session.binary(b"we do not")
        self.assertEqual(self.muxed, [])
        self.capabilities = Capabilities(agentKinds=[], runtimes=[], features=["mux.1"])
        self.session.text(b'{"kind":"bridge.hello","features":["other.1"]}')
        self.session.binary(b"the bridge does not")
        self.session.text(hello)
        self.session.binary(b"one")
        self.session.text(b'{"kind":"tunnel.data","tunnelId":"a"}')
        self.session.binary(b"of revision 1")
        self.session.binary(b"two")
        self.assertEqual((self.muxed, self.data), ([b"one", b"two"], [("a", b"of revision 1")]))
        self.alive()

    def test_a_bridge_that_breaks_mux_1_is_left(self) -> None:
        self.session.broken("a frame's payload is cut")
        self.assertEqual(self.pipe.closes, [(4002, "a frame's payload is cut")])

    def test_a_command_that_cannot_be_read_is_answered(self) -> None:
        self.session.text(b'{"kind":"command","commandId":"c1","command":"taskUp","args":"no list"}')
        self.session.text(b'{"kind":"command","commandId":"c2","args":[]}')
        self.assertEqual([command_id for command_id, _ in self.bad], ["c1", "c2"])
        self.assertIn("args", self.bad[0][1])
        self.alive()

    def test_a_kind_that_nobody_takes_is_dropped(self) -> None:
        inbound = self.session._inbound
        self.session._inbound = Inbound({}, inbound.binary, inbound.mux, inbound.bad_command)
        self.session.text(b'{"kind":"ssh.key.get","userId":"u"}')
        self.alive()

    def test_what_fails_is_logged_and_ends_nothing(self) -> None:
        def broken(*args: object) -> None:
            raise ZeroDivisionError

        self.session._inbound = Inbound({"ssh.key.get": broken}, broken, broken, broken)
        self.session.text(b'{"kind":"ssh.key.get","userId":"u"}')
        self.session.text(b'{"kind":"tunnel.data","tunnelId":"a"}')
        self.session.binary(b"x")
        self.session.text(b'{"kind":"command","commandId":"c1","args":[]}')
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.alive()

    def test_reading_stops_while_any_reason_holds(self) -> None:
        brake: LinkInput = self.session
        brake.hold("a")
        brake.hold("b")
        brake.hold("b")
        brake.release("a")
        self.assertFalse(self.pipe.reading)
        brake.release("b")
        self.assertTrue(self.pipe.reading)
        brake.release("b")
        self.assertTrue(self.pipe.reading)

    def test_a_held_socket_is_not_dead(self) -> None:
        self.session.hold("slow upstream")
        self.clock.pump([1.0] * 300)
        self.assertEqual(self.pipe.closes, [])
        self.session.release("slow upstream")
        self.clock.pump([1.0] * 50)
        self.assertEqual(self.pipe.closes, [(4000, "heartbeat timeout")])

    def test_long_frames_are_compressed_and_short_ones_are_not(self) -> None:
        self.session.send(SshKeyOk(userId="u", publicKey="k" * 5000))
        self.session.send(SshKeyOk(userId="u", publicKey="k"))
        self.assertEqual([m.compress for m in self.pipe.sent[2:]], [True, False])

    def test_pings_go_out_and_are_made_known(self) -> None:
        self.clock.pump([1.0] * 15)
        self.assertEqual(self.pinged, [15000])
        self.assertEqual(self.pipe.texts()[-1], b'{"kind":"ping","ts":15000}')

    def test_closed_it_is_silent_and_leaves_no_timer(self) -> None:
        sent = len(self.pipe.sent)
        self.session.closed(1006, "gone")
        self.session.send(SshKeyOk(userId="u", publicKey="k"))
        self.session.outbound.outlet("t").write(b"x")
        self.assertEqual(len(self.pipe.sent), sent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_token_shows_nowhere(self) -> None:
        self.assertNotIn("T0KEN", repr(Greeting("T0KEN", "H", lambda: self.capabilities)))

    @given(strategies.one_of(strategies.binary(), strategies.text().map(lambda text: text.encode())))
    def test_no_message_whatsoever_ends_it(self, payload: bytes) -> None:
        before = len(self.ponged)
        self.session.text(payload)
        self.session.binary(payload)
        self.session.text(b'{"kind":"pong","ts":1}')
        self.assertEqual(len(self.ponged), before + 1)


def _survives(name: str, payload: bytes) -> Any:
    def test(self: SessionTests) -> None:
        with capturedLogs() as events:
            self.session.text(payload)
        lines = [eventAsText(event) for event in events]
        self.assertEqual(len(lines), 1, lines)
        self.assertNotIn(SECRET, lines[0])
        self.assertEqual((self.seen, self.data, self.bad), ([], [], []))
        self.alive()

    return test


for _name, _payload in BAD.items():
    setattr(
        SessionTests, "test_survives_" + _name.replace(" ", "_").replace(".", "_"), _survives(_name, _payload)
    )
